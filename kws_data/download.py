"""The published Speech Commands archives: downloaded once into the cache folder, verified and extracted.

A download goes to `archives/FILE.partial` and is resumed from there after an interruption; what is extracted goes to
`datasets/NAME` in one step. An archive that a user puts at `archives/FILE` is used instead, and kept.
"""

import errno
import gzip
import hashlib
import logging
import os
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn

from filelock import Timeout
from tqdm import tqdm

from kws_data import atomic
from kws_data import cache as cache_folder
from kws_data.errors import KwsError

BASE_URL = "https://storage.googleapis.com/download.tensorflow.org/data"

_LICENCE = "Creative Commons BY 4.0 (https://creativecommons.org/licenses/by/4.0/)"
_CITATION = (
    "Pete Warden. Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition. arXiv:1804.03209, 2018. "
    "https://arxiv.org/abs/1804.03209"
)
_CHUNK_BYTES = 1 << 16
_CONNECT_S, _READ_S = 10, 30  # timeouts
_TRIES = 5  # requests in one call, each going on where the connection before was lost
_PAUSE_S = 1.0  # between a lost connection and the next try

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A published archive, and what is known of it."""

    name: str
    file_name: str
    md5: str | None = None  # None: not published; size and full extraction are what is checked
    bytes: int | None = None
    clips: int | None = None
    root: str = ""  # the folder inside the archive that holds the words' folders
    test_set: str | None = None  # the archive with this release's canonical test set
    licence: str = _LICENCE
    citation: str = _CITATION


ARCHIVES = {
    archive.name: archive
    for archive in (
        Archive(
            "v0.01",
            "speech_commands_v0.01.tar.gz",
            md5="3cd23799cb2bbdec517f1cc028f8d43c",
            bytes=1_489_096_277,
            clips=64_727,
            test_set="test_set_v0.01",
        ),
        Archive(
            "v0.02",
            "speech_commands_v0.02.tar.gz",
            md5="6b74f3901214cb2c2934e98196829835",
            bytes=2_428_923_189,
            clips=105_829,
            test_set="test_set_v0.02",
        ),
        Archive("mini", "mini_speech_commands.zip", bytes=182_082_353, clips=8_000, root="mini_speech_commands"),
        Archive("test_set_v0.01", "speech_commands_test_set_v0.01.tar.gz"),
        Archive("test_set_v0.02", "speech_commands_test_set_v0.02.tar.gz", clips=4_890),
    )
}


def named(name: str) -> Archive:
    """The archive of that name; KwsError names the known ones."""
    if name not in ARCHIVES:
        raise KwsError(f"download: no data set {name!r}; there are {', '.join(ARCHIVES)}")
    return ARCHIVES[name]


def fetch(
    archive: Archive,
    *,
    cache: Path | None = None,
    url: str | None = None,
    keep_archive: bool = False,
    progress: bool = True,
) -> Path:
    """The folder `<cache>/datasets/<name>` with the extracted data set; downloaded first if it is not there.

    `url` (else KWS_DATA_URL, else BASE_URL) is the address of the folder that holds the archive files. A downloaded
    archive is removed after its extraction unless `keep_archive`; one put there by hand is kept. Calls in several
    processes share one download. Raises KwsError: no connection, wrong checksum, damaged or unsafe archive, disk full.
    """
    folder = cache_folder.datasets_dir(cache) / archive.name
    if _is_filled(folder):
        return folder
    base = url or os.environ.get("KWS_DATA_URL") or BASE_URL
    if not base.startswith(("http://", "https://")):
        raise KwsError(f"url or KWS_DATA_URL: {base!r} is no http address; {BASE_URL} is one")
    by_hand = cache_folder.archives_dir(cache) / archive.file_name
    job = _Job(archive, f"{base.rstrip('/')}/{archive.file_name}", by_hand, progress)
    try:
        with _waiting_lock(folder), _waiting_lock(by_hand):
            if not _is_filled(folder):
                atomic.remove_leftovers(folder)
                job.fill(folder, keep_archive)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "make room and run this again (it goes on from there), or" if full else "make it writable, or"
        raise KwsError(
            f"data set {archive.name}: {error.filename or folder.parent.parent}: {error.strerror or error}; "
            f"{advice} set KWS_DATA to another folder"
        ) from error
    return folder


def _is_filled(folder: Path) -> bool:
    # Folders come by renaming, so one that is there is whole.
    return folder.is_dir() and any(folder.iterdir())


@contextmanager
def _waiting_lock(path: Path) -> Iterator[None]:
    lock = atomic.lock_for(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("waiting for another process that is fetching %s", path.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Damaged(Exception):
    """An archive whose bytes are not the published ones, or that isn't safe to extract."""


