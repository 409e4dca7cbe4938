"""The contents of a run's folder, read and checked for a report; nothing is computed or drawn here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kws_data.errors import KwsError
from kws_data.splits import SPLITS
from kws_data.text import from_csv
from kws_experiments.config.command import Command, Difference, differences, read_command
from kws_experiments.evaluation import worst_clips
from kws_experiments.evaluation.files import EvaluationFiles
from kws_experiments.evaluation.worst_clips import KeptClip
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.export.artifact import RECORD, Artifact, read_artifact
from kws_experiments.runs.files import START_OVER, read_json, read_table
from kws_experiments.runs.finished import FinishedRun
from kws_experiments.runs.trust import is_trusted
from kws_experiments.streaming.by_condition import COLUMNS


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, of the run's own test split or of other clips.

    Attributes:
        name: of its folder; '' for the run's own.
        metrics: see `evaluation.metrics`.
        tables: likewise, by name.
        clips: those kept of the table `confidently_wrong`, from its first row on.
    """

    name: str
    metrics: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    clips: list[KeptClip]

    @classmethod
    def read(cls, folder: Path, name: str, tables: tuple[str, ...]) -> Evaluation:
        """Read an evaluation, with the tables named.

        Raises:
            KwsError: a file is missing, damaged, or of an older version.
        """
        files = EvaluationFiles(folder)
        metrics = files.read_metrics()
        if missing := {"calibration", "detection", "by_speaker", "confusion_matrix"} - metrics.keys():
            raise KwsError(
                f"'{files.metrics}' is of an older version (it has no {sorted(missing)[0]}): evaluate again, or train"
                " with force=true"
            )
        read = {table: files.read_table(table) for table in tables}
        clips = worst_clips.read(folder, read["confidently_wrong"]) if "confidently_wrong" in read else []
        return cls(name, metrics, read, clips)


@dataclass(frozen=True)
class Listening:
    """The results of `kws evaluate-stream`, on one recording or several.

    Attributes:
        name: of its folder.
        metrics: see `streaming.evaluate_stream.compute_metrics`.
        curve: see `streaming.curve.threshold_curve`.
        words: those spoken: `time_ms`, `end_ms`, `word`, and `detected_ms`, which is empty for words not detected.
        conditions: see `streaming.by_condition.by_condition`; without rows in results of an earlier version.
    """

    name: str
    metrics: dict[str, Any]
    curve: pd.DataFrame
    words: pd.DataFrame
    conditions: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> Listening:
        """Read the folder of the results.

        Raises:
            KwsError: a file is missing or damaged.
        """
        advice = "kws evaluate-stream writes it again"
        keys = ["operating_points", "latency_ms.median", "false_accepts_per_hour"]
        metrics = read_json(folder / "metrics.json", advice, keys)
        curve = read_table(folder / "curve.parquet", advice)
        words = _csv(folder / "words.csv", ["time_ms", "end_ms", "word", "detected_ms"])
        return cls(folder.name, metrics, curve, words, _conditions(folder / "by_condition.csv", advice))


@dataclass(frozen=True)
class RunContents:
    """A finished run.

    Attributes:
        run: configuration, record, labels, thresholds.
        command: that started it; None if that is not recorded.
        differences: from its experiment's defaults; None if those can't be composed any more.
        label_counts: examples by label and split.
        catalog: clips, speakers and hours by word and split.
        set_aside: files that were not used, with the reason.
        history: a row per evaluation in training.
        own: the evaluation at the end of training.
        others: the evaluations by `kws evaluate`.
        cost: `cost.json`; empty for a run of an older version.
        new_words: `new_words.json`; empty for a run without.
        exports: by `kws export`.
        streams: results of `kws evaluate-stream`.
    """

    run: FinishedRun
    command: Command | None
    differences: list[Difference] | None
    label_counts: pd.DataFrame
    catalog: pd.DataFrame
    set_aside: pd.DataFrame
    history: pd.DataFrame
    own: Evaluation
    others: list[Evaluation]
    cost: dict[str, Any]
    new_words: dict[str, Any]
    exports: list[Artifact]
    streams: list[Listening]

    @property
    def experiment(self) -> Experiment:
        """What the run's configuration describes."""
        return Experiment(self.run.config)

    @classmethod
    def read(cls, path: Path) -> RunContents:
        """Read the folder of a finished run.

        Raises:
            KwsError: it is not a finished run, or one of its files is missing, damaged or of another version.
        """
        run = FinishedRun.open(path)
        folder = run.folder
        command = read_command(run.record)
        return cls(
            run=run,
            command=command,
            differences=_differences(run, command),
            label_counts=_csv(folder.data / "label_counts.csv", ["label", *SPLITS]),
            catalog=_csv(folder.data / "catalog_summary.csv", ["word", "split", "clips", "speakers", "hours"]),
            set_aside=_csv(folder.data / "set_aside.csv", ["root", "path", "split", "error"]),
            history=_csv(folder.training.history, ["step", "loss", "accuracy", "val_loss", "val_accuracy"]),
            own=Evaluation.read(
                path, "", ("confidently_wrong", "speakers", "levels", "calibration", "detection", "noise")
            ),
            others=[
                Evaluation.read(metrics.parent, metrics.parent.name, ("noise",))
                for metrics in sorted(folder.evaluations.glob("[!.]*/metrics.json"))
            ],
            cost=folder.read_cost(),
            new_words=folder.read_new_words(),
            exports=[read_artifact(record.parent) for record in sorted(folder.exports.glob(f"[!.]*/{RECORD}"))],
            streams=[Listening.read(metrics.parent) for metrics in sorted(folder.streams.glob("[!.]*/metrics.json"))],
        )


def _differences(run: FinishedRun, command: Command | None) -> list[Difference] | None:
    if command is not None and not command.plain and not is_trusted(run.folder.path):
        return None
    try:
        return differences(run.config, command)
    except KwsError:  # the user's own configs may be gone: the report says that there is no comparison
        return None


def _conditions(path: Path, advice: str) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS)
    texts = dict.fromkeys(COLUMNS[:2], str)
    empty = dict.fromkeys(COLUMNS[2:], "")
    return from_csv(read_table(path, advice, COLUMNS, dtype=texts, keep_default_na=False, na_values=empty))


def _csv(path: Path, columns: list[str]) -> pd.DataFrame:
    # words such as 'null' and '01' are words
    texts = dict.fromkeys(("label", "word", "split", "root", "path", "error"), str)
    missing = {"loss": ["nan", ""], "val_loss": ["nan", ""]}
    return read_table(path, START_OVER, columns, dtype=texts, keep_default_na=False, na_values=missing)
