"""From an error to one line and an exit status, for every process: `kws`, `train.py`, a sweep's jobs, `kws reproduce`.

It stands this low because `sweeps/` and `reproduce/`, which start processes of their own, may not import `cli/`.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kws_data.errors import KwsError
from kws_experiments.config import interrupts
from kws_experiments.config.interrupts import STATUS_STOPPED
from kws_experiments.console.output import say

_NO_HOME = "Could not determine home directory."  # of Path.home() and expanduser()
STATUS_FAILED = 1  # also: some files could not be read

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAKE_ROOM = "make room, then give the same command again"
_NEVER = logging.CRITICAL + 1


def as_line(error: BaseException) -> str | None:
    """What went wrong, in one line; None for an error that nobody foresaw, whose traceback is worth seeing."""
    if isinstance(error, KwsError):
        return str(error)
    if no_room := _no_room(error):
        return no_room
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


def _no_room(error: BaseException | None) -> str | None:
    """The line for a full disk, also where a library has made an error of its own of that; None for other errors."""
    while error is not None:
        text = " ".join(re.sub(r"\{\{.*?\}\}", "", str(error)).split())  # TensorFlow's {{function_node …}}
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            file = error.filename or _open_file(error) or "standard output"
            return f"{file}: {os.strerror(error.errno)}; {_MAKE_ROOM}"
        if "disk is full" in text or any(os.strerror(number) in text for number in _NO_ROOM):
            return f"{text[:300]}; {_MAKE_ROOM}"
        error = error.__cause__ or error.__context__
    return None


def _open_file(error: OSError) -> str | None:
    """The file that the code which raised an error was writing, where the error doesn't name it; None if unknown."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        for value in list(traceback.tb_frame.f_locals.values()):
            name = getattr(value, "name", None) if isinstance(value, io.IOBase) else None
            found = name if isinstance(name, str) else found
        traceback = traceback.tb_next
    return found


def _log_lost(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Say once that a log can't be written, where `logging` would print a traceback for each line."""
    del record
    error = sys.exc_info()[1]
    if handler.level < _NEVER:
        handler.setLevel(_NEVER)
        where = getattr(handler, "baseFilename", "standard error")
        with suppress(OSError):
            say(f"{where}: nothing more is logged there: {getattr(error, 'strerror', None) or error}", error=True)


def _flush() -> None:
    """Write what was printed: Python itself would ignore an error of that, with a traceback."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it would fail again at exit
        if not isinstance(error, BrokenPipeError):  # the reader (head, say) has seen enough
            raise


def _is_of_cache(error: OSError) -> bool:
    """Whether the cache folder can't be made or used."""
    if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
        return False
    from kws_data.storage.cache import cache_dir

    try:
        path, cache = Path(str(error.filename)), cache_dir()
    except KwsError:
        return False
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
    logging.Handler.handleError = _log_lost  # type: ignore[method-assign,assignment]
    with interrupts.on_interrupt(interrupts.interrupt):
        try:
            try:
                yield
            finally:
                _flush()
        except BrokenPipeError:
            _flush()
        except (KeyboardInterrupt, Exception) as error:
            if _by_interrupt(error):
                _say(log, logging.WARNING, stopped)
                interrupts.ends_stopped()
                sys.exit(STATUS_STOPPED)
            line = as_line(error)
            if line is None:
                raise
            _say(log, logging.ERROR, line)
            sys.exit(failed)
        except SystemExit as ended:
            if ended.code == STATUS_STOPPED:
                if not interrupts.has_said_why():  # Typer's, after Ctrl-C
                    _say(log, logging.WARNING, stopped)
                interrupts.ends_stopped()
            raise


def _by_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C is behind an error, as it is behind what an interrupted library raises."""
    if isinstance(error, KeyboardInterrupt):
        return True
    return interrupts.interrupted() and not isinstance(error, KwsError) and _no_room(error) is None


def _say(log: logging.Logger | None, level: int, line: str) -> None:
    interrupts.ends_by_error()
    if log is not None:
        log.log(level, "%s", line)
    else:
        say(f"error: {line}" if level == logging.ERROR else line, error=True)