class _Dropped(Exception):
    """A connection that ended before the file did."""


@dataclass(frozen=True)
class _Job:
    """One archive on its way from a URL into a folder."""

    archive: Archive
    url: str
    by_hand: Path
    progress: bool

    @property
    def partial(self) -> Path:
        return self.by_hand.with_name(self.by_hand.name + cache_folder.PARTIAL_SUFFIX)

    def fill(self, folder: Path, keep_archive: bool) -> None:
        if self.by_hand.is_file():
            try:
                self._verify(self.by_hand)
                self._extract(self.by_hand, folder)
            except _Damaged as damage:
                raise KwsError(f"{self.by_hand}: {damage}; replace it by {self.url}, or remove it") from None
            return
        try:
            self._obtain()
            self._extract(self.partial, folder)
        except _Damaged as damage:
            self.partial.unlink()
            raise KwsError(
                f"{self.url}: {damage}; the file was removed: run this again, or {self._hint}, or name a mirror "
                "with KWS_DATA_URL"
            ) from None
        if keep_archive:
            self.partial.replace(self.by_hand)
        else:
            self.partial.unlink()

    @property
    def _hint(self) -> str:
        return f"get it by other means and put it at {self.by_hand}"

    def _obtain(self) -> None:
        """Make `partial` the whole, verified archive."""
        while True:
            resumed = self.partial.is_file()
            if not (resumed and self.partial.stat().st_size == self.archive.bytes):
                self._download()
            try:
                self._verify(self.partial)
                return
            except _Damaged:
                if not resumed:
                    raise
                # Two halves may be of different files (another mirror, a log-in page): once more from the start.
                self.partial.unlink()

    def _download(self) -> None:
        import requests  # here, because it is slow to import

        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_S)
            try:
                self._transfer()
                return
            except _Dropped as drop:
                reason = str(drop)
            except requests.RequestException as error:
                reason = _reason(error)
                if not attempt:  # offline from the start: nothing to wait for
                    break
        raise KwsError(f"can't download {self.url}: {reason}; run this again with a connection, or {self._hint}")

    def _transfer(self) -> None:
        """One request, from where `partial` ends; raises _Dropped if the connection ends before the file does."""
        import requests
        import urllib3

        have = self.partial.stat().st_size if self.partial.is_file() else 0
        # As the bytes lie on the server: some label a .tar.gz as a gzipped .tar, which would then come unzipped.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(self.url, headers=headers, stream=True, timeout=(_CONNECT_S, _READ_S)) as response:
            part = response.headers.get("Content-Range", "")
            if response.status_code == 416 and have and part == f"bytes */{have}":
                return  # nothing was missing
            resumes = response.status_code == 206 and part.startswith(f"bytes {have}-")
            if have and not resumes and response.status_code in (206, 416):
                self.partial.unlink()
                return self._transfer()
            if not resumes and response.status_code != 200:
                raise KwsError(
                    f"can't download {self.url}: the server answered {response.status_code} {response.reason}; "
                    f"check KWS_DATA_URL if you set it, or {self._hint}"
                )
            have = have if resumes else 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            with (
                self.partial.open("ab" if resumes else "wb") as file,
                self._bar("download", total, have) as bar,
            ):
                try:
                    for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
                        bar.update(file.write(chunk))
                except urllib3.exceptions.HTTPError as error:
                    raise _Dropped(f"the connection was lost ({_reason(error)})") from error
        size = self.partial.stat().st_size
        if total is not None and size != total:
            raise _Dropped(f"the server sent {size:,} of {total:,} bytes")

    def _verify(self, path: Path) -> None:
        """Raise _Damaged unless the file has the known checksum or, where none is known, the known size."""
        size = path.stat().st_size
        if self.archive.md5 is None:
            if self.archive.bytes not in (None, size):
                raise _Damaged(f"it has {size:,} bytes, not {self.archive.bytes:,}")
            return
        digest = hashlib.md5(usedforsecurity=False)
        with path.open("rb") as file, self._bar("verify", size) as bar:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                bar.update(len(chunk))
        if digest.hexdigest() != self.archive.md5:
            raise _Damaged(f"wrong checksum: its md5 is {digest.hexdigest()}, the published one {self.archive.md5}")

    def _extract(self, path: Path, folder: Path) -> None:
        with atomic.replace_dir(folder) as temporary, self._bar("extract", path.stat().st_size) as bar:
            extract(path, temporary, root=self.archive.root, bar=bar)

    def _bar(self, verb: str, total: int | None, initial: int = 0) -> "tqdm[NoReturn]":
        return tqdm(
            desc=f"{verb} {self.archive.name}",
            total=total,
            initial=initial,
            unit="B",
            unit_scale=True,
            disable=not self.progress,
        )


