"""Objects that a configuration adds under `loggers` to be told how a run goes; they change nothing that is trained."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from kws_data.errors import KwsError
from kws_experiments.config.compose import instantiate
from kws_experiments.runs.folder import RunFolder


class RunLogger(Protocol):
    """What is told of a run. An error that one of these raises ends the run, so that they had better raise none."""

    def begin(self, folder: RunFolder, config: dict[str, Any]) -> None:
        """The run starts, or goes on: `config` is the resolved configuration."""

    def evaluated(self, row: dict[str, Any], confusion: np.ndarray) -> None:
        """An evaluation on validation: the history's new row, and the confusion matrix [labels, labels]."""

    def end(self, result: dict[str, Any]) -> None:
        """The run is done: `result` is what `metrics.json` holds."""


def build_loggers(config: dict[str, Any]) -> list[RunLogger]:
    """The objects under `loggers`, each named by its key.

    Raises:
        KwsError: naming the key.
    """
    chosen = config.get("loggers") or {}
    if not isinstance(chosen, dict):
        raise KwsError(f"loggers must hold loggers by name, got {chosen!r}; logger=mlflow adds one")
    return [instantiate(config, f"loggers.{name}") for name in chosen]
