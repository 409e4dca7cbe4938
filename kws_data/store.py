"""Decoded PCM of a folder's clips, packed once, so that no epoch decodes a file again.

A store is a folder in the cache, named by a fingerprint of its files: `pcm.i16` has the samples of all clips, one clip
after the other, `clips.parquet` the offset, length and content hash of each. It is memory-mapped, so a process has no
more of it in memory than the pages that it reads.

Files whose inode or change time differs from the recorded one are decoded again: if their samples are the same, the
store stays. A store that was truncated or overwritten is built again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd

from kws_data.audio import AudioFile, UnreadableAudioError, resampled_length
from kws_data.clip_format import DEFAULT_RULES, AudioRules
from kws_data.errors import KwsError
from kws_data.storage.atomic import lock_for, replace_dir, replace_file
from kws_data.storage.cache import stores_dir
from kws_data.storage.parallel import map_chunks
from kws_data.storage.seal import is_intact, seal

log = logging.getLogger(__name__)

_VERSION = 2
_PCM_FILE, _CLIPS_FILE = "pcm.i16", "clips.parquet"
_STATE = ["inode", "ctime_ns"]  # besides size and modification time, which are part of the store's name
_HASH_BYTES = 16


class ClipStore:
    """The packed clips of one folder.

    Attributes:
        clips: a row per clip of the catalog it was built from, in its order: `path`, `offset` and `length` in samples,
            `content` (a hash of the decoded samples), `full_scale` and `muted` (see `AudioFile`), `error` (the reason
            why a file could not be decoded), `inode` and `ctime_ns` of the file.
        pcm: [samples] int16, memory-mapped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clips = pd.read_parquet(folder / _CLIPS_FILE)
        pcm = folder / _PCM_FILE
        # NumPy cannot map an empty file. And slicing a np.memmap takes several times as long as copying a clip, so the
        # mapping is viewed as a plain array.
        mapped = np.memmap(pcm, np.int16, "r").view(np.ndarray) if pcm.stat().st_size else np.zeros(0, np.int16)
        self.pcm: np.ndarray = mapped


def fingerprint(root: Path, catalog: pd.DataFrame, sample_rate: int, rules: AudioRules = DEFAULT_RULES) -> str:
    """A name for the store of these files at this rate; changes when any file's name, size or time does."""
    decoding = astuple(replace(rules, muted=DEFAULT_RULES.muted))  # muted clips are stored in any case
    digest = hashlib.sha256(f"{_VERSION} {sample_rate} {decoding} {root}".encode())
    digest.update(pd.util.hash_pandas_object(catalog[["path", "bytes", "mtime_ns"]], index=False).to_numpy().tobytes())
    return digest.hexdigest()[:16]


def open_store(
    root: Path, catalog: pd.DataFrame, sample_rate: int, rules: AudioRules = DEFAULT_RULES, *, renew: bool = False
) -> ClipStore:
    """The store of the catalog's usable clips, built if it does not exist, is damaged, or files changed since.

    Of several runs that start at once, one builds it and the others wait.

    Args:
        root: the folder of the files.
        catalog: a row per file.
        sample_rate: Hz.
        rules: what files may be.
        renew: decode every file again in any case.

    Raises:
        KwsError: the cache folder cannot be written (no room, no permission).
    """
    folder = stores_dir() / f"{root.name[:60]}-{fingerprint(root, catalog, sample_rate, rules)}"
    try:
        store = None if renew else _opened(folder, catalog)
        if store is None:
            with lock_for(folder):
                if renew or not (_is_current(folder, catalog) or _confirmed(folder, root, catalog, sample_rate, rules)):
                    log.info("decoding and packing %d files of '%s', once", len(catalog), root)
                    with replace_dir(folder) as temporary:
                        _build(temporary, root, catalog, sample_rate, rules)
                store = ClipStore(folder)
        return store
    except OSError as error:
        raise KwsError(
            f"cannot store decoded clips in '{folder.parent}': {error.strerror or error}; make room (kws data cache)"
            " or set KWS_DATA to another folder"
        ) from error


def content_hash(samples: np.ndarray) -> str:
    """32 hex digits that name these int16 samples."""
    return hashlib.blake2b(np.ascontiguousarray(samples).data, digest_size=_HASH_BYTES).hexdigest()


def _opened(folder: Path, catalog: pd.DataFrame) -> ClipStore | None:
    """The store, if it is current, without its lock: a cache may be read-only. None too if it was just replaced."""
    with suppress(FileNotFoundError):
        before = folder.stat().st_ino
        store = ClipStore(folder) if _is_current(folder, catalog) else None
        if folder.stat().st_ino == before:
            return store
    return None


