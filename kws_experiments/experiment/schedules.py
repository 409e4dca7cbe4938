"""Learning-rate schedules (`conf/schedule/`): from the optimizer's own rate to a rate for each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kws_data.checks import check_flag, check_list, check_number, check_whole
from kws_experiments.experiment.settings import MONITORS

if TYPE_CHECKING:
    from keras.optimizers.schedules import LearningRateSchedule


class Schedule(ABC):
    """What a learning rate does over a training.

    Attributes:
        own_rates: whether it takes none of the optimizer's.
    """

    own_rates = False

    @abstractmethod
    def rates(self, learning_rate: float, *, total_steps: int, steps_per_epoch: int) -> LearningRateSchedule | float:
        """What a Keras optimizer takes for its learning rate.

        Args:
            learning_rate: the optimizer's own; a float, whose type Keras's schedules give everything.
            total_steps: of the whole training.
            steps_per_epoch: for durations in epochs.
        """

    def rate_after(self, history: Sequence[Mapping[str, Any]], learning_rate: float) -> float | None:  # noqa: ARG002
        """The rate that follows from the evaluations so far; None where it follows from the step alone."""
        return None


class Constant(Schedule):
    """The optimizer's rate throughout."""

    def rates(self, learning_rate: float, *, total_steps: int, steps_per_epoch: int) -> float:  # noqa: ARG002
        """See the base class."""
        return learning_rate


class Piecewise(Schedule):
    """Phase i lasts `steps[i]` steps at `rates[i]`; the last phase's rate goes on.

    Takes the place of the optimizer's rate. As `--how_many_training_steps` and `--learning_rate` of the
    speech_commands example's train.py.

    Args:
        steps: the phases' lengths.
        rates: their rates.
        unit: of the lengths, 'steps' or 'epochs'.
    """

    own_rates = True

    def __init__(self, steps: Sequence[int], rates: Sequence[float], unit: str = "steps") -> None:
        steps, rates = check_list("steps", steps), check_list("rates", rates)
        if not steps or len(steps) != len(rates):
            raise ValueError(f"steps and rates must be lists of one length, got {list(steps)} and {list(rates)}")
        self._lengths = [check_whole("steps", length, 1) for length in steps]
        self._rates = [float(check_number("rates", rate, 0)) for rate in rates]
        self._unit = _checked_unit(unit)

    def rates(
        self,
        learning_rate: float,  # noqa: ARG002
        *,
        total_steps: int,  # noqa: ARG002
        steps_per_epoch: int,
    ) -> LearningRateSchedule | float:
        """See the base class."""
        import keras

        scale = steps_per_epoch if self._unit == "epochs" else 1
        ends = [sum(self._lengths[: place + 1]) * scale for place in range(len(self._lengths) - 1)]
        if not ends:
            return self._rates[0]
        # Keras changes the rate after a boundary's step; its count starts at 0, ours of phases at the first step
        return keras.optimizers.schedules.PiecewiseConstantDecay([end - 1 for end in ends], self._rates)


class Cosine(Schedule):
    """Half a cosine from the optimizer's rate to `final` of it at the training's end (arXiv:1608.03983).

    Args:
        warmup: over so long the rate first rises from 0, in a line.
        final: the last rate, as a fraction of the optimizer's.
        unit: of `warmup`, 'steps' or 'epochs'.
    """

    def __init__(self, warmup: float = 0, final: float = 0.0, unit: str = "epochs") -> None:
        self._warmup = check_number("warmup", warmup, 0)
        self._final = check_number("final", final, 0, 1)
        self._unit = _checked_unit(unit)

    def rates(self, learning_rate: float, *, total_steps: int, steps_per_epoch: int) -> LearningRateSchedule:
        """See the base class.

        Raises:
            ValueError: the warm-up takes the whole training.
        """
        import keras

        warmup_steps = round(self._warmup * (steps_per_epoch if self._unit == "epochs" else 1))
        if warmup_steps >= total_steps:
            raise ValueError(
                f"warmup must be shorter than the training, got {warmup_steps} steps of {total_steps}; "
                "schedule.warmup=0 does without"
            )
        decay = {"decay_steps": total_steps - warmup_steps, "alpha": self._final}
        if not warmup_steps:
            return keras.optimizers.schedules.CosineDecay(learning_rate, **decay)
        # Keras's rate at step 0 of a warm-up is 0: such a step would be wasted
        first = learning_rate / (warmup_steps + 1)
        return keras.optimizers.schedules.CosineDecay(
            first, **decay, warmup_target=learning_rate, warmup_steps=warmup_steps
        )


class Exponential(Schedule):
    """The optimizer's rate, times `factor` for every `every` that has gone by.

    Args:
        factor: of the decay.
        every: how long one such decay takes.
        unit: of `every`, 'steps' or 'epochs'.
        staircase: in jumps rather than a little at each step.
    """

    def __init__(self, factor: float = 0.95, every: float = 1, unit: str = "epochs", staircase: bool = False) -> None:
        self._factor = check_number("factor", factor, 1e-9, 1)
        self._every = check_number("every", every, 1e-9)
        self._unit, self._staircase = _checked_unit(unit), check_flag("staircase", staircase)

    def rates(
        self,
        learning_rate: float,
        *,
        total_steps: int,  # noqa: ARG002
        steps_per_epoch: int,
    ) -> LearningRateSchedule:
        """See the base class."""
        import keras

        steps = self._every * (steps_per_epoch if self._unit == "epochs" else 1)
        return keras.optimizers.schedules.ExponentialDecay(learning_rate, steps, self._factor, self._staircase)


class Plateau(Schedule):
    """Multiply the rate by `factor` whenever `patience` evaluations in a row brought no better one.

    What it does is a function of the history, so that a resumed run does the same.

    Args:
        factor: of each reduction.
        patience: evaluations to wait, after a reduction too.
        min_rate: no reduction goes below it.
        monitor: 'val_loss' or 'val_accuracy'.
        min_change: what counts as better.
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

    def rates(self, learning_rate: float, *, total_steps: int, steps_per_epoch: int) -> float:  # noqa: ARG002
        """See the base class."""
        return learning_rate

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
