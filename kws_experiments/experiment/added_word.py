"""The configuration of a run with one more word than another: that one's, from its weights, for a short time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SLOWER = 0.2  # times the other run's learning rate
EVALUATIONS = 5
_COSINE = "kws_experiments.experiment.schedules.Cosine"


def with_word(
    config: dict[str, Any], words: Sequence[str], word_dirs: Sequence[Any], *, start_from: str, steps: int
) -> dict[str, Any]:
    """The configuration to train.

    Args:
        config: the other run's, resolved.
        words: all words, the new one last.
        word_dirs: with the new word's clips, beside those that the other run has.
        start_from: the other run's folder.
        steps: of the training.
    """
    rates = config["schedule"].get("rates") or [config["optimizer"]["learning_rate"]]
    task, trainer = config["task"], config["trainer"]
    return config | {
        "name": "add_word",
        "force": False,
        "pretrain": None,
        "start_from": start_from,
        "task": task | {"words": list(words), "word_dirs": [*task["word_dirs"], *word_dirs]},
        "optimizer": config["optimizer"] | {"learning_rate": SLOWER * rates[0]},
        "schedule": {"_target_": _COSINE, "warmup": steps // 10, "final": 0.0, "unit": "steps"},
        "trainer": trainer | {"epochs": None, "steps": steps, "eval_every": max(1, steps // EVALUATIONS)},
    }
