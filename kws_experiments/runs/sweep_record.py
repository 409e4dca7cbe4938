"""The record of a sweep: the command, and how each job ended.

    runs/<name>/sweeps/<id>/sweep.json        the command, what it sweeps over, when it began and how it ended
                            jobs/0000.json    a job: its overrides, its run's folder, how it ended
                            stop              is there while running jobs are asked to stop

The id follows from the overrides, so that the same command finds its record again. A run belongs to no sweep: two
sweeps that ask for the same configuration share its folder. A job has a file of its own because several machines may
write at once. Imports no TensorFlow.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig

from kws_data.errors import KwsError
from kws_data.storage.atomic import is_locked, lock_for
from kws_experiments.config.compose import overrides_fingerprint
from kws_experiments.runs.files import START_OVER, number_or_none, read_json, whole
from kws_experiments.runs.folder import PRUNED, UNFINISHED, PathBelow, RunFolder, write_text

SCHEMA_VERSION = 1
_ADVICE = "the sweep's command, given again, writes it anew"
SWEEPS = "sweeps"  # beside the runs of one name
RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: its index in the sweep.
        overrides: as on the command line of a single run.
        folder: of its run; None where the configuration can't be resolved.
        status: 'running', 'done', 'failed', 'stopped' or 'pruned'.
        error: why it failed, in one line.
        started: when it was last begun, UTC.
        seconds: that it took then; None for a run that was trained already.
        accuracy: of the test split, read from the run.
        validation_accuracy: of the weights that were kept; None in runs of older versions.
    """

    number: int
    overrides: list[str]
    folder: Path | None
    status: str
    error: str | None = None
    started: str | None = None
    seconds: float | None = None
    accuracy: float | None = None
    validation_accuracy: float | None = None

    def values(self, swept: list[str]) -> dict[str, str | None]:
        """What this job chose for each of the swept keys."""
        chosen = dict(override.lstrip("+").split("=", 1) for override in self.overrides if "=" in override)
        return {key: chosen.get(key.lstrip("+")) for key in swept}


@dataclass(frozen=True)
class SweepFolder:
    """The paths of one sweep's record. It travels to the jobs' processes, so it holds nothing but the path.

    Attributes:
        path: the record's folder.
        record: the sweep as a whole, as JSON.
        jobs: a JSON file for each job.
        stop: asks all jobs to save their state and stop, wherever they run.
    """

    path: Path

    record = PathBelow("sweep.json")
    jobs = PathBelow("jobs")
    stop = PathBelow("stop")

    def lock(self) -> FileLock:
        """Held by the process that runs the sweep."""
        return lock_for(self.path, timeout_s=0.2)  # `read_sweep` looks at it for a moment

    def begin(self, **values: Any) -> None:
        """Record that the sweep begins: `values` beside its schema, status and time."""
        self.jobs.mkdir(parents=True, exist_ok=True)
        self.stop.unlink(missing_ok=True)
        record = {"schema_version": SCHEMA_VERSION, "status": RUNNING, "started": _now(), "ended": None}
        write_text(self.record, json.dumps(record | values, indent=2) + "\n")

    def end(self, status: str) -> None:
        """Record how it ended."""
        record = read_json(self.record, _ADVICE) | {"status": status, "ended": _now()}
        write_text(self.record, json.dumps(record, indent=2) + "\n")

    def write_job(self, job: Job) -> None:
        """Record what is known of a job."""
        values = asdict(job)
        del values["accuracy"], values["validation_accuracy"]  # stand in the run's folder, where they may be renewed
        if job.folder is not None:  # relative, so that all of it can be moved
            values["folder"] = os.path.relpath(job.folder, self.path)
        write_text(self._job_file(job.number), json.dumps(values, indent=2) + "\n")

    def read_jobs(self) -> list[Job]:
        """All jobs by number, with the results of their runs; of two for the same run, the later.

        A job whose file is damaged has failed, and its error says so.
        """
        jobs = [with_results(self._job_or_damage(path)) for path in sorted(self.jobs.glob("*.json"))]
        latest = {job.folder or job.number: job for job in jobs}
        return sorted(latest.values(), key=lambda job: job.number)

    def read_job(self, number: int) -> Job:
        """A job, with the results of its run.

        Raises:
            KwsError: its file is missing or damaged.
        """
        return with_results(self._read_job(self._job_file(number)))

    def seconds_of(self, number: int, folder: Path) -> float | None:
        """How long a job took when it trained a run that is left alone now; None where it isn't known."""
        with suppress(KwsError):
            job = self._read_job(self._job_file(number))
            return job.seconds if job.folder == folder else None
        return None

    def _job_or_damage(self, path: Path) -> Job:
        try:
            return self._read_job(path)
        except KwsError as error:
            return Job(int(path.stem) if path.stem.isdigit() else -1, [], None, FAILED, error=str(error))

    def _job_file(self, number: int) -> Path:
        return self.jobs / f"{number:04}.json"

    def _read_job(self, path: Path) -> Job:
        values = read_json(path, _ADVICE)
        with whole(path, _ADVICE):
            job = Job(**values)
            " ".join(job.overrides)  # these and the number are used by all readers
            job = replace(job, number=int(job.number), status=str(job.status))
            folder = None if job.folder is None else Path(os.path.normpath(self.path / job.folder))
        return replace(job, folder=folder)


