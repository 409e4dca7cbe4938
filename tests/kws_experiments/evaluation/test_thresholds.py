from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from kws_experiments.evaluation.thresholds import keyword_thresholds, rates_at_thresholds

LABELS = ["_silence_", "_unknown_", "yes", "no"]


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(scores [clips, 4], truth [clips]); many scores are equal, as those of a sure network are."""
    clips = draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = generator.normal(0, draw(st.sampled_from([0.1, 3, 60])), (clips, 4))
    logits = np.round(logits, draw(st.integers(0, 8)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return softmax(logits.astype(dtype), axis=1), generator.integers(0, 4, clips)


RATES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.1, 0.29, 0.3, 1 / 3, 0.5, 0.7, 1.0]))


@given(scored(), RATES)
def test_the_rate_is_kept_and_no_lower_threshold_keeps_it(data: tuple[np.ndarray, np.ndarray], rate: float) -> None:
    scores, truth = data

    thresholds = json.loads(json.dumps(keyword_thresholds(scores, truth, LABELS, rate)))

    assert list(thresholds) == ["yes", "no"]
    for index, label in ((2, "yes"), (3, "no")):
        others = scores[truth != index, index]
        threshold = thresholds[label]
        assert threshold >= 0
        if len(others) == 0:
            assert threshold == 0
            continue
        assert np.mean(others >= threshold) <= rate
        assert np.mean(others.astype(np.float64) >= threshold) <= rate  # in whatever type the two are compared
        if threshold > 0:
            below = np.nextafter(scores.dtype.type(threshold), scores.dtype.type(0))
            assert np.mean(others >= below) > rate


@given(scored(), RATES)
def test_rates_are_those_of_the_thresholds(data: tuple[np.ndarray, np.ndarray], rate: float) -> None:
    scores, truth = data
    thresholds = keyword_thresholds(scores, truth, LABELS, rate)

    rates = rates_at_thresholds(scores, truth, LABELS, thresholds)

    for index, label in ((2, "yes"), (3, "no")):
        accepts, rejects = rates[label]["false_accept_rate"], rates[label]["false_reject_rate"]
        assert rates[label]["threshold"] == thresholds[label]
        assert (accepts is None) == bool((truth == index).all())
        assert (rejects is None) == bool((truth != index).all())
        assert accepts is None or accepts <= rate
        assert rejects is None or rejects == np.mean(scores[truth == index, index] < thresholds[label])


def test_an_example_by_hand() -> None:
    scores = np.zeros((12, 4), np.float32)
    scores[:, 2] = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.95, 0.45]
    truth = np.array([1] * 10 + [2] * 2)

    threshold = keyword_thresholds(scores, truth, LABELS, 0.2)["yes"]

    assert threshold == pytest.approx(0.7)  # just above it: two of the ten others reach it
    rates = rates_at_thresholds(scores, truth, LABELS, {"yes": threshold, "no": 0.5})
    assert rates["yes"] == {"threshold": threshold, "false_accept_rate": 0.2, "false_reject_rate": 0.5}
