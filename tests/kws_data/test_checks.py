from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from kws_data.checks import (
    check_choice,
    check_flag,
    check_list,
    check_number,
    check_probability,
    check_range,
    check_whole,
)

NO_NUMBERS = [None, "1", True, math.nan, math.inf, [1]]


@pytest.mark.parametrize(
    ("check", "good", "bad", "wanted"),
    [
        (lambda v: check_number("x", v), [-1e300, 0, 2.5], NO_NUMBERS, "a number"),
        (lambda v: check_number("x", v, 0.5), [0.5, 1e300], [0.4, *NO_NUMBERS], "a number at least 0.5"),
        (lambda v: check_number("x", v, 1, 2), [1, 2.0], [0.9, 2.1], "a number from 1 to 2"),
        (lambda v: check_number("x", v, above=0), [1e-9], [0, -1, *NO_NUMBERS], "a number above 0"),
        (lambda v: check_number("x", v, high=1, above=0), [0.1, 1], [0, 1.1], "a number above 0 and at most 1"),
        (lambda v: check_whole("x", v), [-(2**63), 0, 2**63 - 1], [2**63, 0.0, *NO_NUMBERS], "a whole number"),
        (lambda v: check_whole("x", v, 1), [1, 10**15], [0, 1.0, *NO_NUMBERS], "a whole number at least 1"),
        (lambda v: check_whole("x", v, 0, 2**32 - 1), [2**32 - 1], [2**32], "a whole number from 0 to 4294967295"),
        (lambda v: check_probability("x", v), [0, 0.3, 1], [-0.1, 1.1, *NO_NUMBERS], "a number from 0 to 1"),
        (lambda v: check_range("x", v, -9, 9), [(1, 1), (-9, 9)], [[2, 1], [-10, 0]], "[low, high] within -9 and 9"),
        (lambda v: check_range("x", v, -9, 9), [], [[1], [1, 2, 3], "12", [1, math.nan], [0, True], 3], "[low, high]"),
        (lambda v: check_flag("x", v), [True, False], [None, 0, "yes"], "true or false"),
        (lambda v: check_choice("x", v, ("a", "b")), ["a"], ["c", None, 1], "one of a, b"),
        (lambda v: check_list("x", v), [[], [1], (1,)], ["a", 1], "a list"),
    ],
)
def test_a_value_is_returned_or_refused_by_name(
    check: Callable[[Any], Any], good: list[Any], bad: list[Any], wanted: str
) -> None:
    assert [check(value) for value in good] == good
    for value in bad:
        with pytest.raises(ValueError, match=r"^x must be ") as error:
            check(value)
        assert str(error.value).split("; ")[0] == f"x must be {wanted}, got {value!r}"


def test_null_is_an_empty_list() -> None:
    assert check_list("x", None) == []
