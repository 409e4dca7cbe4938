"""The checks that every family shares: how small features may be, and what parameters may hold."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_models.inputs import check_parameters, check_size, pair, smallest_input


@settings(max_examples=50, deadline=None)
@given(
    windows=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=5),
    longer=st.integers(0, 10),
)
def test_the_smallest_input_is_what_unpadded_layers_need(windows, longer):
    def fits(length):
        for size, stride in windows:
            length = (length - size) // stride + 1 if length >= size else 0
        return length >= 1

    smallest = smallest_input(windows)
    assert fits(smallest + longer)
    assert not fits(smallest - 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at_least_one": {"units": 0}}, "units: must be a whole number, at least 1, got 0"),
        ({"rates": {"dropout": 1.0}}, "dropout: must be a number, at least 0 and below 1, got 1.0"),
        ({"lists": {"sizes": ([3, 0], 2)}}, "sizes: must be a list of whole numbers, 2 or more of them, of at least 1, "
                                            "got [3, 0]"),
        ({"numbers": {"tau": ("wide", 0.5)}}, "tau: must be a number, at least 0.5, got 'wide'"),
        ({"flags": {"unroll": 1}}, "unroll: must be true or false, got 1"),
    ],
)  # fmt: skip
def test_a_parameter_out_of_range_is_said_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_parameters(**{"at_least_one": {}} | arguments)


def test_a_size_that_does_not_fit_is_said_in_one_line():
    with pytest.raises(ValueError, match=r"^input_shape: the number of bins must be known; only frames can be None"):
        check_size((98, None), "net")
    with pytest.raises(ValueError, match=r"^input_shape: net needs at least 4 frames x 3 bins, got 3 x 40$"):
        check_size((3, 40), "net", min_frames=4, min_bins=3)
    with pytest.raises(ValueError, match=r"^pool_size: must be two numbers of at least 1, frames and bins, got \[4\]$"):
        pair("pool_size", (4,))
