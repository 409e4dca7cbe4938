"""Scan a folder of clips into a table with one row per file, broken files included.

Columns: `path` (below the root, with '/', as the disk has it), `word` (the folder, in NFC), `speaker`, `utterance`,
`num_samples` and `sample_rate` (as in the file's header, which may be wrong: the store has what was decoded), `bytes`,
`mtime_ns`, `inode`, `ctime_ns`, `error` (the reason why a file can't be used, else empty). `layout.split_catalog` adds
`split`.

Headers are kept as Parquet in the cache folder; the next scan reads only files whose size, times or inode changed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
import pandas as pd
import pyarrow

from kws_data.audio import AUDIO_SUFFIXES, UnreadableAudioError, read_header
from kws_data.errors import KwsError
from kws_data.folders import find_data_set, find_folder, is_litter, nfc
from kws_data.storage.atomic import replace_file
from kws_data.storage.cache import catalogs_dir
from kws_data.storage.parallel import map_chunks
from kws_data.text import printable

log = logging.getLogger(__name__)

BACKGROUND_NOISE = "_background_noise_"
SILENCE = "_silence_"
UNKNOWN = "_unknown_"
SPECIAL_FOLDERS = (BACKGROUND_NOISE, SILENCE, UNKNOWN)

_NOT_TEXT = "its name is not UTF-8"
if sys.getfilesystemencoding() != "utf-8":
    _NOT_TEXT = f"its name is not {sys.getfilesystemencoding()}, as this locale has it: set PYTHONUTF8=1"
_FLATTENED = "a zip from Windows was unpacked without making its folders; `unzip` and 7-Zip make them"

_MOST_VISITS = 100  # of one folder, by links to it: folders of links to each other multiply
_TOO_MANY_LINKS = f"links lead to this folder in more than {_MOST_VISITS} ways"

_SPEAKER_AND_UTTERANCE = re.compile(r"(.*?)_nohash_(\d{0,18})")  # 18 digits fit into an int64

_CACHE_VERSION = 4
_STATE_COLUMNS = ["bytes", "mtime_ns", "inode", "ctime_ns"]
_WALK_COLUMNS = ["path", *_STATE_COLUMNS, "problem"]
_HEADER_COLUMNS = ["path", *_STATE_COLUMNS, "num_samples", "sample_rate", "error"]
_NO_STATE = (0, 0, 0, 0)


def scan(root: Path, *, speaker_pattern: str | None = None, renew: bool = False) -> pd.DataFrame:
    """The catalog of `root/<word>/…/<clip>`, sorted by path.

    Files directly in `root` (lists, licences), hidden files and folders, and what systems leave behind are ignored.

    Args:
        root: the data set's folder.
        speaker_pattern: a regular expression whose first group (else whole match) in the file name is the speaker, for
            names without `_nohash_`.
        renew: read every file again, also those that did not change.

    Raises:
        KwsError: `root` is not a folder, or `speaker_pattern` is not a regular expression, or matches no name.
    """
    root = find_data_set(root)
    files = pd.DataFrame(_walk(root), columns=_WALK_COLUMNS)
    flattened = files.loc[files["problem"] == _FLATTENED, "path"]
    if len(flattened):
        log.warning("'%s': %d files are set aside, such as '%s': %s", root, len(flattened), min(flattened), _FLATTENED)
    return without_unprintable(_with_names(_with_headers(root, files, renew=renew), speaker_pattern))


def scan_below(folder: Path, key: str, *, speaker_pattern: str | None = None) -> pd.DataFrame:
    """The catalog of every file below `folder`, at any depth, all under one word: the folder's name.

    Folders `_background_noise_` and `_silence_` are ignored, so that a whole data set can be given.

    Raises:
        KwsError: there is no such folder; the message starts with `key`, that of the configuration.
    """
    folder = find_folder(folder, key)
    files = pd.DataFrame(_walk(folder, with_root_files=True), columns=_WALK_COLUMNS)
    special = files["path"].str.contains(rf"(?:^|/)(?:{BACKGROUND_NOISE}|{SILENCE})/", regex=True)
    if special.any():
        log.info("'%s': ignoring %d files of %s or %s", folder, special.sum(), BACKGROUND_NOISE, SILENCE)
    headers = _with_headers(folder, files[~special])
    return _with_names(headers, speaker_pattern, must_match=False).assign(word=folder.name)


def without_unprintable(catalog: pd.DataFrame) -> pd.DataFrame:
    """Set aside the files whose word holds a control character, which no list or table can hold."""
    no_words = [word for word in catalog["word"].unique() if printable(word) != word]
    reason = "the name of its folder holds a control character"
    return catalog.assign(error=catalog["error"].mask(catalog["word"].isin(no_words), reason))


def usable(catalog: pd.DataFrame) -> pd.DataFrame:
    """The rows of good files."""
    return catalog[catalog["error"] == ""]


def set_aside(catalog: pd.DataFrame) -> pd.DataFrame:
    """The rows of files that can't be used, with the reason in `error`."""
    return catalog[catalog["error"] != ""]


