"""A published archive from its server into the cache folder: downloaded once, verified and extracted.

A download goes to `archives/FILE.partial` and is resumed from there after an interruption. The extracted folder appears
as `datasets/NAME` in one step. An archive that a user puts at `archives/FILE` is used instead, and kept.
"""

import errno
import hashlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import AcquireReturnProxy, Timeout
from tqdm import tqdm

from kws_data.errors import KwsError
from kws_data.sources.archives import BASE_URL, Archive
from kws_data.sources.extract import Damaged, extract
from kws_data.storage import atomic
from kws_data.storage.cache import PARTIAL_SUFFIX, archives_dir, datasets_dir

_TIMEOUTS_S = 10, 30  # to connect, to read
_TRIES = 5  # requests in one call; each continues where the last connection was lost
_PAUSE_S = 1.0  # between a lost connection and the next try

log = logging.getLogger(__name__)


def fetch(
    archive: Archive,
    *,
    cache: Path | None = None,
    url: str | None = None,
    progress: bool = True,
) -> Path:
    """The folder `<cache>/datasets/<name>` with the extracted data set; downloaded first if it does not exist.

    `url` (else KWS_DATA_URL, else BASE_URL) is the address of the folder of the archive files. A downloaded archive is
    removed after extraction; one put there by hand is kept. Calls in several processes share one download.

    Raises:
        KwsError: no connection, wrong checksum, damaged or unsafe archive, disk full.
    """
    folder = datasets_dir(cache) / archive.name
    if any(folder.glob("*")):  # folders appear by renaming, so this one is whole
        return folder
    base = url or os.environ.get("KWS_DATA_URL") or BASE_URL
    if not base.startswith(("http://", "https://")):
        raise KwsError(f"url or KWS_DATA_URL: {base!r} is not an http address such as {BASE_URL}")
    by_hand = archives_dir(cache) / archive.file_name
    job = _Job(archive, f"{base.rstrip('/')}/{archive.file_name}", by_hand, progress)
    try:
        with _acquired(folder), _acquired(by_hand):
            if not any(folder.glob("*")):
                atomic.remove_leftovers(folder.parent)  # before the download, which needs the room
                job.fill(folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "make room and run this again (it continues from there), or" if full else "make it writable, or"
        raise KwsError(
            f"data set {archive.name}: {error.filename or folder.parent.parent}: {error.strerror or error}; "
            f"{advice} set KWS_DATA to another folder"
        ) from error
    return folder


def _acquired(path: Path) -> AcquireReturnProxy:
    lock = atomic.lock_for(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log.warning("waiting for another process that is fetching %s", path.name)
        return lock.acquire()


@dataclass(frozen=True)
class _Job:
    """The download and extraction of one archive."""

    archive: Archive
    url: str
    by_hand: Path
    progress: bool

    @property
    def partial(self) -> Path:
        return self.by_hand.with_name(self.by_hand.name + PARTIAL_SUFFIX)

    @property
    def hint(self) -> str:
        return f"get it by other means and put it at {self.by_hand}"

    def fill(self, folder: Path) -> None:
        if self.by_hand.is_file():
            try:
                self.verify(self.by_hand)
                self.unpack(self.by_hand, folder)
            except Damaged as damage:
                raise KwsError(f"{self.by_hand}: {damage}; replace it by {self.url}, or remove it") from None
            return
        try:
            self.obtain()
            self.unpack(self.partial, folder)
        except Damaged as damage:
            self.partial.unlink()
            raise KwsError(
                f"{self.url}: {damage}; the file was removed: run this again, or {self.hint}, or name a mirror "
                "with KWS_DATA_URL"
            ) from None
        self.partial.unlink()

    def obtain(self) -> None:
        """Make `partial` the whole, verified archive."""
        resumed = self.partial.is_file()
        if not (resumed and self.partial.stat().st_size == self.archive.bytes):
            self.download()
        try:
            self.verify(self.partial)
        except Damaged:
            if not resumed:
                raise
            # The parts may be of different files (another mirror, a log-in page), so start again.
            self.partial.unlink()
            self.obtain()

    def download(self) -> None:
        import requests  # here, because it is slow to import
        import urllib3

        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_S)
            try:
                return self.transfer()
            except urllib3.exceptions.HTTPError as error:
                reason = f"the connection was lost ({_reason(error)})"
            except requests.RequestException as error:
                reason = _reason(error)
                if not attempt:  # offline from the start: waiting doesn't help
                    break
        raise KwsError(f"can't download {self.url}: {reason}; run this again with a connection, or {self.hint}")

    def transfer(self) -> None:
        """One request, from where `partial` ends; an HTTPError of urllib3 if the connection ends before the file."""
        import requests

        have = self.partial.stat().st_size if self.partial.is_file() else 0
        # The bytes as stored: some servers label a .tar.gz as a gzipped .tar, and it would arrive unzipped.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(self.url, headers=headers, stream=True, timeout=_TIMEOUTS_S) as response:
            part = response.headers.get("Content-Range", "")
            if response.status_code == 416 and part == f"bytes */{have}":
                return  # nothing was missing
            resumes = response.status_code == 206 and part.startswith(f"bytes {have}-")
            if have and not resumes and response.status_code in (206, 416):
                self.partial.unlink()
                return self.transfer()
            if not resumes and response.status_code != 200:
                raise KwsError(
                    f"can't download {self.url}: the server answered {response.status_code} {response.reason}; "
                    f"check KWS_DATA_URL if you set it, or {self.hint}"
                )
            mode, start = ("ab", have) if resumes else ("wb", 0)
            length = response.headers.get("Content-Length")  # which urllib3 checks
            total = start + int(length) if length else None
            with self.partial.open(mode) as file, self.bar("download", total, start) as bar:
                for chunk in response.raw.stream(decode_content=False):
                    bar.update(file.write(chunk))

    def verify(self, path: Path) -> None:
        """Raise Damaged unless the file has the known checksum or, where none is known, the known size."""
        size = path.stat().st_size
        if self.archive.md5 is None:
            if self.archive.bytes not in (None, size):
                raise Damaged(f"it has {size:,} bytes, not {self.archive.bytes:,}")
            return
        digest = hashlib.md5(usedforsecurity=False)
        with path.open("rb") as file, self.bar("verify", size) as bar:
            while chunk := file.read(1 << 16):
                digest.update(chunk)
                bar.update(len(chunk))
        if digest.hexdigest() != self.archive.md5:
            raise Damaged(f"wrong checksum: its md5 is {digest.hexdigest()}, the published one {self.archive.md5}")

    def unpack(self, path: Path, folder: Path) -> None:
        with atomic.replace_dir(folder) as temporary, self.bar("extract", path.stat().st_size) as bar:
            extract(path, temporary, root=self.archive.root, advance=bar.update)

    def bar(self, verb: str, total: int | None, initial: int = 0) -> tqdm:
        name = f"{verb} {self.archive.name}"
        return tqdm(desc=name, total=total, initial=initial, unit="B", unit_scale=True, disable=not self.progress)


def _reason(error: Exception) -> str:
    """The last, most specific part of requests' nested message ('…: Failed to …: [Errno 111] Connection refused')."""
    inner = error.args[0] if error.args else error
    return " ".join(str(getattr(inner, "reason", inner)).split()).rsplit(": ", 1)[-1]
