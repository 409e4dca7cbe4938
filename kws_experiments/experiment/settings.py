"""The settings of `conf/trainer/`, checked; imports no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kws_data.checks import check_flag, check_number, check_whole

MONITORS = {"val_accuracy": 1, "val_loss": -1}  # 1 if more is better, -1 if less is
CLASS_BALANCES = ("none", "weights", "sampling")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True)
class TrainerSettings:
    """The settings of `conf/trainer/`; the YAML describes each key.

    Raises:
        ValueError: naming the key.
    """

    batch_size: int
    epochs: int | None
    steps: int | None
    eval_every: int | None
    checkpoint_every: int
    early_stopping: int | None
    monitor: str
    restore_best: bool
    label_smoothing: float
    class_balance: str
    ema_momentum: float | None
    precision: str
    jit_compile: bool | None
    print_confusion: bool
    tensorboard: bool

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                "epochs and steps must not both be given or both be null,"
                f" got {self.epochs} and {self.steps}; trainer.epochs=null trains by steps"
            )
        for name in ("batch_size", "checkpoint_every"):
            check_whole(name, getattr(self, name), 1)
        for name in ("epochs", "steps", "eval_every", "early_stopping"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        for name in ("restore_best", "print_confusion", "tensorboard"):
            check_flag(name, getattr(self, name))
        if self.jit_compile is not None:
            check_flag("jit_compile", self.jit_compile)
        check_number("label_smoothing", self.label_smoothing, 0, 0.99)
        if self.ema_momentum is not None:
            check_number("ema_momentum", self.ema_momentum, 0, 0.999999)
        for name, choices in (("monitor", MONITORS), ("class_balance", CLASS_BALANCES), ("precision", PRECISIONS)):
            if getattr(self, name) not in tuple(choices):
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got '{getattr(self, name)}'")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole training."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch


def best_row(history: list[dict[str, Any]], monitor: str) -> int:
    """The index of the best evaluation; of equally good ones the one with the lowest loss, then the first.

    A loss of NaN counts as infinite: half precision may overflow in an early evaluation.
    """
    sign = MONITORS[monitor]
    rows = [row | {"val_loss": np.nan_to_num(row["val_loss"], nan=np.inf, posinf=np.inf)} for row in history]
    return max(range(len(rows)), key=lambda index: (sign * rows[index][monitor], -rows[index]["val_loss"]))
