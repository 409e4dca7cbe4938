"""Checks that constructors make of what a configuration gives them; messages open with the parameter's name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def check_number(name: str, value: Any, low: float, high: float = math.inf) -> float:
    """`value` if it is a finite number from `low` to `high`.

    Raises:
        ValueError: naming the parameter.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or math.isinf(value):
        bounds = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be a number {bounds}, got {value!r}")
    return value


def check_whole(name: str, value: Any, low: int, high: int = 2**63 - 1) -> int:
    """`value` if it is a whole number from `low` to `high`; raises as `check_number`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        bounds = f"at least {low}" if high == 2**63 - 1 else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {bounds}, got {value!r}")
    return value


def check_flag(name: str, value: Any) -> bool:
    """`value` if it is true or false; raises as `check_number`."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return value


def check_list(name: str, value: Any) -> Sequence[Any]:
    """`value` if it is a list; null is an empty one; raises as `check_number`."""
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{name} must be a list, got {value!r}; write [{value}]")
    return value


def check_probability(name: str, value: Any) -> float:
    """`value` if it is from 0 to 1; raises as `check_number`."""
    return check_number(name, value, 0, 1)


def check_range(name: str, value: Any, lowest: float, highest: float) -> tuple[float, float]:
    """`value` as (low, high), if it is two numbers in order within the bounds; raises as `check_number`."""
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(numbers) != 2 or not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} must be [low, high], got {value!r}")
    low, high = numbers
    if not lowest <= low <= high <= highest:
        raise ValueError(f"{name} must be [low, high] within {lowest:g} and {highest:g}, got {value}")
    return low, high
