"""A job of a sweep: trained in a process of its own, so that nothing is carried over, and a crash is one failure."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kws_data.errors import KwsError
from kws_data.storage.parallel import import_path, signal_name
from kws_experiments.config.compose import resolved
from kws_experiments.config.exit import STATUS_STOPPED
from kws_experiments.runs.folder import DONE as RUN_DONE
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.sweep_record import DONE, FAILED, PRUNED, RUNNING, STOPPED, Job, SweepFolder, with_results
from kws_experiments.sweeps import child
from kws_experiments.sweeps.gpus import one_gpu

log = logging.getLogger("sweep")

_POLL_S = 0.2
_LOGGED = re.compile(r"\[[^]]*\]\[[^]]*\]\[\w+\] - (.*)")  # Hydra's default format


def run_job(cfg: DictConfig, sweep: SweepFolder, number: int, *, worker: bool) -> float | None:
    """Train a job's configuration in a child process, and record in the sweep how it ended.

    A run that is done already is left as it is. The child's output goes to `output.log` in the run's folder.

    Args:
        cfg: the job's composed configuration.
        sweep: where to record it.
        number: the job's index in the sweep.
        worker: this process is a launcher's worker: it ends the job if the launcher has died, and doesn't print what
            the job prints, which other jobs' output would cut up.

    Returns:
        the accuracy on validation, which a sweeper may optimise; None if the job failed or was pruned.

    Raises:
        KeyboardInterrupt: the state was saved.
    """
    hydra = HydraConfig.get()
    folder, started = Path(hydra.runtime.output_dir), time.monotonic()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    job = Job(number, list(hydra.overrides.task), folder, RUNNING, started=now)
    if sweep.stop.exists():
        return None
    try:
        config = resolved(cfg)
    except KwsError as error:
        return record_end(sweep, replace(job, folder=None, status=FAILED, error=str(error), seconds=0.0))
    try:
        record = RunFolder(folder).read_record()
    except KwsError as error:
        return record_end(sweep, replace(job, status=FAILED, error=str(error), seconds=0.0))
    if record is not None and record["status"] == RUN_DONE:
        log.info("job %d is trained already: %s", number, folder)
        return record_end(sweep, replace(job, status=DONE, seconds=sweep.seconds_of(number, folder)))
    sweep.write_job(job)
    job = replace(job, status=STOPPED)
    launcher = os.getppid()
    try:
        status, reason = _train_in_child(config, folder, sweep, number, launcher if worker else None)
        job = replace(job, status=status, error=reason)
    except Exception as failure:  # a full disk, say; the sweep goes on
        log.debug("job %d", number, exc_info=True)
        job = replace(job, status=FAILED, error=" ".join(f"{type(failure).__name__}: {failure}".split()))
    finally:
        accuracy = record_end(sweep, replace(job, seconds=round(time.monotonic() - started, 1)))
    if worker and os.getppid() != launcher:  # the launcher was killed: nobody takes the result
        os._exit(1)
    return accuracy


def record_end(sweep: SweepFolder, job: Job) -> float | None:
    """Record and log how a job ended, and return its accuracy on validation."""
    job = with_results(job)
    sweep.write_job(job)
    log_end(job)
    return job.accuracy if job.validation_accuracy is None else job.validation_accuracy


def log_end(job: Job) -> None:
    """Log how a job ended."""
    if job.status == FAILED:
        log.error("job %d failed: %s", job.number, job.error)
    elif job.status == STOPPED:
        log.warning("job %d stopped: %s", job.number, job.folder)
    elif job.status == PRUNED:
        log.info("job %d was pruned: %s", job.number, job.folder)
    elif job.accuracy is not None:
        log.info("job %d: accuracy %.1f %%", job.number, 100 * job.accuracy)


def _train_in_child(
    config: dict[str, Any], folder: Path, sweep: SweepFolder, number: int, launcher: int | None
) -> tuple[str, str | None]:
    """Start the child and wait for it, or for the end of the launcher if there is one: (status, error)."""
    output = folder / "output.log"
    path = {"PYTHONPATH": import_path(), "PYTHONUNBUFFERED": "1"}
    with one_gpu(number, sweep.path) as gpu:
        with output.open("ab") as sink:
            begin = sink.tell()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", child.__name__, str(sweep.path)],
                env=os.environ | path | gpu,
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C reaches the sweep alone, which passes it on once
            )
        assert process.stdin is not None
        with output.open("rb") as printed:
            printed.seek(begin)
            try:
                with suppress(BrokenPipeError):  # it ended before it read; its exit status says why
                    child.send(config, process.stdin)
                while process.poll() is None and not sweep.stop.exists() and launcher in (None, os.getppid()):
                    time.sleep(_POLL_S)
                    _pass_on(printed, launcher is None)
            finally:
                _end(process)
                _pass_on(printed, launcher is None)
            printed.seek(begin)
            return _outcome(process.returncode, printed.read().decode(errors="replace"))


def _pass_on(printed: Any, echo: bool) -> None:
    text = printed.read().decode(errors="replace")
    if echo and text:
        sys.stdout.write(text)
        sys.stdout.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the child's pipe, so that it saves its state, and wait for it; a second Ctrl-C kills it."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise


def _outcome(code: int, printed: str) -> tuple[str, str | None]:
    """(status, error) of a child that ended with an exit status, or by a signal (below 0)."""
    if code == 0:
        return DONE, None
    if code == STATUS_STOPPED:
        return STOPPED, None
    last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")
    logged = _LOGGED.fullmatch(last)
    reason = logged.group(1) if logged else last
    if code < 0:
        reason = f"ended by {signal_name(-code)}" + (f"; its last words: {reason}" if reason else "")
    return FAILED, reason or f"ended with status {code}"