def _reason(error: Exception) -> str:
    """The last, telling part of requests' nested message ('…: Failed to …: [Errno 111] Connection refused')."""
    inner = error.args[0] if error.args else error
    return " ".join(str(getattr(inner, "reason", inner)).split()).rsplit(": ", 1)[-1]


def extract(path: Path, folder: Path, *, root: str, bar: "tqdm[NoReturn]") -> None:
    """Write what a .tar.gz or .zip holds below its folder `root` ('': all of it) into `folder`; `bar` counts its bytes.

    Stricter than tarfile's 'data' filter, which has had holes around links: nothing but plain files and folders, whose
    names stay inside; owners and modes are not taken over. What macOS adds for itself is left out. The format's own
    checksums are compared. Raises _Damaged with the reason; `folder` is then half filled, for the caller to remove.
    """
    below = PurePosixPath(root).parts
    members = _zip_members(path, bar) if zipfile.is_zipfile(path) else _tar_members(path, bar)
    try:
        for name, content in members:
            parts = _safe_parts(name)
            if parts[: len(below)] != below or any(_is_macos_litter(part) for part in parts):
                continue
            target = folder.joinpath(*parts[len(below) :])
            if content is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file, _CHUNK_BYTES)
    except _NOT_WHOLE as error:
        raise _Damaged(f"not a whole .tar.gz or .zip archive ({error or type(error).__name__})") from error
    except _CONTRADICTORY as error:
        raise _Damaged(f"it holds {error.filename!r} as a file and as a folder") from error
    if not any(folder.iterdir()):
        raise _Damaged(f"it holds nothing below {root!r}" if root else "it is empty")


# gzip.BadGzipFile and the contradictions are OSErrors, which otherwise mean the disk.
_NOT_WHOLE = (
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,
    UnicodeError,
)
_CONTRADICTORY = (FileExistsError, IsADirectoryError, NotADirectoryError)


def _tar_members(path: Path, bar: "tqdm[NoReturn]") -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and content of each member (None: a folder), in the archive's order, each to be read before the next."""
    position = 0
    with (
        path.open("rb") as packed,
        gzip.GzipFile(fileobj=packed) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|") as tar,
    ):
        for member in tar:
            if not (member.isdir() or member.isreg()):
                raise _Damaged(f"its member {member.name!r} is a link or a device, which a data set has no use for")
            yield member.name, tar.extractfile(member) if member.isreg() else None
            bar.update(packed.tell() - position)
            position = packed.tell()
        while unpacked.read(_CHUNK_BYTES):
            pass  # behind the last member; gzip compares its checksum at the very end


def _zip_members(path: Path, bar: "tqdm[NoReturn]") -> Iterator[tuple[str, IO[bytes] | None]]:
    """As `_tar_members`; zipfile compares each member's checksum when it has been read."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Damaged(f"its member {member.filename!r} is a link or a device, which a data set has no use for")
            if member.flag_bits & 1:
                raise _Damaged(f"its member {member.filename!r} is encrypted")
            if member.is_dir():
                yield member.filename, None
            else:
                with archive.open(member) as content:
                    yield member.filename, content
            bar.update(member.compress_size)


def _safe_parts(name: str) -> tuple[str, ...]:
    """The folders and the file of a member's name; _Damaged if it could lead out of the folder."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise _Damaged(f"its member {name!r} would be written outside the folder")
    return parts


def _is_macos_litter(part: str) -> bool:
    return part.startswith("._") or part in ("__MACOSX", ".DS_Store")
