"""Safe extraction of .tar.gz and .zip archives from untrusted sources."""

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from tqdm.utils import CallbackIOWrapper

from kws_data.folders import is_litter

_Member = tuple[str, IO[bytes] | None]  # name and content (None: a folder), to be read before the next member


class Damaged(Exception):
    """An archive whose bytes are not the published ones, or that isn't safe to extract."""


# gzip.BadGzipFile and the contradictions are OSErrors; all other OSErrors are about the disk.
_NOT_WHOLE = (
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    tarfile.TarError,
    zipfile.BadZipFile,
    RuntimeError,  # zipfile: encrypted, or (NotImplementedError) packed in a way that it doesn't know
    UnicodeError,
)
_CONTRADICTORY = (FileExistsError, IsADirectoryError, NotADirectoryError)


def extract(path: Path, folder: Path, *, root: str, advance: Callable[[int], object]) -> None:
    """Extract the part of a .tar.gz or .zip below its folder `root` ('': all of it) into `folder`.

    Stricter than tarfile's 'data' filter, which has had holes around links: only plain files and folders, whose names
    stay inside; owners and modes are ignored. Backslashes, which some programs for Windows write, separate folders as
    slashes do. Hidden files, and what systems leave behind, are left out. The format's checksums are checked.

    Args:
        path: the archive.
        folder: an existing folder.
        root: a folder inside the archive.
        advance: called with the number of the archive's bytes read since the last call.

    Raises:
        Damaged: with the reason; `folder` is then partly filled, for the caller to remove.
    """
    below = PurePosixPath(root).parts
    members = _zip_members(path, advance) if zipfile.is_zipfile(path) else _tar_members(path, advance)
    try:
        for name, content in members:
            parts = _safe_parts(name)
            if parts[: len(below)] == below and not any(is_litter(part) for part in parts):
                _write(content, folder.joinpath(*parts[len(below) :]))
    except _NOT_WHOLE as error:
        raise Damaged(f"not a whole .tar.gz or .zip archive ({error or type(error).__name__})") from error
    except _CONTRADICTORY as error:
        raise Damaged(f"it holds {error.filename!r} as a file and as a folder") from error
    if not any(folder.iterdir()):
        raise Damaged(f"it holds nothing below {root!r}" if root else "it is empty")


def _write(content: IO[bytes] | None, target: Path) -> None:
    if content is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file)


def _tar_members(path: Path, advance: Callable[[int], object]) -> Iterator[_Member]:
    """The members in the archive's order."""
    with (
        path.open("rb") as packed,
        # Not tarfile's own mode 'r|gz', which doesn't check gzip's checksum.
        gzip.GzipFile(fileobj=CallbackIOWrapper(advance, packed, "read")) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|") as tar,
    ):
        for member in tar:
            if not (member.isdir() or member.isreg()):
                raise Damaged(f"its member {member.name!r} is a link or a device, which a data set has no use for")
            yield member.name, tar.extractfile(member)
        while unpacked.read(1 << 16):
            pass  # read to the very end, where gzip checks its checksum


def _zip_members(path: Path, advance: Callable[[int], object]) -> Iterator[_Member]:
    """As `_tar_members`; zipfile checks the checksum of each member once it is read."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise Damaged(f"its member {member.filename!r} is a link or a device, which a data set has no use for")
            if member.filename.endswith(("/", "\\")):
                yield member.filename, None
            else:
                with archive.open(member) as content:
                    yield member.filename, content
            advance(member.compress_size)


def _safe_parts(name: str) -> tuple[str, ...]:
    """The folders and the file of a member's name; Damaged if it could lead out of the folder."""
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts or "\0" in name:
        raise Damaged(f"its member {name!r} would be written outside the folder")
    return path.parts
