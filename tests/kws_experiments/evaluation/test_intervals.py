from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson
from sklearn.metrics import f1_score

from kws_experiments.evaluation import intervals
from tests.predictions import LABELS, predicted, table_of


def test_wilson_is_as_published() -> None:
    """Newcombe, 'Two-sided confidence intervals for the single proportion', Statistics in Medicine 1998, table I."""
    correct, clips = np.array([81, 15, 0, 1]), np.array([263, 148, 20, 29])
    published = [[0.2553, 0.3662], [0.0624, 0.1605], [0, 0.1611], [0.0061, 0.1718]]
    np.testing.assert_allclose(intervals.wilson_each(correct, clips), published, atol=5e-5)
    assert intervals.wilson(20, 20) == pytest.approx((1 - 0.1611, 1), abs=5e-5)


def test_the_interval_of_a_rate_is_garwoods() -> None:
    # table 1 of F. Garwood, 'Fiducial limits for the Poisson distribution', Biometrika 28, 1936
    for events, low, high in ((0, 0, 3.689), (1, 0.0253, 5.572), (10, 4.795, 18.39), (50, 37.11, 65.92)):
        assert intervals.poisson_rate(events, 1) == pytest.approx((low, high), rel=1e-3)
        assert intervals.poisson_rate(events, 10) == pytest.approx((low / 10, high / 10), rel=1e-3)


def some_predictions(speakers: int = 12, clips: int = 300) -> pd.DataFrame:
    """Predictions that are right for some speakers and mostly wrong for others."""
    generator = np.random.default_rng(0)
    speaker = generator.integers(0, speakers, clips)
    truth = generator.integers(0, 4, clips)
    logits = generator.normal(0, 1, (clips, 4))
    logits[np.arange(clips), truth] += np.where(speaker < speakers / 3, -1, 3)
    return table_of(logits.astype(np.float32), truth, [f"s{name}" for name in speaker], np.zeros(clips))


def test_resampling_speakers_is_what_repeating_their_rows_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = some_predictions()
    (weights,) = intervals._weights(12, 40, np.random.default_rng(0))
    weights[0] = np.eye(12)[0] * 12  # one speaker alone: not every class occurs
    monkeypatch.setattr(intervals, "_weights", lambda *arguments: iter([weights]))

    ours = intervals.by_speaker(predictions, LABELS)

    rows = [predictions[predictions["speaker"] == name] for name in predictions["speaker"].unique()]
    expected: dict[str, list[float]] = {"accuracy": [], "macro_f1": []}
    for weight in weights.astype(int):
        drawn = pd.concat([part for part, times in zip(rows, weight, strict=True) for _ in range(times)])
        each = f1_score(drawn["label"], drawn["predicted"], labels=LABELS, average=None, zero_division=np.nan)
        expected["accuracy"].append((drawn["label"] == drawn["predicted"]).mean())
        expected["macro_f1"].append(float(np.nanmean(each)))
    for name, values in expected.items():
        assert ours[name] == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_each_resample_draws_as_many_speakers_as_there_are_each_as_often_as_any() -> None:
    weights = np.concatenate(list(intervals._weights(7, 5000, np.random.default_rng(0))))
    assert weights.shape == (5000, 7)
    assert (weights.sum(axis=1) == 7).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(weights.var(axis=0), 6 / 7, atol=0.06)  # of a multinomial


def test_speakers_who_differ_make_the_interval_wider_than_that_of_clips() -> None:
    predictions = some_predictions()
    low, high = intervals.by_speaker(predictions, LABELS)["accuracy"] or (0, 0)
    alone = intervals.by_speaker(predictions.assign(speaker=[str(row) for row in range(300)]), LABELS)["accuracy"]
    wilson = intervals.wilson(int((predictions["label"] == predictions["predicted"]).sum()), 300)
    assert high - low > 1.5 * (wilson[1] - wilson[0])
    assert alone == pytest.approx(wilson, abs=0.01)  # a speaker per clip: nothing but chance between them


def test_memory_limits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = some_predictions()
    whole = intervals.by_speaker(predictions, LABELS)
    monkeypatch.setattr(intervals, "_COUNTS_AT_ONCE", 12 * 37)
    assert intervals.by_speaker(predictions, LABELS) == whole


@settings(max_examples=40)
@given(predicted())
def test_whatever_the_predictions_intervals_are_none_or_within_bounds(predictions: pd.DataFrame) -> None:
    result = intervals.by_speaker(predictions, LABELS, resamples=200)

    named = predictions.loc[predictions["speaker"] != "", "speaker"].nunique()
    right = (predictions["label"] == predictions["predicted"]).mean()
    for interval in result.values():
        assert (interval is None) == (named < 2)
        if interval is not None:
            assert 0 <= interval[0] <= interval[1] <= 1
            if right in (0, 1):
                assert interval == (right, right)


@given(st.integers(0, 300), st.floats(0.1, 100))
def test_at_both_ends_of_a_rates_interval_such_a_count_is_one_in_forty(events: int, hours: float) -> None:
    low, high = intervals.poisson_rate(events, hours)
    assert poisson.cdf(events, high * hours) == pytest.approx(0.025)
    assert poisson.sf(events - 1, low * hours) == pytest.approx(0.025 if events else 1)


@given(st.integers(0, 50), st.floats(0.1, 20))
def test_a_claim_is_shown_once_so_few_events_would_be_one_in_twenty(events: int, rate: float) -> None:
    hours = intervals.hours_for(events, rate)
    assert poisson.cdf(events, rate * hours) == pytest.approx(0.05)
    assert intervals.false_accepts(events, 1.01 * hours, rate)["shown"]
    assert not intervals.false_accepts(events, 0.99 * hours, rate)["shown"]


def test_an_hour_without_events_bounds_the_rate_at_three() -> None:
    rate = intervals.false_accepts(0, 1.0, 0.5)
    assert rate["hours_needed"] == pytest.approx(6, abs=0.01)
    assert intervals.hours_for(0, 3) == pytest.approx(1, abs=0.01)
    assert intervals.as_text(rate) == "0.0 an hour (0 in 1.00 h, 95 % interval 0.0 to 3.7)"
    text = "at most 0.5 an hour is not shown by 1.00 h with 0 false accepts; it needs 6.0 h with as many"
    assert intervals.not_shown(rate, 0.5) == text
