"""The cache folder: data sets, their archives, catalogs, packed stores and features; listing and clearing them.

Code that fills an entry follows `kws_data.storage.atomic`: it holds `lock_for(path)`, and writes with `replace_file` or
`replace_dir`.
"""

import os
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import platformdirs
from filelock import Timeout

from kws_data.audio import AUDIO_SUFFIXES
from kws_data.errors import KwsError
from kws_data.storage import atomic

KINDS = ("datasets", "archives", "catalogs", "stores", "features")
PARTIAL_SUFFIX = ".partial"  # of an archive whose download is not complete and verified

_NOISE_FOLDER = "_background_noise_"


@dataclass(frozen=True)
class CacheEntry:
    """One entry of the cache, with the leftovers of interrupted writers (so `path` itself may be missing)."""

    kind: str
    name: str
    path: Path
    bytes: int
    clips: int | None  # audio files outside `_background_noise_`; data sets only
    modified: datetime  # UTC, of the newest top-level change


def cache_dir() -> Path:
    """The cache folder: KWS_DATA, else the user's cache folder for this program. It need not exist.

    Raises:
        KwsError: there is neither.
    """
    chosen = os.environ.get("KWS_DATA")
    try:
        return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("kws"))
    except RuntimeError as error:
        raise KwsError("there is no home folder: set KWS_DATA to a folder for data sets and caches, in full") from error


def datasets_dir(cache: Path | None = None) -> Path:
    """The folder of extracted data sets, one folder each."""
    return (cache or cache_dir()) / "datasets"


def archives_dir(cache: Path | None = None) -> Path:
    """The folder of archives, downloaded or put there by hand."""
    return (cache or cache_dir()) / "archives"


def catalogs_dir(cache: Path | None = None) -> Path:
    """The folder of scanned catalogs."""
    return (cache or cache_dir()) / "catalogs"


def stores_dir(cache: Path | None = None) -> Path:
    """The folder of packed PCM stores."""
    return (cache or cache_dir()) / "stores"


def features_dir(cache: Path | None = None) -> Path:
    """The folder of features to evaluate on."""
    return (cache or cache_dir()) / "features"


def entries(cache: Path | None = None) -> list[CacheEntry]:
    """The entries by kind and name. A link counts as a link; its target is not part of the cache.

    Raises:
        KwsError: there is a file in the place of the cache folder.
    """
    root = cache or cache_dir()
    if root.exists() and not root.is_dir():
        raise KwsError(f"cache: '{root}' is a file; set KWS_DATA to a folder")
    found = [_entry(kind, name, root, paths) for kind in KINDS for name, paths in sorted(_grouped(root / kind).items())]
    return [entry for entry in found if entry is not None]


def clear(kind: str | None = None, name: str | None = None, *, cache: Path | None = None) -> int:
    """Remove the entries of a kind (None: of every kind) and a name (None: all), and return the bytes freed.

    Nothing outside the cache folder is touched: names are only compared with existing ones, links are removed as links.

    Raises:
        KwsError: an unknown kind or name, or an entry that another process is filling.
    """
    root = cache or cache_dir()
    if kind is not None and kind not in KINDS:
        raise KwsError(f"cache: no kind {kind!r}; there are {', '.join(KINDS)}")
    kinds = KINDS if kind is None else (kind,)
    found = [entry for entry in entries(root) if entry.kind in kinds]
    if name is not None:
        known = ", ".join(entry.name for entry in found) or "nothing"
        found = [entry for entry in found if entry.name == name]
        if not found:
            raise KwsError(f"cache: no entry {name!r} under {', '.join(kinds)} in {root}; there is {known}")
    for linked in {entry.path.parent for entry in found if entry.path.parent.is_symlink()}:
        raise KwsError(
            f"cache: {linked} is a link to {linked.resolve()}, outside the cache; remove its contents by hand"
        )
    for entry in found:
        _remove(entry)
    return sum(entry.bytes for entry in found)


def _remove(entry: CacheEntry) -> None:
    try:
        with atomic.lock_for(entry.path, timeout_s=0):
            for path in _grouped(entry.path.parent).get(entry.name, []):
                atomic.remove(path)
    except Timeout:
        raise KwsError(f"cache: {entry.path} is in use by another process; try again when that has ended") from None
    except OSError as error:
        raise KwsError(f"cache: can't remove {error.filename or entry.path}: {error.strerror}") from None


def _grouped(folder: Path) -> dict[str, list[Path]]:
    """The paths in a kind's folder by entry name: the entry, its partial download, temporaries of killed writers."""
    groups: dict[str, list[Path]] = defaultdict(list)
    if folder.is_dir():
        for path in folder.iterdir():
            if not atomic.is_lock(path.name):
                groups[atomic.written_for(path.name).removesuffix(PARTIAL_SUFFIX)].append(path)
    return groups


def _entry(kind: str, name: str, root: Path, paths: list[Path]) -> CacheEntry | None:
    """None where other processes have removed all of it meanwhile."""
    measured = [_measure(path) for path in paths]
    states = [state for path in paths if (state := _state(path))]
    if not states:
        return None
    return CacheEntry(
        kind=kind,
        name=name,
        path=root / kind / name,
        bytes=sum(size for size, _ in measured),
        clips=sum(clips for _, clips in measured) if kind == "datasets" else None,
        modified=datetime.fromtimestamp(max(state.st_mtime for state in states), UTC),
    )


def _measure(path: Path) -> tuple[int, int]:
    """Bytes of the files at or below `path`, and how many of them are clips; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        state = _state(path)
        return state.st_size if state else 0, 0
    size = clips = 0
    for folder, _, names in os.walk(path):
        size += sum(state.st_size for name in names if (state := _state(Path(folder, name))))
        if Path(folder).name != _NOISE_FOLDER:
            clips += sum(Path(name).suffix.lower() in AUDIO_SUFFIXES for name in names)
    return size, clips


def _state(path: Path) -> os.stat_result | None:
    """Its state, of a link its own; None where another process has removed it meanwhile."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
