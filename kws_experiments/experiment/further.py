"""The configuration of a run that goes on from another one's weights, for a short time, with more clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SLOWER = 0.2  # times the other run's learning rate
EVALUATIONS = 5
KEPT = 0.5  # of the loss of clips of the other run's labels: being unlike that run (docs/measurements.md)
_COSINE = "kws_experiments.experiment.schedules.Cosine"


def with_word(
    config: dict[str, Any], words: Sequence[str], word_dirs: Sequence[Any], *, start_from: str, steps: int
) -> dict[str, Any]:
    """The configuration of a run with one word more.

    Args:
        config: the other run's, resolved.
        words: all words, the new one last.
        word_dirs: with the new word's clips, beside those that the other run has.
        start_from: the other run's folder.
        steps: of the training.
    """
    further = _further(config, "add_word", word_dirs, start_from)
    trainer = {
        "epochs": None, "steps": steps, "eval_every": max(1, steps // EVALUATIONS), "distillation": KEPT,
        "word_loss": 0.0,  # its outputs are not kept with a run, and new ones would move the network
    }  # fmt: skip
    return further | {
        "task": further["task"] | {"words": list(words)},
        "schedule": _cosine(steps // 10, "steps"),
        "trainer": config["trainer"] | trainer,
    }


def with_mistakes(config: dict[str, Any], word_dirs: Sequence[Any], *, start_from: str, epochs: int) -> dict[str, Any]:
    """The configuration of a run that is trained further with what it heard wrongly.

    Args:
        config: its configuration, resolved.
        word_dirs: with the windows, beside those that it has.
        start_from: its folder.
        epochs: of the training.
    """
    return _further(config, "mine", word_dirs, start_from) | {
        "schedule": _cosine(epochs / 10, "epochs"),
        "trainer": config["trainer"] | {"epochs": epochs, "steps": None, "distillation": 0.0},
    }


def _further(config: dict[str, Any], name: str, word_dirs: Sequence[Any], start_from: str) -> dict[str, Any]:
    rates = config["schedule"].get("rates") or [config["optimizer"]["learning_rate"]]
    return config | {
        "name": name,
        "force": False,
        "pretrain": None,
        "start_from": start_from,
        "task": config["task"] | {"word_dirs": [*config["task"]["word_dirs"], *word_dirs]},
        "optimizer": config["optimizer"] | {"learning_rate": SLOWER * rates[0]},
    }


def _cosine(warmup: float, unit: str) -> dict[str, Any]:
    return {"_target_": _COSINE, "warmup": warmup, "final": 0.0, "unit": unit}
