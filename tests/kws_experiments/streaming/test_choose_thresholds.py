"""Thresholds per word: peaks of averages, the model of false accepts, and what is chosen by it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from kws_experiments.streaming.choose_thresholds import GRID, LOWEST, Peaks, thresholds_by_price
from kws_experiments.streaming.curve import Smoothed
from kws_experiments.streaming.matching import Spoken

COLUMNS = {"yes": 1, "no": 2}


def test_peaks_are_those_at_words_and_those_between_them() -> None:
    times = np.arange(0, 10_000, 100.0)
    averages = np.full((100, 3), 0.05)
    averages[:3] = np.nan
    averages[20:24, 1] = [0.5, 0.9, 0.8, 0.3]  # a 'yes' at 2 s ...
    averages[24:32, 1] = 0.6  # ... which lingers
    averages[22, 2] = 0.4  # taken for a 'no' as well
    averages[60:62, 2] = [0.7, 0.75]
    averages[80, 2] = 0.3
    averages[90, 2] = LOWEST / 2
    truth = [Spoken(1900, 2300, "yes"), Spoken(6000, 6100, "bed")]

    peaks = Peaks.of(Smoothed(times, averages), COLUMNS, truth, tolerance_ms=100, echo_ms=1200)

    assert peaks.spoken.tolist() == [0]
    np.testing.assert_allclose(expit(peaks.at_words), [[0.9, 0.4]])
    assert peaks.false[0].size == 0
    np.testing.assert_allclose(expit(peaks.false[1]), [0.75, 0.3])


def some_peaks(hours: float, rates: tuple[float, ...], seed: int = 0) -> Peaks:
    """Words whose false peaks are exponential above LOWEST with these rates an hour, and whose own lie around 0.8."""
    generator = np.random.default_rng(seed)
    false = [logit(LOWEST) + generator.exponential(1.0, generator.poisson(rate * hours)) for rate in rates]
    spoken = np.repeat(np.arange(len(rates)), 100)
    at_words = generator.normal(-5, 1, (len(spoken), len(rates)))
    at_words[np.arange(len(spoken)), spoken] = generator.normal(logit(0.8), 1.5, len(spoken))
    return Peaks(at_words, spoken, false)


RATES = (10.0, 60.0, 200.0)


def true_rate(thresholds: np.ndarray) -> float:
    return float(sum(rate * np.exp(logit(LOWEST) - logit(t)) for rate, t in zip(RATES, thresholds, strict=True)))


@pytest.mark.parametrize("asked", [1.0, 5.0, 20.0])
def test_half_an_hour_is_enough_to_meet_a_rate_on_the_whole(asked: float) -> None:
    rates = []
    for seed in range(20):
        thresholds, expected = thresholds_by_price(some_peaks(0.5, RATES, seed))
        rates.append(true_rate(thresholds[np.flatnonzero(expected <= asked * 0.5)[0]]))
    assert 0.5 * asked < np.median(rates) < 2 * asked  # counts alone would give 0, or 2 at the least


def test_words_with_more_false_accepts_get_higher_thresholds_and_none_is_given_up() -> None:
    peaks = some_peaks(2, RATES)
    thresholds, expected = thresholds_by_price(peaks)
    assert (np.diff(expected) <= 0).all()
    assert (np.diff(thresholds, axis=0) >= 0).all()
    for chosen in thresholds[expected <= 2 * 10][:1]:
        assert (np.diff(chosen) > 0).all()
        own = np.array([peaks.at_words[peaks.spoken == word, word] for word in range(3)])
        assert ((own > logit(chosen)[:, None]).mean(axis=1) > 0.1).all()


def test_a_word_that_is_taken_for_others_gets_a_higher_threshold() -> None:
    peaks = some_peaks(2, (20.0, 20.0))
    confused = Peaks(peaks.at_words.copy(), peaks.spoken, peaks.false)
    confused.at_words[peaks.spoken == 1, 0] = logit(0.9)
    before, after = (
        thresholds[np.flatnonzero(expected <= 8)[0]]
        for thresholds, expected in (thresholds_by_price(peaks), thresholds_by_price(confused))
    )
    assert after[0] >= 0.9 > before[0]


def test_the_model_counts_what_is_there_below_its_tail() -> None:
    peaks = some_peaks(2, RATES)
    expected = peaks.false_accepts().sum(axis=0)
    pooled = np.concatenate(peaks.false)
    counted = (pooled[:, None] > GRID).sum(axis=0)
    many = counted > 20
    assert many.any()
    np.testing.assert_allclose(expected[many], counted[many], atol=1.5)
    assert 0 < expected[-1] < 0.1


def test_without_a_single_false_peak_thresholds_are_finite() -> None:
    peaks = some_peaks(1, (0.0, 0.0))
    thresholds, expected = thresholds_by_price(peaks)
    assert np.isfinite(thresholds).all()
    assert np.isfinite(expected).all()
    assert expected[-1] < 0.1
