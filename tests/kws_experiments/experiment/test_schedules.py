"""Learning rates step by step, against the formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from kws_experiments.experiment.schedules import Constant, Cosine, Exponential, Piecewise, Plateau, Schedule


def rates(schedule: Schedule, learning_rate: float, steps: int, steps_per_epoch: int = 10) -> np.ndarray:
    """The rate of each step, counted from 0."""
    rule = schedule.rates(learning_rate, total_steps=steps, steps_per_epoch=steps_per_epoch)
    return np.array([float(rule(step)) if callable(rule) else rule for step in range(steps)])


def test_constant_is_the_optimizers_own() -> None:
    np.testing.assert_array_equal(rates(Constant(), 0.5, 3), 0.5)


@pytest.mark.parametrize(("unit", "scale"), [("steps", 1), ("epochs", 10)])
def test_piecewise_phases_last_as_long_as_they_say(unit: str, scale: int) -> None:
    schedule = Piecewise([2, 3, 1], [1, 0.5, 0.25], unit)

    actual = rates(schedule, 7.0, 8 * scale)

    np.testing.assert_allclose(actual, np.repeat([1.0, 0.5, 0.25], [2 * scale, 3 * scale, 3 * scale]))


def test_piecewise_of_one_phase_is_its_rate() -> None:
    np.testing.assert_array_equal(rates(Piecewise([5], [2]), 7.0, 9), 2.0)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_falls_over_the_whole_training(final: float) -> None:
    actual = rates(Cosine(final=final), 0.4, 50)

    part = 0.5 * (1 + np.cos(np.pi * np.arange(50) / 50))
    np.testing.assert_allclose(actual, 0.4 * (final + (1 - final) * part), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("unit", "warmup"), [("steps", 20), ("epochs", 2)])
def test_cosine_warms_up_linearly_and_wastes_no_step(unit: str, warmup: int) -> None:
    actual = rates(Cosine(warmup, unit=unit), 0.4, 60)

    np.testing.assert_allclose(actual[:20], 0.4 * np.arange(1, 21) / 21, rtol=1e-5)
    np.testing.assert_allclose(actual[20:], 0.2 * (1 + np.cos(np.pi * np.arange(40) / 40)), rtol=1e-5, atol=1e-7)


def test_a_warm_up_as_long_as_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^warmup must be shorter than the training, got 20 steps of 20"):
        rates(Cosine(2), 0.1, 20)


@pytest.mark.parametrize("staircase", [False, True])
def test_exponential_decays_by_the_factor(staircase: bool) -> None:
    actual = rates(Exponential(0.5, every=2, staircase=staircase), 1.0, 100)

    time = np.arange(100) / 20
    np.testing.assert_allclose(actual, 0.5 ** (np.floor(time) if staircase else time), rtol=1e-5)


def losses(*values: float) -> list[dict[str, Any]]:
    return [{"val_loss": value, "val_accuracy": 1 - value} for value in values]


@pytest.mark.parametrize(
    ("history", "rate"),
    [
        ([], 1.0),
        ([0.9, 0.8, 0.7], 1.0),
        ([0.5, 0.6], 1.0),
        ([0.5, 0.6, 0.5], 0.1),  # equal is not better
        ([0.5, 0.6, 0.4, 0.6], 1.0),
        ([0.5, 0.6, 0.6, 0.6], 0.1),
        ([0.5, 0.6, 0.6, 0.6, 0.6], 0.01),
        ([0.5] + [0.6] * 40, 0.005),
        ([0.5, math.nan, math.nan], 0.1),
        ([math.nan, math.nan], 0.1),
        ([math.inf, 0.5, 0.4], 1.0),
    ],
)
def test_plateau_follows_from_the_history(history: list[float], rate: float) -> None:
    schedule = Plateau(factor=0.1, patience=2, min_rate=0.005)

    assert schedule.rates(1.0, total_steps=9, steps_per_epoch=3) == 1.0
    assert schedule.rate_after(losses(*history), 1.0) == pytest.approx(rate)


def test_plateau_can_monitor_accuracy_and_require_a_least_change() -> None:
    schedule = Plateau(factor=0.5, patience=1, monitor="val_accuracy", min_change=0.1)

    assert schedule.rate_after(losses(0.5, 0.3), 1.0) == 1.0
    assert schedule.rate_after(losses(0.5, 0.45), 1.0) == 0.5


def test_plateau_never_raises_the_rate() -> None:
    assert Plateau(patience=1, min_rate=0.1).rate_after(losses(1, 1, 1, 1), 0.01) == 0.01


def test_other_schedules_ignore_the_history() -> None:
    assert Cosine().rate_after(losses(1, 2, 3), 0.1) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Piecewise([], []), "steps and rates must be lists of one length"),
        (lambda: Piecewise([1.5], [1]), "steps must be a whole number"),
        (lambda: Piecewise([1], [-1]), "rates must be a number at least 0"),
        (lambda: Piecewise([1], [1], "hours"), "unit must be 'steps' or 'epochs'"),
        (lambda: Cosine(-1), "warmup must be a number"),
        (lambda: Cosine(final=2), "final must be a number from 0 to 1"),
        (lambda: Cosine(unit="hours"), "unit must be"),
        (lambda: Exponential(2), "factor must be a number"),
        (lambda: Exponential(every=0), "every must be a number"),
        (lambda: Exponential(staircase="yes"), "staircase must be true or false"),
        (lambda: Plateau(factor=0), "factor must be a number"),
        (lambda: Plateau(patience=0), "patience must be a whole number"),
        (lambda: Plateau(min_rate=-1), "min_rate must be a number"),
        (lambda: Plateau(min_change="x"), "min_change must be a number"),
        (lambda: Plateau(monitor="loss"), "monitor must be one of"),
    ],
)
def test_wrong_values_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