@dataclass(frozen=True)
class Sweep:
    """A sweep as its record tells.

    Attributes:
        path: the record's folder.
        command: what was typed.
        overrides: of the sweep, swept values and fixed ones.
        swept: the keys that differ from job to job, in the order given.
        planned: how many jobs there are to be.
        status: 'running', 'done', 'failed' (at least one job did) or 'stopped'.
        started: UTC; `ended` is None for one that runs or was killed.
        jobs: those begun so far.
    """

    path: Path
    command: str
    overrides: list[str]
    swept: list[str]
    planned: int
    status: str
    started: str
    ended: str | None = None
    launcher: str = ""
    sweeper: str = ""
    jobs: list[Job] = field(default_factory=list)


def sweep_folder(config: DictConfig) -> SweepFolder:
    """Where the sweep that Hydra composed, its own part included, keeps its record."""
    sweep_id = overrides_fingerprint(list(config.hydra.overrides.task))
    return SweepFolder(Path(str(config.hydra.sweep.dir)).absolute() / SWEEPS / sweep_id)


def with_results(job: Job) -> Job:
    """The job with what stands in its run's folder: a run may also be finished by a command of its own."""
    if job.folder is None:
        return job
    folder = RunFolder(job.folder)
    try:
        record = folder.read_record()
        if record is None or record["status"] in (UNFINISHED, PRUNED):
            if job.status != DONE:
                return job
            if record is not None and record["status"] == PRUNED:
                return replace(job, status=PRUNED)
            return replace(job, status=FAILED, error=f"'{job.folder}' holds no finished run any more")
        metrics = folder.read_metrics()
        with whole(folder.metrics, START_OVER):
            accuracy = number_or_none(metrics["accuracy"])
            validation = number_or_none(metrics.get("validation_accuracy"))
    except KwsError as error:
        return replace(job, status=FAILED, error=str(error))
    return replace(job, status=DONE, error=None, accuracy=accuracy, validation_accuracy=validation)


def read_sweep(path: Path) -> Sweep:
    """The sweep in a folder that holds a `sweep.json`.

    Raises:
        KwsError: it is missing, damaged, or of another schema.
    """
    folder = SweepFolder(path)
    if not folder.record.is_file():
        raise KwsError(f"'{path}' holds no sweep: give the folder of a sweep.json")
    record = read_json(folder.record, _ADVICE)
    schema = record.pop("schema_version", None)
    if schema != SCHEMA_VERSION:
        raise KwsError(f"'{path}' has schema version {schema}, not {SCHEMA_VERSION}; {_ADVICE}")
    with whole(folder.record, _ADVICE):
        sweep = Sweep(path=path, **record, jobs=folder.read_jobs())
        " ".join([sweep.command, sweep.status, sweep.started, *sweep.overrides, *sweep.swept])  # all readers use these
        sweep = replace(sweep, planned=int(sweep.planned))
    if sweep.status == RUNNING and not is_locked(path):
        jobs = [replace(job, status=STOPPED) if job.status == RUNNING else job for job in sweep.jobs]
        sweep = replace(sweep, status=STOPPED, jobs=jobs)
    return sweep


def find_sweeps(folder: Path) -> list[Path]:
    """The folders of all sweeps at or below `folder`, sorted."""
    return sorted(path.parent for path in folder.rglob("sweep.json") if path.parent.parent.name == SWEEPS)


def find_sweep(path: Path) -> Sweep:
    """The one sweep that `path` means: its record's folder, or a folder above it that holds no other.

    Raises:
        KwsError: no sweep, or several, which the message names.
    """
    if not path.is_dir():
        raise KwsError(f"no folder '{path}'")
    found = find_sweeps(path)
    if not found:
        raise KwsError(f"'{path}' holds no sweep (python train.py -m … makes one)")
    if len(found) > 1:
        raise KwsError(f"'{path}' holds {len(found)} sweeps: give one of {', '.join(str(one) for one in found)}")
    return read_sweep(found[0])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
