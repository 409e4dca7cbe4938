"""Decoded PCM of a folder's clips, packed once, so that no epoch decodes a file again.

A store is a folder in the cache, named by a fingerprint of its files: `pcm.i16` has the samples of all clips, one clip
after the other, `clips.parquet` the offset, length and content hash of each. It is memory-mapped, so a process has no
more of it in memory than the pages that it reads.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kws_data.audio import UnreadableAudioError, read_pcm, resampled_length
from kws_data.errors import KwsError
from kws_data.storage.atomic import lock_for, replace_dir
from kws_data.storage.cache import stores_dir
from kws_data.storage.parallel import map_chunks

log = logging.getLogger(__name__)

_VERSION = 1
_PCM_FILE, _CLIPS_FILE = "pcm.i16", "clips.parquet"


class ClipStore:
    """The packed clips of one folder.

    Attributes:
        clips: a row per clip of the catalog it was built from, in its order: `path`, `offset` and `length` in samples,
            `content` (a hash of the decoded samples), `error` (the reason why a file could not be decoded).
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


def fingerprint(root: Path, catalog: pd.DataFrame, sample_rate: int) -> str:
    """A name for the store of these files at this rate; changes when any file's name, size or time does."""
    digest = hashlib.sha256(f"{_VERSION} {sample_rate} {root}".encode())
    digest.update(pd.util.hash_pandas_object(catalog[["path", "bytes", "mtime_ns"]], index=False).to_numpy().tobytes())
    return digest.hexdigest()[:16]


def open_store(root: Path, catalog: pd.DataFrame, sample_rate: int) -> ClipStore:
    """The store of the catalog's usable clips, built if it does not exist yet.

    Of several runs that start at once, one builds it and the others wait.

    Raises:
        KwsError: the cache folder cannot be written (no room, no permission).
    """
    folder = stores_dir() / f"{root.name[:60]}-{fingerprint(root, catalog, sample_rate)}"
    try:
        if not folder.is_dir():
            with lock_for(folder):
                if not folder.is_dir():
                    log.info("decoding and packing %d files of '%s', once", len(catalog), root)
                    with replace_dir(folder) as temporary:
                        _build(temporary, root, catalog, sample_rate)
        return ClipStore(folder)
    except OSError as error:
        raise KwsError(
            f"cannot store decoded clips in '{folder.parent}': {error.strerror or error}; make room (kws data cache)"
            " or set KWS_DATA to another folder"
        ) from error


def content_hash(samples: np.ndarray) -> str:
    """32 hex digits that name these int16 samples."""
    return hashlib.blake2b(samples.tobytes(), digest_size=16).hexdigest()


class _Place(NamedTuple):
    """Where a clip is stored: at most `room` samples from `offset` on."""

    path: str
    offset: int
    room: int


def _build(folder: Path, root: Path, catalog: pd.DataFrame, sample_rate: int) -> None:
    room = resampled_length(catalog["num_samples"], catalog["sample_rate"], sample_rate).to_numpy(np.int64)
    ends = np.cumsum(room)
    places = [_Place(*place) for place in zip(catalog["path"], (ends - room).tolist(), room.tolist(), strict=True)]
    pcm = folder / _PCM_FILE
    with pcm.open("wb") as file:
        file.truncate(int(ends[-1]) * 2 if len(ends) else 0)
    packed = [row for part in map_chunks(_Packer(root, pcm, sample_rate), places, "decoding") for row in part]
    table = pd.DataFrame(packed, columns=["length", "content", "error"])
    table.insert(0, "offset", [place.offset for place in places])
    table.insert(0, "path", catalog["path"].to_numpy())
    table.to_parquet(folder / _CLIPS_FILE, index=False)


class _Packer:
    """A function that decodes and stores clips, and can be sent to another process."""

    def __init__(self, root: Path, pcm: Path, sample_rate: int) -> None:
        self.root, self.pcm, self.sample_rate = root, pcm, sample_rate

    def __call__(self, places: Sequence[_Place]) -> list[tuple[int, str, str]]:
        """(length, content hash, error) of each clip."""
        with self.pcm.open("r+b") as file:
            rows = []
            for place in places:
                try:
                    samples = read_pcm(self.root / place.path, self.sample_rate)[: place.room]
                except UnreadableAudioError as error:
                    rows.append((0, "", str(error)))
                    continue
                file.seek(place.offset * 2)
                file.write(samples.tobytes())
                rows.append((len(samples), content_hash(samples), ""))
        return rows
