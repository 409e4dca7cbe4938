"""What happens around a sweep's jobs: Hydra calls it, in the sweep's process and in those of its launcher's workers."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from filelock import BaseFileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from kws_data.errors import KwsError
from kws_data.storage.parallel import block_interrupts, end_with
from kws_experiments.config.command import TRAIN
from kws_experiments.config.exit import STATUS_FAILED, STATUS_STOPPED, as_line
from kws_experiments.config.interrupts import interrupt
from kws_experiments.console.output import say, set_up
from kws_experiments.runs.folder import discard
from kws_experiments.runs.sweep_record import DONE, FAILED, RUNNING, STOPPED, SweepFolder, read_sweep, sweep_folder
from kws_experiments.sweeps import optuna_sweeper, ray_launcher  # noqa: F401  register themselves with Hydra
from kws_experiments.sweeps.run_job import run_job
from kws_experiments.sweeps.search_space import by_key

log = logging.getLogger("sweep")

_SAVING_S = 60  # how long workers' jobs may take to save their state after Ctrl-C
_ONE_BY_ONE = "basic"  # Hydra's own launcher, which runs jobs one after the other in this process
_CHILDREN = "joblib"  # the launcher whose workers are this process's children


class SweepCallback(Callback):
    """Keeps a sweep's record. Hydra copies it to the workers' processes, where it says which sweep they work for.

    Attributes:
        current: the one of this process; None in a single run.
        busy: held while this process sees to a job.
        sweep: the record; None before the sweep has begun.
        process: the sweep's own.
    """

    current: ClassVar[SweepCallback | None] = None
    busy: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self.sweep: SweepFolder | None = None
        self.process = os.getpid()
        self.launcher = _ONE_BY_ONE
        self._lock: BaseFileLock | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None}  # a worker doesn't hold it

    @property
    def in_worker(self) -> bool:
        """Whether this process is a launcher's worker, not the sweep's own."""
        return os.getpid() != self.process

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Begin the record; a sweep that runs already, or can't be continued, ends here with one line."""
        del kwargs
        try:
            self._begin(config)
        except Exception as error:  # which Hydra would log, and go on
            self.release()
            say(f"error: {as_line(error) or repr(error)}", error=True)
            sys.exit(STATUS_FAILED)
        SweepCallback.current = self

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember which sweep this process works for."""
        del config, kwargs
        if self.sweep is None:
            return
        if self.in_worker:
            set_up()
            # a Ctrl-C is the sweep's business, which stops its workers' jobs
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if self.launcher == _CHILDREN and SweepCallback.current is None:
                end_with(self.process, SweepCallback.busy)
        SweepCallback.current = self

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the results; a failed job makes the exit status 1."""
        del config, kwargs
        sys.exit(self.end())

    def release(self) -> None:
        """Let go of the sweep's record; of one in which no job has begun nothing stays."""
        if self.sweep is not None and self._lock is not None and self._lock.is_locked:
            if not any(self.sweep.jobs.glob("*.json")):
                hydras = self.sweep.path.parents[1] / "multirun.yaml"  # each sweep of the name replaces it
                discard(self.sweep.path, hydras, *self.sweep.path.glob("*"))
            self._lock.release()

    def _begin(self, config: DictConfig) -> None:
        overrides = list(config.hydra.overrides.task)
        self.sweep = sweep_folder(config)
        self._hold(self.sweep)
        self.launcher, sweeper = (_kind(config, part) for part in ("launcher", "sweeper"))
        swept, planned = _plan(config, overrides)
        if sweeper == "optuna":
            from kws_experiments.sweeps.optuna_study import Search

            Search.of(config.hydra.sweeper, self.sweep.path)  # refused before there is a record
        self.sweep.begin(
            command=shlex.join([*TRAIN, *sys.argv[1:]]), overrides=overrides, swept=swept, planned=planned,
            launcher=self.launcher, sweeper=sweeper,
        )  # fmt: skip
        handler = interrupt if self.launcher == _ONE_BY_ONE else self._stop_workers
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handler)
        if self.launcher == _CHILDREN:
            threading.Thread(target=_receive_interrupts, daemon=True).start()
            block_interrupts()

    def _hold(self, sweep: SweepFolder) -> None:
        lock = sweep.lock()
        try:
            lock.acquire()
        except Timeout as error:
            raise KwsError(f"'{sweep.path}': another process runs this very sweep") from error
        self._lock = lock

    def _stop_workers(self, number: int, frame: Any) -> None:
        """Let the jobs in other processes save their state before the launcher ends those; a second Ctrl-C does so."""
        assert self.sweep is not None
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, interrupt)
        say("stopping: the jobs save their state (Ctrl-C again: at once)", error=True)
        self.sweep.stop.touch()
        deadline = time.monotonic() + _SAVING_S
        while time.monotonic() < deadline and any(job.status == RUNNING for job in self.sweep.read_jobs()):
            time.sleep(0.2)
        interrupt(number, frame)

    def end(self, *, stopped: bool = False) -> int:
        """Complete the record, print the table, and return the exit status."""
        from kws_experiments.reports import sweep_summary

        assert self.sweep is not None
        jobs = self.sweep.read_jobs()
        failed = any(job.status == FAILED for job in jobs)
        stopped = stopped or any(job.status in (STOPPED, RUNNING) for job in jobs)
        if jobs:
            self.sweep.end(STOPPED if stopped else FAILED if failed else DONE)
        self.release()
        if jobs:
            sweep_summary.show(read_sweep(self.sweep.path))
        return STATUS_STOPPED if stopped else STATUS_FAILED if failed else 0


