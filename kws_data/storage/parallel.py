"""Spread per-file work over processes, with a progress bar; small jobs stay in this process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOOK_S = 0.5  # how often a worker looks for its parent

_CLEANED_UP = "ignore:resource_tracker:UserWarning"
SMALL_JOB = 4_000  # files; for fewer, starting workers takes longer than reading one-second clips


def available_cpus() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def import_path() -> str:
    """The folders that this process imports from, as PYTHONPATH of a child that is started with `-P`."""
    return os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)


def keep_current_folder_out() -> None:
    """Let no Python process that this one starts import what lies in the current folder, be it a `random.py`."""
    os.environ["PYTHONSAFEPATH"] = "1"  # of joblib's workers and other packages' processes too, which know no -P


def signal_name(number: int) -> str:
    """'SIGKILL', …; of a signal without a name, such as a real-time signal, its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def map_chunks(
    function: Callable[[Sequence[Item]], Result], items: Sequence[Item], description: str, chunk: int = 512
) -> Iterator[Result]:
    """Yield `function(items[i : i + chunk])` in order.

    The workers are joblib's, which don't inherit TensorFlow's threads. They end with this process, even a killed one.
    """
    from joblib import Parallel, delayed

    chunks = [items[start : start + chunk] for start in range(0, len(items), chunk)]
    workers = 1 if len(items) < SMALL_JOB else available_cpus()
    parallel = Parallel(n_jobs=workers, return_as="generator", initializer=end_with, initargs=(os.getpid(),))
    if workers > 1:
        _clean_up_quietly()
        mask = block_interrupts()
    try:
        jobs = parallel(delayed(function)(part) for part in chunks)
    finally:
        if workers > 1:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    with tqdm(total=len(items), desc=description, unit="clip", disable=not show_progress(len(items))) as bar:
        for part, result in zip(chunks, jobs, strict=True):
            yield result
            bar.update(len(part))


def _clean_up_quietly() -> None:
    """Silence joblib's resource tracker: after this process was stopped, it would list what it removes."""
    filters = os.environ.get("PYTHONWARNINGS", "")
    if _CLEANED_UP not in filters:  # the last one counts
        os.environ["PYTHONWARNINGS"] = f"{filters},{_CLEANED_UP}".lstrip(",")


def block_interrupts() -> set[int]:
    """Block Ctrl-C in this thread: processes started from it inherit that, and Ctrl-C is for this one; the old mask."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # first: in Python 3.11 its start ends with SIGINT unblocked
    return signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


def end_with(parent: int, busy: AbstractContextManager[Any] | None = None) -> None:
    """End this process soon after its parent, which may have been killed; but not while `busy` is held."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        with busy or nullcontext():
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def show_progress(num_items: int) -> bool:
    """Whether to draw a bar: on a terminal, and only if there is something to wait for."""
    return sys.stderr.isatty() and num_items >= 200
