"""Learning-rate schedules (`conf/schedule/`): from the optimizer's own rate to a rate for each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras.optimizers.schedules import LearningRateSchedule


def constant(learning_rate: float) -> float:
    """The optimizer's rate throughout."""
    return learning_rate


def piecewise(learning_rate: float, steps: Sequence[int], rates: Sequence[float]) -> LearningRateSchedule:
    """Phase i lasts `steps[i]` steps at `rates[i]`; the last phase's rate goes on.

    Takes the place of `learning_rate`. As `--how_many_training_steps` and `--learning_rate` of the speech_commands
    example's train.py.
    """
    del learning_rate
    if not steps or len(steps) != len(rates):
        raise ValueError(f"steps and rates must be lists of one length, got {list(steps)} and {list(rates)}")
    if min(steps) < 1:
        raise ValueError(f"steps must each be at least 1, got {list(steps)}")
    if min(rates) < 0:
        raise ValueError(f"rates must not be negative, got {list(rates)}")
    import keras

    ends = [sum(steps[: place + 1]) for place in range(len(steps) - 1)]
    # Keras changes the rate after a boundary's step; its count starts at 0, ours of phases at the first step
    return (
        keras.optimizers.schedules.PiecewiseConstantDecay([end - 1 for end in ends], list(rates)) if ends else rates[0]
    )
