"""Ctrl-C without a traceback, from a process's first imports to its last exit function.

A KeyboardInterrupt that is raised within an import may come out as an ImportError or a SystemError of some extension
module, or not at all. So Ctrl-C ends the process at once there. Elsewhere it is a KeyboardInterrupt, for whoever has
something to save. Imports next to nothing, so that it comes before all other imports.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

STATUS_STOPPED = 130  # as shells have it

standard_error = 2  # the descriptor, also while it is held back

_interrupted = False
_ends_by_error = False
_ends_stopped = False


def interrupted() -> bool:
    """Whether this process has been interrupted: an error that nobody foresaw is then likely due to it."""
    return _interrupted


def end(*_: Any) -> NoReturn:
    """End this process at once; a signal handler."""
    with suppress(Exception):
        sys.stdout.flush()
    with suppress(OSError):
        os.write(standard_error, b"stopped\n")
    os._exit(STATUS_STOPPED)


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt, or end the process if an import is under way; a signal handler."""
    global _interrupted
    del number
    _interrupted = True
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            end()
        frame = frame.f_back
    raise KeyboardInterrupt


@contextmanager
def on_interrupt(handler: Callable[..., Any]) -> Iterator[None]:
    """Let `handler` take Ctrl-C, in a process that doesn't ignore it (one in the background of a script does)."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    sys.unraisablehook = _unraisable
    signal.signal(signal.SIGINT, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def ends_by_error() -> None:
    """Note that this process ends, and has said why: destructors of half-written files add nothing to that."""
    global _ends_by_error
    _ends_by_error = True


def ends_stopped() -> None:
    """Note that this process ends with STATUS_STOPPED: see `_leave`."""
    global _ends_stopped
    _ends_stopped = True


def _leave() -> None:
    """End an interrupted process after its exit functions, without the destructors of libraries.

    TensorFlow's threads may be at work at any moment, and C++ aborts a process that destroys a running thread.
    """
    if _ends_stopped:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(STATUS_STOPPED)


atexit.register(_leave)  # before all others, so that it runs after them


def has_said_why() -> bool:
    """Whether this process ends, and has said why."""
    return _ends_by_error


def _unraisable(unraisable: Any) -> None:
    """End after a KeyboardInterrupt in a destructor or an exit function, which Python would only print."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        end()
    if not _ends_by_error:
        sys.__unraisablehook__(unraisable)
