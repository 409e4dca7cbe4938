"""From an error to one line and an exit status, for every process: `kws`, `train.py`, a sweep's jobs, `kws reproduce`.

It stands this low because `sweeps/` and `reproduce/`, which start processes of their own, may not import `cli/`.
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kws_data.errors import KwsError
from kws_experiments.console.output import say

_NO_HOME = "Could not determine home directory."  # of Path.home() and expanduser()
STATUS_FAILED = 1  # also: some files could not be read
STATUS_STOPPED = 130  # after Ctrl-C, as shells have it


def as_line(error: BaseException) -> str | None:
    """What went wrong, in one line; None for an error that nobody foresaw, whose traceback is worth seeing."""
    if isinstance(error, KwsError):
        return str(error)
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, HydraException | OmegaConfBaseException):  # some of these are OSErrors too
        from kws_experiments.config.overrides import hydra_message

        return hydra_message(error)
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r} has characters that this locale lacks; set PYTHONUTF8=1"
    if isinstance(error, RuntimeError) and str(error) == _NO_HOME:
        return "a path begins with '~', and there is no such home folder: set HOME, or write the path in full"
    if isinstance(error, OSError):
        line = f"{error.filename or 'system'}: {error.strerror or error}"
        return f"{line}; set KWS_DATA to a folder that can be written" if _is_of_cache(error) else line
    return None


def _is_of_cache(error: OSError) -> bool:
    """Whether the cache folder can't be made or used."""
    if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
        return False
    from kws_data.storage.cache import cache_dir

    path, cache = Path(str(error.filename)), cache_dir()
    return path.is_relative_to(cache) or cache.is_relative_to(path)


@contextmanager
def one_line_errors(
    *, failed: int = STATUS_FAILED, stopped: str = "stopped", log: logging.Logger | None = None
) -> Iterator[None]:
    """End the process on an error inside: one line, and an exit status.

    Args:
        failed: the status after an error.
        stopped: what to say after Ctrl-C, whose status is 130.
        log: takes the line; None prints it to standard error.

    Raises:
        SystemExit: after an error that `as_line` knows; others pass.
    """
    try:
        yield
    except KeyboardInterrupt:
        if log is None:
            say(stopped, error=True)
        else:
            log.warning("%s", stopped)
        sys.exit(STATUS_STOPPED)
    except Exception as error:
        line = as_line(error)
        if line is None:
            raise
        if log is None:
            say(f"error: {line}", error=True)
        else:
            log.error("%s", line)
        sys.exit(failed)
