"""Files and folders that appear whole or not at all, and the locks that keep two writers of one path apart.

A writer fills a temporary sibling (the same file system, so that the rename is one step) and renames it into place
when it is complete and on the disk. A killed writer leaves at most a hidden `.NAME.<16 hex digits>.tmp` beside NAME.
While it lives it holds a lock on that (`flock`), which the system releases when it dies: so whoever writes into the
folder next can tell leftovers, which it removes, from what another process is writing.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.tmp(?P<suffix>\..*)?", re.DOTALL)
_LOCK = re.compile(r"\.(?P<name>.+)\.lock", re.DOTALL)
_SYNC_ONE_BY_ONE = 256  # files; above that, one sync of the whole system is the cheaper way


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; on leaving, it becomes `path`, and on an error it is removed.

    The temporary name ends in the suffix of `path`, for the writers that choose a format by it. Readers see the old
    file or the new one, never a part. A link is followed, and an older file's permissions stay. The parent folders are
    made. Raises what the body raises, and OSError, which names `path`.
    """
    suffix, path = path.suffix, Path(os.path.realpath(path)) if path.is_symlink() else path
    with _temporary_sibling(path, suffix, make=Path.touch) as temporary:
        os.utime(temporary, (0, 0))  # so old that writing to it shows
        yield temporary
        if not temporary.stat().st_mtime_ns:
            raise FileNotFoundError(errno.ENOENT, "nothing was written", str(path))
        if path.exists():
            shutil.copymode(path, temporary)
        _sync(temporary)
        temporary.replace(path)
    _sync(path.parent)


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write several files: all are written to temporary files before any is renamed; the first of `contents` is last.

    Raises OSError; then no file has changed, unless the renaming failed.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(replace_file(path)).write_bytes(content)


@contextmanager
def replace_dir(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path` to fill; on leaving, it becomes `path`, on an error it is removed.

    An older folder at `path` is replaced. No system call swaps two folders portably, so for an instant there is none:
    readers that may meet a replacement take the lock of `path`. Raises what the body raises, and OSError, which names
    `path`.
    """
    with scratch_dir(path) as temporary:
        yield temporary
        _sync_tree(temporary)
        _move_over(temporary, path)
    _sync(path.parent)


def scratch_dir(path: Path) -> AbstractContextManager[Path]:
    """An empty temporary folder beside `path` for as long as the context lasts. Raises as `replace_dir`."""
    return _temporary_sibling(path, make=Path.mkdir)


def lock_for(path: Path, timeout_s: float = -1) -> FileLock:
    """The lock between processes for writers of `path`: the hidden file `.NAME.lock` beside it.

    `timeout_s`: -1 waits for ever, 0 tries once; `filelock.Timeout` is raised when it runs out. The operating
    system releases the lock of a process that dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(_lock_file(path), timeout=timeout_s)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of `path`; makes no file, so that readers of a read-only folder can ask."""
    try:
        descriptor = os.open(_lock_file(path), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
    return False


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in `folder`; what a living process writes stays, and what can't be removed."""
    for path in list(folder.iterdir()):
        if _LEFTOVER.fullmatch(path.name):
            with suppress(OSError), _only_user(path):
                remove(path)


def remove_leftovers_below(folder: Path) -> None:
    """Remove what killed writers left in `folder` and all folders in it."""
    for parent in {path.parent for path in folder.rglob(".*.tmp*")}:
        with suppress(FileNotFoundError):  # it was a leftover itself
            remove_leftovers(parent)


def written_for(name: str) -> str:
    """The target's name of a temporary name (`.store.0123456789abcdef.tmp` → `store`); other names unchanged."""
    match = _LEFTOVER.fullmatch(name)
    return match["name"] if match else name


def is_lock(name: str) -> bool:
    """Whether a file name is that of a lock."""
    return _LOCK.fullmatch(name) is not None


def remove(path: Path) -> None:
    """Remove a file, a folder with its contents, or a link (but not its target). A missing path is no error."""
    while path.is_dir() and not path.is_symlink():
        with suppress(FileNotFoundError):  # another process removes it too
            shutil.rmtree(path)
    path.unlink(missing_ok=True)


@contextmanager
def _temporary_sibling(path: Path, suffix: str = "", *, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make a temporary file or folder beside `path` and hold its lock; what is left of it on leaving is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    temporary = _temporary_name(path, suffix)
    descriptor = None
    try:
        while descriptor is None:
            make(temporary)
            descriptor = _locked(temporary)
        yield temporary
    except OSError as error:
        if error.errno is not None:  # the user knows nothing of a temporary name; a full disk's error has no name
            error.filename = str(error.filename or path).replace(str(temporary), str(path))
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
        with suppress(OSError):
            remove(temporary)


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _temporary_name(path: Path, suffix: str = "") -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp{suffix}")


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock of what was just made; None if that was removed as a leftover before."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if path.exists():
        return descriptor
    os.close(descriptor)
    return None


@contextmanager
def _only_user(path: Path) -> Iterator[None]:
    """Hold the lock of a temporary file, folder or link; OSError if the process that writes it is alive."""
    if path.is_symlink():
        yield
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), path.stat()):  # its writer has made it again meanwhile
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        yield
    finally:
        os.close(descriptor)


def _move_over(source: Path, target: Path) -> None:
    """Rename the folder `source` to `target`; an older `target` is moved aside first, and back if that fails."""
    old = _temporary_name(target)
    while True:
        try:
            source.replace(target)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                if os.path.lexists(old) and not os.path.lexists(target):
                    old.replace(target)
                raise
        remove(old)  # of the last round: another writer's folder has taken the free name
        with suppress(FileNotFoundError):
            target.replace(old)
    remove(old)


def _sync(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    files = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    if len(files) > _SYNC_ONE_BY_ONE:
        os.sync()
        return
    for file in files:
        if not file.is_symlink():
            _sync(file)
