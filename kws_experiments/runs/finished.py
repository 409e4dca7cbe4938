"""A finished run, opened for use: whole, of this version, and as its training left it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.errors import KwsError
from kws_experiments.config.compose import fingerprint
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.listening import Listening


@dataclass(frozen=True)
class FinishedRun:
    """What a run's folder holds beside its model.

    Attributes:
        folder: its paths.
        config: the composed configuration.
        record: of `run.json`.
        labels: class names, in the order of the model's outputs.
        listening: the thresholds of its sensitivities.
    """

    folder: RunFolder
    config: dict[str, Any]
    record: dict[str, Any]
    labels: list[str]
    listening: Listening

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
        labels, listening = folder.read_labels(), Listening.read(path)
        for values in listening.sensitivities.values():
            if without := [label for label in labels if label not in (SILENCE, UNKNOWN, *values["thresholds"])]:
                raise KwsError(
                    f"'{listening.file}' has no threshold of {', '.join(without)}, which '{folder.labels}' names"
                )
        return cls(folder, folder.read_config(), record, labels, listening)


def _fingerprint(config: dict[str, Any]) -> str:
    try:
        return fingerprint(config)
    except (KeyError, TypeError, AttributeError):
        return "none"
