# ruff: noqa: ARG002 (most schedules ignore some arguments)
"""Learning-rate schedules (`conf/schedule/`): from the optimizer's own rate to a rate for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from kws_data.checks import check_flag, check_list, check_number, check_whole
from kws_experiments.experiment.settings import MONITORS

if TYPE_CHECKING:
    from keras.optimizers.schedules import LearningRateSchedule


class Schedule:
    """The learning rate over a training: here the optimizer's own rate at every step.

    Attributes:
        own_rates: whether it replaces the optimizer's rate by rates of its own.
    """

    own_rates = False

    def rates(self, learning_rate: float, *, total_steps: int, steps_per_epoch: int) -> LearningRateSchedule | float:
        """The learning rate as a Keras optimizer takes it.

        Args:
            learning_rate: the optimizer's own; a float, since Keras's schedules compute in its type.
            total_steps: of the whole training.
            steps_per_epoch: for durations in epochs.
        """
        return learning_rate

    def rate_after(self, history: Sequence[Mapping[str, Any]], learning_rate: float) -> float | None:
        """The rate after the evaluations so far; None if it depends on the step alone."""
        return None


class Constant(Schedule):
    """The optimizer's rate at every step."""


class Piecewise(Schedule):
    """Phase i lasts `steps[i]` steps at `rates[i]`; the last rate stays.

    Replaces the optimizer's rate. As `--how_many_training_steps` and `--learning_rate` of the
    speech_commands example's train.py.

    Args:
        steps: the phases' lengths.
        rates: their rates.
        unit: of the lengths: 'steps' or 'epochs'.
    """

    own_rates = True

    def __init__(self, steps: Sequence[int], rates: Sequence[float], unit: str = "steps") -> None:
        steps, rates = check_list("steps", steps), check_list("rates", rates)
        if not steps or len(steps) != len(rates):
            raise ValueError(f"steps and rates must be lists of one length, got {list(steps)} and {list(rates)}")
        self._lengths = [check_whole("steps", length, 1) for length in steps]
        self._rates = [float(check_number("rates", rate, 0)) for rate in rates]
        self._unit = _checked_unit(unit)

    def rates(self, learning_rate: float, *, total_steps: int, steps_per_epoch: int) -> LearningRateSchedule | float:
        """See the base class."""
        import keras

        scale = steps_per_epoch if self._unit == "epochs" else 1
        ends = [end * scale for end in accumulate(self._lengths[:-1])]
        if not ends:
            return self._rates[0]
        # Keras counts steps from 0, and changes the rate after the step of the boundary
        return keras.optimizers.schedules.PiecewiseConstantDecay([end - 1 for end in ends], self._rates)


class Cosine(Schedule):
    """Half a cosine from the optimizer's rate to the fraction `final` of it (arXiv:1608.03983).

    Args:
        warmup: for this time the rate first rises linearly from 0.
        final: the last rate, as a fraction of the optimizer's.
        unit: of `warmup`: 'steps' or 'epochs'.
    """

    def __init__(self, warmup: float = 0, final: float = 0.0, unit: str = "epochs") -> None:
        self._warmup = check_number("warmup", warmup, 0)
        self._final = check_number("final", final, 0, 1)
        self._unit = _checked_unit(unit)

    def rates(self, learning_rate: float, *, total_steps: int, steps_per_epoch: int) -> LearningRateSchedule:
        """See the base class.

        Raises:
            ValueError: the warm-up is as long as the training.
        """
        import keras

        warmup_steps = round(self._warmup * (steps_per_epoch if self._unit == "epochs" else 1))
        if warmup_steps >= total_steps:
            raise ValueError(
                f"warmup must be shorter than the training, got {warmup_steps} steps of {total_steps}; "
                "schedule.warmup=0 turns it off"
            )
        decay = {"decay_steps": total_steps - warmup_steps, "alpha": self._final}
        if not warmup_steps:
            return keras.optimizers.schedules.CosineDecay(learning_rate, **decay)
        # Keras's rate at step 0 of a warm-up is 0, which would waste a step
        first = learning_rate / (warmup_steps + 1)
        return keras.optimizers.schedules.CosineDecay(
            first, **decay, warmup_target=learning_rate, warmup_steps=warmup_steps
        )


class Exponential(Schedule):
    """The optimizer's rate, multiplied by `factor` once per `every` steps or epochs.

    Args:
        factor: of the decay.
        every: how long one decay takes.
        unit: of `every`: 'steps' or 'epochs'.
        staircase: decay in jumps rather than a little at each step.
    """

    def __init__(self, factor: float = 0.95, every: float = 1, unit: str = "epochs", staircase: bool = False) -> None:
        self._factor = check_number("factor", factor, 1e-9, 1)
        self._every = check_number("every", every, 1e-9)
        self._unit, self._staircase = _checked_unit(unit), check_flag("staircase", staircase)

    def rates(self, learning_rate: float, *, total_steps: int, steps_per_epoch: int) -> LearningRateSchedule:
        """See the base class."""
        import keras

        steps = self._every * (steps_per_epoch if self._unit == "epochs" else 1)
        return keras.optimizers.schedules.ExponentialDecay(learning_rate, steps, self._factor, self._staircase)


class Plateau(Schedule):
    """Multiply the rate by `factor` whenever `patience` evaluations in a row were no better than the best.

    The rate is a function of the history, so that a resumed run has the same rates.

    Args:
        factor: of each reduction.
        patience: evaluations to wait, also after a reduction.
        min_rate: no reduction goes below this.
        monitor: 'val_loss', 'val_accuracy' or 'val_miss_rate'.
        min_change: the least change that counts as better.
    """

    def __init__(
        self,
        factor: float = 0.5,
        patience: int = 5,
        min_rate: float = 0.0,
        monitor: str = "val_loss",
        min_change: float = 0.0,
    ) -> None:
        self._factor = check_number("factor", factor, 1e-9, 1)
        self._patience = check_whole("patience", patience, 1)
        self._min_rate = check_number("min_rate", min_rate, 0)
        self._min_change = check_number("min_change", min_change, 0)
        if monitor not in MONITORS:
            raise ValueError(f"monitor must be one of {', '.join(MONITORS)}, got '{monitor}'")
        self._monitor = monitor

    def rate_after(self, history: Sequence[Mapping[str, Any]], learning_rate: float) -> float:
        """See the base class."""
        best, waited, rate = -float("inf"), 0, learning_rate
        for row in history:
            value = MONITORS[self._monitor] * row[self._monitor]
            if value > best + self._min_change:
                best, waited = value, 0
                continue
            waited += 1
            if waited == self._patience:
                rate, waited = max(rate * self._factor, min(self._min_rate, rate)), 0
        return rate


def _checked_unit(unit: str) -> str:
    if unit not in ("steps", "epochs"):
        raise ValueError(f"unit must be 'steps' or 'epochs', got '{unit}'")
    return unit