def _walk(root: Path, *, with_root_files: bool = False) -> Iterator[tuple[str, int, int, int, int, str]]:
    """The _WALK_COLUMNS of every file; follows links, but not in circles."""
    pending: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(root), "", frozenset())]
    visits: Counter[tuple[int, int]] = Counter()
    while pending:
        folder, below, parents = pending.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116 - a Path for each of 100,000 files would double the time
            here = (status.st_dev, status.st_ino)
            if here in parents:
                continue
            visits[here] += 1
            if visits[here] > _MOST_VISITS:
                yield below.rstrip("/"), *_NO_STATE, _TOO_MANY_LINKS
                continue
            entries = list(os.scandir(folder))
        except OSError as error:
            if not below:
                raise KwsError(f"cannot list the folder '{root}': {error.strerror}") from error
            yield below.rstrip("/"), *_NO_STATE, f"cannot be read: {error.strerror}"
            continue
        for entry in entries:
            if is_litter(entry.name):
                continue
            path = f"{below}{entry.name}"
            try:
                path.encode()
                if entry.is_dir():
                    pending.append((entry.path, f"{path}/", parents | {here}))
                elif "\\" in entry.name and PureWindowsPath(entry.name).suffix.lower() in AUDIO_SUFFIXES:
                    yield path, *_NO_STATE, _FLATTENED
                elif below or with_root_files:
                    file = entry.stat()
                    inode = file.st_ino & (2**63 - 1)  # some file systems use all 64 bits
                    yield path, file.st_size, file.st_mtime_ns, inode, file.st_ctime_ns, ""
            except UnicodeEncodeError:  # Parquet can't store it
                yield os.fsencode(path).decode(errors="backslashreplace"), *_NO_STATE, _NOT_TEXT
            except OSError as error:  # a dangling link, links in a circle
                yield path, *_NO_STATE, f"cannot be read: {error.strerror}"


def _with_headers(root: Path, files: pd.DataFrame, *, renew: bool = False) -> pd.DataFrame:
    """Sort by path; add num_samples, sample_rate and error, from the cache for unchanged files."""
    cache = (
        catalogs_dir()
        / f"{root.name[:60]}-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}-v{_CACHE_VERSION}.parquet"
    )
    known = _read_cache(cache)
    if renew:
        known = known.head(0)
    merged = files.sort_values("path", ignore_index=True).merge(known, on=["path", *_STATE_COLUMNS], how="left")
    bad = merged["problem"] != ""
    merged.loc[bad, ["num_samples", "sample_rate"]] = 0
    merged.loc[bad, "error"] = merged.loc[bad, "problem"]
    fresh = merged["num_samples"].isna().to_numpy()
    if fresh.any():
        paths = merged.loc[fresh, "path"].tolist()
        rows = [row for part in map_chunks(_HeaderReader(root), paths, "scanning") for row in part]
        merged.loc[fresh, ["num_samples", "sample_rate"]] = [row[:2] for row in rows]
        merged.loc[fresh, "error"] = [row[2] for row in rows]
    merged = merged.astype({"num_samples": "int64", "sample_rate": "int64", "error": str}).drop(columns="problem")
    # Not cached: a file that the system refused to read may be readable next time, with the same size and time.
    lasting = merged[~bad & ~merged["error"].str.startswith("cannot be read")]
    if len(lasting) != len(known) or fresh.any():
        _write_cache(cache, lasting[_HEADER_COLUMNS])
    return merged


