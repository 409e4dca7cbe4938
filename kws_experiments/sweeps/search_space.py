"""What a sweep varies: Hydra's overrides, and how Optuna draws from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override

from kws_data.errors import KwsError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def by_key(params: Mapping[str, Any] | None, overrides: Sequence[str]) -> dict[str, Override]:
    """The overrides of `hydra.sweeper.params` and of the command line; the last of a key counts."""
    of_sweeper = [f"{key}={value}" for key, value in (params or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*of_sweeper, *overrides])
    return {override.get_key_element(): override for override in parsed}


def distribution(override: Override) -> BaseDistribution:
    """What Optuna draws a key's values from: choices, whole numbers or numbers.

    Raises:
        KwsError: the range is empty, or not one that a search can draw from.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    try:
        if override.is_choice_sweep() and not isinstance(value, Glob):
            return CategoricalDistribution(list(override.sweep_string_iterator()))
        if override.is_interval_sweep():
            whole = isinstance(value.start, int) and isinstance(value.end, int)
            numbers: Any = IntDistribution if whole else FloatDistribution
            return numbers(value.start, value.end, log="log" in value.tags)
        if override.is_range_sweep():
            values = sorted(value.range())
            if not values:
                raise ValueError("the range is empty")
            numbers = IntDistribution if isinstance(values[0], int) else FloatDistribution
            return numbers(values[0], values[-1], step=abs(value.step))
    except ValueError as error:
        raise KwsError(f"{override.input_line}: {' '.join(str(error).split())}") from error
    raise KwsError(f"{override.input_line}: a search draws from choices, range(…) and interval(…) only")