def train_job(cfg: DictConfig) -> float | None:
    """Train the job that Hydra has composed in this process; see `run_job`."""
    callback = SweepCallback.current
    assert callback is not None, "hydra.callbacks.sweep of conf/train.yaml is missing"
    assert callback.sweep is not None
    hydra: Any = HydraConfig.get()
    trial = OmegaConf.select(hydra, "sweeper.trial")
    number = int(hydra.job.num if trial is None else trial)
    try:
        with SweepCallback.busy:
            return run_job(cfg, callback.sweep, number, worker=callback.in_worker)
    except Exception as error:  # how the job ended can't be recorded; Hydra would print a line of its own first
        if (line := as_line(error)) is None:
            raise
        sys.exit(f"error: {line}")


@contextmanager
def end_of_sweep() -> Iterator[None]:
    """Complete the record of a sweep that Ctrl-C or an error of its launcher or sweeper ends, and exit.

    Raises:
        SystemExit: in the process of a sweep. In a single run, errors pass.
    """
    try:
        yield
    except KeyboardInterrupt:
        if SweepCallback.current is None:
            raise
        sys.exit(SweepCallback.current.end(stopped=True))
    except Exception as error:
        callback = SweepCallback.current
        if callback is None or callback.in_worker or as_line(error) is not None:
            raise
        sys.exit(_broken(callback, error))
    finally:
        if SweepCallback.current is not None:
            SweepCallback.current.release()


def _broken(callback: SweepCallback, error: Exception) -> int:
    """Print an error of the launcher or the sweeper, and how far the sweep came; the exit status."""
    assert callback.sweep is not None
    log.debug("", exc_info=error)  # seen with hydra.verbose=true
    callback.end(stopped=True)
    say(f"error: {type(error).__name__}: {' '.join(str(error).split())}", error=True)
    return STATUS_FAILED


def _receive_interrupts() -> None:
    """Be the thread that gets Ctrl-C in place of the main one, where Python's handler runs as ever."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Event().wait()


def _kind(config: DictConfig, part: str) -> str:
    """The chosen launcher or sweeper, such as 'joblib'."""
    return str(config.hydra.runtime.choices[f"hydra/{part}"])


def _plan(config: DictConfig, overrides: list[str]) -> tuple[list[str], int]:
    """The keys that differ from job to job, and how many jobs there are."""
    chosen = by_key(OmegaConf.select(config, "hydra.sweeper.params"), overrides)
    swept = {key: one for key, one in chosen.items() if one.is_sweep_override()}
    trials = OmegaConf.select(config, "hydra.sweeper.n_trials")
    if trials is not None:
        return list(swept), int(trials)
    jobs = 1
    for override in swept.values():
        jobs *= sum(1 for _ in override.sweep_string_iterator()) if override.is_discrete_sweep() else 1
    return list(swept), jobs
