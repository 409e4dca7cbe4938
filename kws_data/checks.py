"""Checks of parameters for constructors: each returns the value, or raises a ValueError that starts with its name.

The caller that knows where the parameter is in the configuration puts that before the message: 'augment.waveform.gain.'
and 'gain_db must be …'.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

_LARGEST = 2**63 - 1


def require(fulfilled: bool, name: str, wanted: str, value: Any) -> None:
    """Raise ValueError with the parameter's name, what is wanted and what was given, unless `fulfilled`."""
    if not fulfilled:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def check_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: float | None = None
) -> float:
    """`value`, if it is a finite number from `low`, or greater than `above`, up to `high`; else ValueError."""
    fits = _is_number(value) and low <= value <= high and (above is None or value > above)
    require(fits, name, f"a number{_bounds(low, high, above)}", value)
    return value


def check_whole(name: str, value: Any, low: int = -_LARGEST - 1, high: int = _LARGEST) -> int:
    """`value`, if it is a whole number from `low` to `high`; else ValueError."""
    fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    bounds = _bounds(-math.inf if low < -_LARGEST else low, math.inf if high == _LARGEST else high)
    require(fits, name, f"a whole number{bounds}", value)
    return value


def check_probability(name: str, value: Any) -> float:
    """`value`, if it is a number from 0 to 1; else ValueError."""
    return check_number(name, value, 0, 1)


def check_range(name: str, value: Any, lowest: float, highest: float) -> tuple[float, float]:
    """`value` as (low, high), if it is two numbers in order from `lowest` to `highest`; else ValueError."""
    numbers = list(value) if _is_list(value) else []
    require(len(numbers) == 2 and all(map(_is_number, numbers)), name, "[low, high]", value)
    low, high = numbers
    require(lowest <= low <= high <= highest, name, f"[low, high] within {lowest:g} and {highest:g}", value)
    return low, high


def check_flag(name: str, value: Any) -> bool:
    """`value`, if it is true or false; else ValueError."""
    require(isinstance(value, bool), name, "true or false", value)
    return value


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """`value`, if it is one of `choices`; else ValueError."""
    require(value in choices, name, f"one of {', '.join(choices)}", value)
    return value


def check_path(name: str, value: Any) -> Path:
    """`value` as a path, if it is not blank; else ValueError, since an empty path would be the current folder."""
    given = isinstance(value, str | int | float | Path) and bool(str(value).strip())
    require(given, name, "a path (the current folder is .)", value)
    return Path(str(value))


def check_list(name: str, value: Any) -> Sequence[Any]:
    """`value`, if it is a list, or an empty list for null; else ValueError."""
    if value is None:
        return []
    if not _is_list(value):
        raise ValueError(f"{name} must be a list, got {value!r}; write [{value}]")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _bounds(low: float, high: float, above: float | None = None) -> str:
    if above is not None:
        return f" above {above:g}" + ("" if math.isinf(high) else f" and at most {high:g}")
    if math.isinf(high):
        return "" if math.isinf(low) else f" at least {low:.15g}"
    return f" from {low:.15g} to {high:.15g}"
