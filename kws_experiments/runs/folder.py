"""A run's folder: what stands where, and whether the run is new, unfinished or done."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kws_data.errors import KwsError
from kws_data.folders import nfc
from kws_data.storage.atomic import lock_for, remove, replace_file
from kws_experiments.config.allowed import refused_in_config
from kws_experiments.config.upgrade import upgraded
from kws_experiments.runs.files import GIVE_RUN, START_OVER, read_json, read_lines, read_yaml, whole
from kws_experiments.runs.trust import is_trusted, require_no_way_out, require_trust

UNFINISHED, TRAINED, DONE = "training", "trained", "done"  # trained: all but its report, and its loggers' end
PRUNED = "pruned"  # given up by a search
SCHEMA_VERSION = 2  # 2: evaluations hold detection, calibration, breakdowns and their tables
_PACKAGES = ("tensorflow", "tensorflow-io", "keras", "numpy", "pandas", "audiomentations", "hydra-core")


class PathBelow:
    """An attribute of a class with a `path`: the path of what stands below it."""

    def __init__(self, below: str) -> None:
        self.below = below

    def __get__(self, folder: Any, owner: type) -> Path:
        """The whole path."""
        return folder.path / self.below


@dataclass(frozen=True)
class TrainingFiles:
    """Where a training writes, below a run's folder.

    Attributes:
        path: the run's folder.
        initial: the weights that it began with, and the statistics of its features.
        state: all there is to resume from; gone when the run is done.
        best: the best weights so far.
        history: a row per evaluation.
    """

    path: Path

    initial = PathBelow("checkpoint/initial.npz")
    state = PathBelow("checkpoint/state.npz")
    best = PathBelow("checkpoint/best.npz")
    history = PathBelow("history.csv")


@dataclass(frozen=True)
class RunFolder:
    """The paths below one run's folder, and what stands there.

    Attributes:
        path: the folder.
        config: the composed configuration, interpolations filled in.
        record: status, versions, machine and data, as JSON.
        data: tables about the data: clips per word and split, label counts, files set aside.
        clips: every clip and noise recording used, with a hash of its samples, as Parquet.
        environment: what the run's numbers depend on beside its configuration and data, as JSON.
        diverged: the clips of the batch at which the training diverged, as CSV.
        figures: PNG pictures.
        model: the trained model, waveform to logits, its front end inside.
        labels: the class names, one a line, in the order of the model's outputs.
        listening: decision thresholds per keyword, found on validation, as JSON; see `runs.listening`.
        thresholds: in its place in runs of earlier versions.
        predictions: predictions of the test split, as Parquet.
        metrics: those of the test split, as JSON.
        new_words: what to expect of words that were added, as JSON; see `training.new_words`.
        cost: what the model costs: parameters, multiply-adds, sizes, latency; as JSON.
        report: everything about the run on one page; `report.md` beside it says the same.
        evaluations: what `kws evaluate` found on other data: a folder for each.
        reproductions: what `kws reproduce` trained: a run's folder for each, by number.
        exports: what `kws export` made: a folder for each format.
        streams: what `kws evaluate-stream` found on long recordings: a folder for each.
        tensorboard: event files.
    """

    path: Path

    config = PathBelow("config.yaml")
    record = PathBelow("run.json")
    data = PathBelow("data")
    clips = PathBelow("data/clips.parquet")
    environment = PathBelow("environment.json")
    diverged = PathBelow("diverged.csv")
    figures = PathBelow("figures")
    model = PathBelow("model.keras")
    labels = PathBelow("labels.txt")
    listening = PathBelow("listening.json")
    thresholds = PathBelow("thresholds.json")
    predictions = PathBelow("predictions.parquet")
    metrics = PathBelow("metrics.json")
    new_words = PathBelow("new_words.json")
    cost = PathBelow("cost.json")
    report = PathBelow("report.html")
    evaluations = PathBelow("evaluations")
    reproductions = PathBelow("reproductions")
    exports = PathBelow("exports")
    streams = PathBelow("streams")
    tensorboard = PathBelow("tensorboard")

    @property
    def training(self) -> TrainingFiles:
        """What the training loop writes."""
        return TrainingFiles(self.path)

    def read_record(self) -> dict[str, Any] | None:
        """What `write_record` wrote; None in a new folder. Its `status` is 'training', 'trained', 'done' or 'pruned'.

        Raises:
            KwsError: the file can't be read, is damaged, or of another schema.
        """
        with whole(self.record, START_OVER):
            if not self.record.exists():
                return None
        record = read_json(self.record, START_OVER, ["schema_version"])
        schema = record["schema_version"]
        if schema != SCHEMA_VERSION:
            raise KwsError(
                f"'{self.path}' has schema version {schema}, not {SCHEMA_VERSION}; start over with force=true"
            )
        with whole(self.record, START_OVER):
            if record["status"] not in (UNFINISHED, TRAINED, DONE, PRUNED):
                raise ValueError("no such status")
        return record

    def discard_unbegun(self) -> None:
        """Remove what Hydra made for a run that was refused; for the holder of its lock."""
        if not self.record.exists():
            discard(self.path, self.path / ".hydra", *self.path.glob("*.log"))

    def read_finished_record(self) -> dict[str, Any]:
        """The record of a run that is trained and evaluated.

        Raises:
            KwsError: there is no run, it isn't finished, or its record is damaged or of another schema.
        """
        record = self.read_record()
        if record is None:
            raise no_run(self.path)
        if record["status"] in (UNFINISHED, PRUNED):
            raise KwsError(f"'{self.path}' holds no finished run: the same training command finishes it")
        return record

    def write_record(self, **values: Any) -> None:
        """Add to the record, keeping what it holds."""
        record = self.read_record() or {
            "schema_version": SCHEMA_VERSION,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "versions": _versions(),
        }
        write_text(self.record, json.dumps(record | values, indent=2) + "\n")

    def read_metrics(self) -> dict[str, Any]:
        """The metrics of the test split.

        Raises:
            KwsError: the file is missing or damaged.
        """
        return read_json(self.metrics, START_OVER)

    def read_cost(self) -> dict[str, Any]:
        """What the model costs; empty for a run whose costs were not measured.

        Raises:
            KwsError: it is damaged.
        """
        if not self.cost.is_file():
            return {}
        keys = ["latency_ms.median", "machine.processor", "threads.intra_op", "parameters", "multiply_adds"]
        return read_json(self.cost, f"{START_OVER}, or remove it", keys)

    def read_new_words(self) -> dict[str, Any]:
        """What to expect of words that were added; empty for a run without.

        Raises:
            KwsError: it is damaged.
        """
        if not self.new_words.is_file():
            return {}
        return read_json(self.new_words, START_OVER, ["words", "false_accept_rate"])

    def read_labels(self) -> list[str]:
        """The class names.

        Raises:
            KwsError: the file is missing or damaged.
        """
        return [nfc(label) for label in read_lines(self.labels, GIVE_RUN)]

    def read_config(self) -> dict[str, Any]:
        """The composed configuration, as today's code takes it.

        A run from elsewhere has no loggers: they change nothing that is trained, and may send it anywhere.

        Raises:
            KwsError: the file is missing or damaged.
        """
        config = upgraded(self.read_stored_config())
        return config if is_trusted(self.path) else config | {"loggers": {}}

    def read_stored_config(self) -> dict[str, Any]:
        """The composed configuration as the run's version wrote it.

        Raises:
            KwsError: the file is missing or damaged, or the folder is from elsewhere and names code of its own.
        """
        if not self.config.is_file() and not self.record.is_file():
            raise no_run(self.path)
        require_no_way_out(self.path)
        config = {str(key): value for key, value in read_yaml(self.config, GIVE_RUN).items()}
        require_trust(self.path, self.config, refused_in_config(upgraded(config)))
        return config

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the composed configuration."""
        from omegaconf import OmegaConf

        write_text(self.config, OmegaConf.to_yaml(OmegaConf.create(config)))


def discard(path: Path, *contents: Path) -> None:
    """Remove a folder in which nothing was begun, if it holds nothing else; for the holder of its lock.

    Args:
        path: the folder; its lock goes too, and folders above it that were made for it.
        contents: what may be removed.
    """
    for file in contents:
        remove(file)
    Path(lock_for(path).lock_file).unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        path.rmdir()
        while "runs" in path.parent.parts[-3:]:  # `runs/<name>/sweeps/<id>` is the deepest
            path = path.parent
            path.rmdir()


def no_run(path: str | Path, advice: str = GIVE_RUN) -> KwsError:
    """The error of a path where a run should be; it need not exist."""
    return KwsError(f"'{path}' holds no run: {advice}")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, with its parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _versions() -> dict[str, str]:
    """The versions of the packages that matter most; tensorflow-io need not be there."""
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