class _HeaderReader:
    """A function that reads headers below one root, and can be sent to another process."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, paths: Sequence[str]) -> list[tuple[int, int, str]]:
        return [self._read(path) for path in paths]

    def _read(self, path: str) -> tuple[int, int, str]:
        try:
            header = read_header(self.root / path)
        except UnreadableAudioError as error:
            return 0, 0, str(error)
        return header.num_samples, header.sample_rate, ""


def _read_cache(cache: Path) -> pd.DataFrame:
    empty = pd.DataFrame(
        {column: pd.Series(dtype="int64" if column in _STATE_COLUMNS else object) for column in _HEADER_COLUMNS}
    )
    if not cache.is_file():
        return empty
    try:
        return pd.read_parquet(cache)[_HEADER_COLUMNS]
    except (OSError, ValueError, KeyError, pyarrow.ArrowException):
        return empty  # a damaged cache only costs a scan


def _write_cache(cache: Path, headers: pd.DataFrame) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(cache) as temporary:
            headers.to_parquet(temporary, index=False)
    except OSError as error:
        raise KwsError(
            f"cannot write the catalog cache '{cache}': {error.strerror}; set KWS_DATA to a writable folder"
        ) from error


def _with_names(catalog: pd.DataFrame, speaker_pattern: str | None, *, must_match: bool = True) -> pd.DataFrame:
    """Add word, speaker and utterance, taken from the path."""
    # in one Unicode form, so that a word or a speaker is the same whichever system named the file; by Python, which
    # takes a third of the time that pandas does
    paths = catalog["path"].tolist()
    names = [nfc(path[path.rfind("/") + 1 :]) for path in paths]
    parts = [_SPEAKER_AND_UTTERANCE.match(name) for name in names]
    speaker = pd.Series([part and part[1] for part in parts], catalog.index, "str")
    if speaker_pattern is not None:
        special = catalog["path"].str.contains(rf"(?:^|/)(?:{'|'.join(SPECIAL_FOLDERS[:2])})/", regex=True)
        asked = pd.Series(names, catalog.index, "str")[speaker.isna() & ~special & (catalog["error"] == "")]
        matched = _match_speakers(asked, speaker_pattern)
        _report_unmatched(asked[matched.isna()], len(asked), speaker_pattern, must_match=must_match)
        speaker = speaker.fillna(matched)
    return catalog.assign(
        word=pd.Series([nfc(path.partition("/")[0]) for path in paths], catalog.index, "str"),
        speaker=speaker.fillna(pd.Series(names, catalog.index, "str")),
        utterance=np.array([int(part[2] or -1) if part else -1 for part in parts], np.int64),
    )


def _match_speakers(names: pd.Series, pattern: str) -> pd.Series:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise KwsError(f"dataset.speaker_pattern: '{pattern}' is not a regular expression: {error}") from error

    def speaker(name: str) -> str | None:
        match = expression.search(name)
        return None if match is None else (match.group(1) if expression.groups else match.group(0)) or None

    return names.map(speaker)


def _report_unmatched(names: pd.Series, of: int, pattern: str, *, must_match: bool) -> None:
    """Say how many of the names without `_nohash_` are not matched: each counts as a speaker of its own."""
    if names.empty:
        return
    line = f"dataset.speaker_pattern: '{pattern}' matches {of - len(names)} of {of} names; not '{names.iloc[0]}'"
    if len(names) == of and must_match:
        raise KwsError(f"{line}, say: its first group (or all of it) must be the speaker")
    log.warning("%s, say: each such name counts as a speaker", line)
