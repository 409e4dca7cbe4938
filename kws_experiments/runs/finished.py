"""A finished run, opened for use: whole, of this version, and as its training left it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.errors import KwsError
from kws_experiments.config.compose import fingerprint
from kws_experiments.runs.folder import RunFolder


@dataclass(frozen=True)
class FinishedRun:
    """What a run's folder holds beside its model.

    Attributes:
        folder: its paths.
        config: the composed configuration.
        record: of `run.json`.
        labels: class names, in the order of the model's outputs.
        thresholds: each keyword's.
    """

    folder: RunFolder
    config: dict[str, Any]
    record: dict[str, Any]
    labels: list[str]
    thresholds: dict[str, float]

    @classmethod
    def open(cls, path: Path) -> FinishedRun:
        """Read and check it; nothing is written.

        A configuration that was changed by hand is refused: the model was trained by another one, and results under
        the wrong name mislead.

        Raises:
            KwsError: `path` is no folder of a finished run, or one of its files is missing, damaged or changed.
        """
        folder = RunFolder(path)
        record = folder.read_finished_record()
        found = _fingerprint(folder.read_stored_config())
        if found != record.get("fingerprint"):
            raise KwsError(
                f"'{folder.config}' is not what this run was trained with (its fingerprint is {found},"
                f" {folder.record.name} says {record.get('fingerprint')}): undo the change, or train it as a new run"
            )
        labels, thresholds = folder.read_labels(), folder.read_thresholds()
        without = [label for label in labels if label not in (SILENCE, UNKNOWN, *thresholds)]
        if without:
            raise KwsError(
                f"'{folder.thresholds}' has no threshold of {', '.join(without)}, which '{folder.labels}' names"
            )
        return cls(folder, folder.read_config(), record, labels, thresholds)


def _fingerprint(config: dict[str, Any]) -> str:
    try:
        return fingerprint(config)
    except (KeyError, TypeError, AttributeError):
        return "none"
