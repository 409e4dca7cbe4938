"""A job of a sweep: trained in a process of its own, so that nothing is carried over, and a crash is one failure."""

from __future__ import annotations

import logging
import os
import re
import signal
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
from kws_experiments.config.compose import resolved
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.sweep_record import DONE, FAILED, RUNNING, STOPPED, Job, SweepFolder, with_figures
from kws_experiments.sweeps import job

log = logging.getLogger("sweep")

_POLL_S = 0.2
_LOGGED = re.compile(r"\[[^]]*\]\[[^]]*\]\[\w+\] - (.*)")  # Hydra's default format


def run_job(cfg: DictConfig, sweep: SweepFolder, number: int, *, worker: bool) -> float | None:
    """Train a job's configuration in a child process, and record in the sweep what became of it.

    A run that is done already is left as it is. The child's output goes to `output.log` in the run's folder.

    Args:
        cfg: the job's composed configuration.
        sweep: where to record it.
        number: the job's place in the sweep.
        worker: this process is a launcher's worker: it ends the job if the launcher is no more, and doesn't print what
            the job prints, which other jobs' output would cut up.

    Returns:
        the accuracy on validation, which a sweeper may optimise; None if the job failed.

    Raises:
        KeyboardInterrupt: the state was saved.
    """
    overrides = list(HydraConfig.get().overrides.task)
    folder = Path(HydraConfig.get().runtime.output_dir)
    told = Job(number, overrides, folder, RUNNING, started=datetime.now(UTC).isoformat(timespec="seconds"))
    if sweep.stop.exists():
        return None
    started = time.monotonic()
    try:
        config = resolved(cfg)
    except KwsError as error:
        told = replace(told, folder=None, status=FAILED, error=str(error), seconds=0.0)
        return _record(sweep, told)
    try:
        record = RunFolder(folder).read_record()
        if record is not None and record["status"] == "done":
            log.info("job %d is trained already: %s", number, folder)
            return _record(sweep, replace(told, status=DONE, seconds=sweep.seconds_of(number, folder)))
    except KwsError as error:
        return _record(sweep, replace(told, status=FAILED, error=str(error), seconds=0.0))
    sweep.write_job(told)
    told = replace(told, status=STOPPED)
    launcher = os.getppid()
    try:
        status, reason = _train_in_child(config, folder, sweep, launcher if worker else None)
        told = replace(told, status=status, error=reason)
    except Exception as failure:  # a full disk, say; the sweep goes on
        log.debug("job %d", number, exc_info=True)
        told = replace(told, status=FAILED, error=" ".join(f"{type(failure).__name__}: {failure}".split()))
    finally:
        accuracy = _record(sweep, replace(told, seconds=round(time.monotonic() - started, 1)))
    if worker and os.getppid() != launcher:  # was killed: nobody takes the result, and there is nothing else to do
        os._exit(1)
    return accuracy


def _record(sweep: SweepFolder, told: Job) -> float | None:
    """Write down a job that has ended, say so, and return its accuracy on validation."""
    sweep.write_job(told)
    told = with_figures(told)
    if told.status == FAILED:
        log.error("job %d failed: %s", told.number, told.error)
    elif told.status == STOPPED:
        log.warning("job %d stopped: %s", told.number, told.folder)
    elif told.accuracy is not None:
        log.info("job %d: accuracy %.1f %%", told.number, 100 * told.accuracy)
    return told.accuracy if told.validation_accuracy is None else told.validation_accuracy


def _train_in_child(
    config: dict[str, Any], folder: Path, sweep: SweepFolder, launcher: int | None
) -> tuple[str, str | None]:
    """Start the child and wait for it, or for the end of the launcher if there is one: (status, error)."""
    output = folder / "output.log"
    # the modules that this process finds are those that the child finds, whatever the folder it stands in
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
    with output.open("ab") as sink:
        begin = sink.tell()
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", job.__name__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C reaches the sweep alone, which passes it on once
        )
    assert child.stdin is not None
    with output.open("rb") as printed:
        printed.seek(begin)
        try:
            with suppress(BrokenPipeError):  # it ended before it read; its exit status tells
                job.send(config, child.stdin)
            while child.poll() is None and not sweep.stop.exists() and launcher in (None, os.getppid()):
                time.sleep(_POLL_S)
                _pass_on(printed, launcher is None)
        finally:
            _end(child)
            _pass_on(printed, launcher is None)
        printed.seek(begin)
        return _outcome(child.returncode, printed.read().decode(errors="replace"))


def _pass_on(printed: Any, echo: bool) -> None:
    text = printed.read().decode(errors="replace")
    if echo and text:
        sys.stdout.write(text)
        sys.stdout.flush()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Close the child's pipe, whereupon it saves its state, and wait for it; a second Ctrl-C kills it."""
    assert child.stdin is not None
    with suppress(BrokenPipeError):
        child.stdin.close()
    try:
        child.wait()
    except BaseException:
        child.kill()
        child.wait()
        raise


def _outcome(code: int, printed: str) -> tuple[str, str | None]:
    """(status, error) of a child that ended with an exit status, or by a signal (below 0)."""
    if code == 0:
        return DONE, None
    if code == job.STOPPED:
        return STOPPED, None
    last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")
    logged = _LOGGED.fullmatch(last)
    told = logged.group(1) if logged else last
    if code < 0:
        told = f"ended by {signal.Signals(-code).name}" + (f"; its last words: {told}" if told else "")
    return FAILED, told or f"ended with status {code}"