def _is_current(folder: Path, catalog: pd.DataFrame) -> bool:
    if not is_intact(folder):
        return False
    recorded = pd.read_parquet(folder / _CLIPS_FILE, columns=_STATE)
    return bool((recorded.to_numpy() == catalog[_STATE].to_numpy()).all())


def _confirmed(folder: Path, root: Path, catalog: pd.DataFrame, sample_rate: int, rules: AudioRules) -> bool:
    """Whether the files that were touched still hold the audio that is packed; if so, their new state is recorded."""
    if not folder.is_dir():
        return False
    if not is_intact(folder):
        log.warning("'%s' is damaged: its files are decoded again", folder)
        return False
    table = pd.read_parquet(folder / _CLIPS_FILE)
    touched = (table[_STATE].to_numpy() != catalog[_STATE].to_numpy()).any(axis=1)
    log.info("%d files of '%s' were touched: decoding them again to compare", touched.sum(), root)
    decode = _Packer(root, Path(os.devnull), sample_rate, rules)
    rows = _packed(decode, [_Place(path, 0, 0) for path in catalog.loc[touched, "path"]], "comparing")
    other = int((table.loc[touched, "content"].to_numpy() != rows["content"].to_numpy()).sum())
    if other:
        log.warning("%d files of '%s' hold other audio with the same size and time as before", other, root)
        return False
    table[_STATE] = catalog[_STATE].to_numpy()
    with replace_file(folder / _CLIPS_FILE) as temporary:
        table.to_parquet(temporary, index=False)
    seal(folder)
    return True


class _Place(NamedTuple):
    """Where a clip is stored: at most `room` samples from `offset` on."""

    path: str
    offset: int
    room: int


class _Row(NamedTuple):
    """A decoded file; see `ClipStore.clips`."""

    length: int
    content: str
    full_scale: float
    muted: bool
    error: str


def _build(folder: Path, root: Path, catalog: pd.DataFrame, sample_rate: int, rules: AudioRules) -> None:
    """Store each clip where its header's length places it, and after all others if it turned out to be longer."""
    rates = catalog["sample_rate"].clip(upper=rules.max_rate).to_numpy(np.int64)
    counts = np.minimum(catalog["num_samples"], round(rules.max_seconds) * rates)  # a header may say anything
    room = resampled_length(counts.to_numpy(np.int64), rates, sample_rate)
    pcm = folder / _PCM_FILE
    pack = _Packer(root, pcm, sample_rate, rules)
    pcm.touch()
    table = pd.DataFrame({"path": catalog["path"].to_numpy(), "offset": np.cumsum(room) - room})
    rows = _packed(pack, _places(table, room), "decoding")
    longer = (rows["length"] > room).to_numpy()
    if longer.any():
        lengths = rows.loc[longer, "length"].to_numpy()
        table.loc[longer, "offset"] = int(room.sum()) + np.cumsum(lengths) - lengths
        _packed(pack, _places(table[longer], lengths), "decoding longer files")
    table = pd.concat([table, rows], axis=1)
    table[_STATE] = catalog[_STATE].to_numpy()
    table.to_parquet(folder / _CLIPS_FILE, index=False)
    seal(folder)


def _places(table: pd.DataFrame, room: np.ndarray) -> list[_Place]:
    return [_Place(*place) for place in zip(table["path"], table["offset"].tolist(), room.tolist(), strict=True)]


def _packed(pack: _Packer, places: list[_Place], description: str) -> pd.DataFrame:
    rows = [row for part in map_chunks(pack, places, description) for row in part]
    return pd.DataFrame(rows, columns=_Row._fields).astype({"length": "int64", "full_scale": float, "muted": bool})


class _Packer:
    """A function that decodes and stores clips, and can be sent to another process."""

    def __init__(self, root: Path, pcm: Path, sample_rate: int, rules: AudioRules) -> None:
        self.root, self.pcm, self.sample_rate, self.rules = root, pcm, sample_rate, rules

    def __call__(self, places: Sequence[_Place]) -> list[_Row]:
        with self.pcm.open("r+b", buffering=0) as file:
            return [self._pack(place, file) for place in places]

    def _pack(self, place: _Place, file: BinaryIO) -> _Row:
        audio = AudioFile(self.root / place.path, self.sample_rate, self.rules)
        digest, length = hashlib.blake2b(digest_size=_HASH_BYTES), 0
        file.seek(2 * place.offset)
        try:
            for block in audio.pcm_blocks():
                digest.update(block.data)
                length += len(block)
                if length <= place.room:
                    file.write(block.data)
        except UnreadableAudioError as error:
            return _Row(0, "", 1.0, False, str(error))
        return _Row(length, digest.hexdigest(), audio.full_scale or 1.0, audio.muted, "")
