"""Loggers: objects that a configuration adds under `loggers`. They see how a run goes and change nothing in it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from kws_data.errors import KwsError
from kws_experiments.config.compose import instantiate
from kws_experiments.runs.folder import RunFolder


class Pruned(Exception):
    """A search gives up a training, which is worse than others were at the same time; the message is one line."""


class RunLogger(Protocol):
    """Sees how a run goes. Loggers must raise nothing but `Pruned`: an error ends the run."""

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
