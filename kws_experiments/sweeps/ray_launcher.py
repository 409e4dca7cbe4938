"""Hydra's launcher for `hydra/launcher=ray`: a sweep's jobs are tasks of Ray, on this machine or those of a cluster.

Needs the extra `ray`, which is imported only where it is used.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import chdir, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import Timeout
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from kws_data.checks import check_number, check_whole, require
from kws_data.errors import KwsError
from kws_data.storage.atomic import lock_for
from kws_data.storage.parallel import available_cpus, import_path
from kws_experiments.runs.sweep_record import FAILED, Job, SweepFolder, sweep_folder
from kws_experiments.sweeps.gpus import VISIBLE
from kws_experiments.sweeps.run_job import log_end, record_end

log = logging.getLogger("sweep")

_KEY = "hydra.launcher"
_POLL_S = 0.2
_CONNECT_S = 10
_SAVING_S = 60  # how long the training of a worker that died may take to save its state
_STORE_BYTES = 100_000_000  # of shared memory: next to nothing goes through it
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what Ray itself prints of workers that died
}


class RayLauncher(Launcher):
    """Runs a sweep's jobs by Ray; `conf/hydra/launcher/ray.yaml` describes each setting."""

    def __init__(self, address: Any, cpus_per_task: Any, gpus_per_task: Any, max_retries: Any) -> None:
        self._address = address
        self._cpus = cpus_per_task
        self._gpus = gpus_per_task
        self._max_retries = max_retries
        self._path = import_path().split(os.pathsep)  # Ray, once imported, adds to it

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check the settings, before a job is begun.

        Raises:
            KwsError: naming the key, or the extra that is missing.
        """
        if importlib.util.find_spec("ray") is None:
            raise KwsError("hydra/launcher=ray needs the extra 'ray': pip install -e '.[ray]'")
        try:
            fits = self._address is None or re.fullmatch(r"[^\s/]+:\d{1,5}", str(self._address))
            require(bool(fits), f"{_KEY}.address", "host:port of a Ray cluster, without ray://, or null", self._address)
            check_whole(f"{_KEY}.cpus_per_task", self._cpus, 1)
            check_number(f"{_KEY}.gpus_per_task", self._gpus, 0)
            whole = self._gpus <= 1 or self._gpus == int(self._gpus)
            require(whole, f"{_KEY}.gpus_per_task", "a part of one, or a whole number", self._gpus)
            check_whole(f"{_KEY}.max_retries", self._max_retries, 0)
        except ValueError as error:
            raise KwsError(str(error)) from error
        self._context, self._function, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, as many at once as there is room for, and return how they ended, in their order.

        Raises:
            KwsError: the cluster can't be used, or one of its machines doesn't see the sweep's folder.
        """
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        self._connect()
        import ray

        jobs = dict(enumerate(map(list, job_overrides), initial_job_idx))
        log.info("Ray runs %d jobs; machines: %d", len(jobs), len(self._machines()))
        for number, overrides in jobs.items():
            log.info("#%d: %s", number, " ".join(filter_overrides(overrides)))
        sweep = sweep_folder(self._config)
        command = _Command(Path.cwd(), self._path, dict(os.environ), sweep, sweep.record.read_bytes())
        shared = (self._context, self._config, self._function, Singleton.get_state())
        task = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_retries=0)(_execute)
        running = {task.remote(command, number, one, *shared): number for number, one in jobs.items()}
        ended: dict[int, JobReturn] = {}
        deaths: Counter[int] = Counter()
        while running:
            time.sleep(_POLL_S)  # here a Ctrl-C comes in, not within Ray's own wait
            for reference in ray.wait(list(running), num_returns=len(running), timeout=0)[0]:
                number = running.pop(reference)
                try:
                    ended[number] = ray.get(reference)
                    log_end(sweep.read_job(number))
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except _deaths() as error:
                    deaths[number] += 1
                    reason = f"its worker died ({type(error).__name__})"
                    if deaths[number] > self._max_retries:
                        ended[number] = _give_up(sweep, number, jobs[number], f"{reason}, {deaths[number]} times")
                        continue
                    again = f"{deaths[number]} of {self._max_retries}"
                    log.warning("job %d: %s; it is started again (%s)", number, reason, again)
                    _wait_for_training(sweep, number)
                    running[task.remote(command, number, jobs[number], *shared)] = number
        return [ended[number] for number in jobs]

    def _connect(self) -> None:
        """Start Ray on this machine, or connect to a cluster, unless an earlier call did."""
        os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
        import ray

        if not ray.is_initialized():
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            own: dict[str, Any] = {}
            if self._address is None:
                own = {"num_cpus": available_cpus(), "include_dashboard": False, "object_store_memory": _STORE_BYTES}
                own["_system_config"] = {"kill_child_processes_on_worker_exit": False}  # they save their state
            else:
                _check_answers(self._address)
            # a Ctrl-C waits until Ray has started: half started, Ray would crash at exit
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                with chdir("/"):  # workers import from the folder that is current now, be there a `random.py`
                    ray.init(self._address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
            except Exception as error:
                what = f"{_KEY}.address={self._address}" if self._address else "Ray can't be started"
                raise KwsError(f"{what}: {' '.join(str(error).split())}") from error
            finally:
                for number, handler in handlers.items():  # Ray takes SIGTERM
                    signal.signal(number, handler)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if not any(has.get("CPU", 0) >= self._cpus and has.get("GPU", 0) >= self._gpus for has in self._machines()):
            line = (
                f"no machine that Ray knows has {self._cpus} CPUs and {self._gpus} GPUs"
                f" ({_KEY}.cpus_per_task, gpus_per_task)"
            )
            if self._address is None:
                raise KwsError(line)
            log.warning("%s: the jobs wait for one", line)

    def _machines(self) -> list[Mapping[str, float]]:
        """What each machine has, by Ray's names."""
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@dataclass(frozen=True)
class _Command:
    """What a job shares with the command of its sweep, wherever it runs, as SLURM would have it.

    Attributes:
        folder: the current one.
        path: what it imports from.
        environment: its variables.
        sweep: the record, which must be there on all machines.
        record: the content of its `sweep.json`.
    """

    folder: Path
    path: list[str]
    environment: dict[str, str]
    sweep: SweepFolder
    record: bytes

    def enter(self) -> None:
        """Make this process, a worker of Ray, like the command's.

        Raises:
            KwsError: the machine doesn't see the same folders.
        """
        import ray

        gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        own = {key: value for key, value in os.environ.items() if key.startswith("RAY_")}
        os.environ.clear()
        os.environ.update(self.environment | own | {VISIBLE: ",".join(gpus)})
        sys.path[:] = dict.fromkeys([*self.path, *sys.path])
        try:
            os.chdir(self.folder)
            seen = self.sweep.record.read_bytes() == self.record
        except OSError:
            seen = False
        if not seen:
            raise KwsError(
                f"machine '{socket.gethostname()}' of the Ray cluster does not see the record '{self.sweep.path}':"
                " give the command in a folder that all machines share"
            )


def _execute(command: _Command, number: int, overrides: list[str], *shared: Any) -> JobReturn:
    """Run a job in a worker of Ray, as joblib's launcher does in one of its own."""
    command.enter()
    from hydra_plugins.hydra_joblib_launcher._core import execute_job

    context, config, function, singletons = shared
    try:
        return execute_job(number, overrides, context, config, function, singletons)
    except SystemExit as error:  # which Ray would take for a worker that died
        raise KwsError(str(error.code).removeprefix("error: ")) from error


def _deaths() -> tuple[type[Exception], ...]:
    """What Ray raises for a job whose worker or machine died, be it for want of memory."""
    from ray import exceptions as errors

    return (
        errors.WorkerCrashedError, errors.NodeDiedError, errors.LocalRayletDiedError, errors.OutOfMemoryError,
        errors.ObjectLostError,
    )  # fmt: skip


def _give_up(sweep: SweepFolder, number: int, overrides: list[str], reason: str) -> JobReturn:
    """Record that a job failed, in its worker's place."""
    try:
        job = sweep.read_job(number)
    except KwsError:  # not even begun
        job = Job(number, overrides, None, FAILED)
    record_end(sweep, replace(job, status=FAILED, error=reason))
    return JobReturn(status=JobStatus.COMPLETED)


def _wait_for_training(sweep: SweepFolder, number: int) -> None:
    """Wait for a training that goes on without its worker: it saves its state and ends."""
    with suppress(KwsError, Timeout):
        folder = sweep.read_job(number).folder
        if folder is not None:
            lock_for(folder, timeout_s=_SAVING_S).acquire().lock.release()


def _check_answers(address: str) -> None:
    """Look at an address before Ray does, which would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise KwsError(f"{_KEY}.address={address}: no Ray cluster answers there: {error}") from error


# `Plugins.register` takes the module's name, but Hydra makes plugins of no module outside hydra_plugins
Plugins.instance().class_name_to_class["hydra_plugins.kws.RayLauncher"] = RayLauncher
