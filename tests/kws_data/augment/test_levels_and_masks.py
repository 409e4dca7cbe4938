"""The simple stages: gain, polarity, white noise and time masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kws_data.augment.gain import Gain
from kws_data.augment.polarity import Polarity
from kws_data.augment.time_mask import TimeMask
from kws_data.augment.white_noise import WhiteNoise
from tests.kws_data.augment.clips import MANY, RATE, augmented, batch_of, db, drawn_by, tiny


@pytest.mark.parametrize("probability", [1.0, 0.3])
def test_gains_are_uniform_in_db(probability: float) -> None:
    rows = augmented(Gain((-12, 3), probability), tiny(samples=2), clip_samples=2)
    gains = 20 * np.log10(rows[:, 0] / (1000 / 32768))
    changed = np.abs(gains) > 1e-4
    assert stats.binomtest(int(changed.sum()), MANY, probability).pvalue > 1e-3
    assert stats.kstest(gains[changed], stats.uniform(-12, 15).cdf).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_a_fraction_of_the_clips_is_turned_upside_down(probability: float) -> None:
    rows = augmented(Polarity(probability), tiny(samples=3), clip_samples=3)
    assert set(np.unique(rows)) <= {np.float32(1000 / 32768), -np.float32(1000 / 32768)}
    assert stats.binomtest(int((rows[:, 0] < 0).sum()), MANY, probability).pvalue > 1e-3
    assert (rows == rows[:, :1]).all()


def test_white_noise_has_the_levels_asked_for_and_is_each_clips_own() -> None:
    batch = batch_of(np.zeros((1000, 4000), np.int16))
    rows = augmented(WhiteNoise((-80, -40), 0.6), batch, clip_samples=4000)
    noisy = rows.any(axis=1)
    assert stats.binomtest(int(noisy.sum()), 1000, 0.6).pvalue > 1e-3
    levels = db((rows[noisy].astype(float) ** 2).mean(axis=1))
    assert stats.kstest(levels, stats.uniform(-80, 40).cdf).pvalue > 1e-3
    first = rows[noisy][0] / rows[noisy][0].std()
    assert stats.kstest(first, "norm").pvalue > 1e-4
    spectrum = np.abs(np.fft.rfft(first)) ** 2
    assert 0.8 < spectrum[:1000].mean() / spectrum[1000:].mean() < 1.25  # white
    normal = rows[noisy][:200] / rows[noisy][:200].std(axis=1, keepdims=True)
    alike = normal @ normal.T / 4000 - np.eye(200)
    assert (np.abs(alike) > 0.9).mean() < 0.01


def test_time_masks_have_the_widths_and_places_asked_for() -> None:
    lengths = np.where(np.arange(MANY) % 2, 400, 100)
    batch = batch_of([np.full(length, 1000, np.int16) for length in lengths])
    rows = augmented(TimeMask(2.0, 0.8), batch, clip_samples=400)  # 32 samples
    masked = (rows == 0) & (np.arange(400) < lengths[:, None])
    widths = masked.sum(axis=1)
    starts = masked.argmax(axis=1)
    ends = 400 - masked[:, ::-1].argmax(axis=1)
    assert (widths == np.where(widths, ends - starts, 0)).all()  # in one piece
    expected = np.array([0.2 + 0.8 / 33, *[0.8 / 33] * 32]) * MANY
    assert stats.chisquare(np.bincount(widths, minlength=33), expected).pvalue > 1e-3
    for length in (100, 400):
        chosen = (lengths == length) & (widths > 0)
        assert stats.kstest(starts[chosen] / (length - widths[chosen] + 1), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("max_ms", [0.0, 0.03, 0.09, 1.99 * 1000 / RATE])
def test_a_time_mask_is_never_longer_than_asked(max_ms: float) -> None:
    rows = augmented(TimeMask(max_ms, 1.0), tiny(500, 10), clip_samples=10)
    assert (rows == 0).sum(axis=1).max() == int(max_ms * RATE / 1000)


def test_a_time_mask_longer_than_the_clip_stays_in_it() -> None:
    batch = batch_of([np.full(length, 1000, np.int16) for length in [1, 5, 30] * 50])
    drawn = drawn_by(TimeMask(1000, 1.0), batch, clip_samples=None)
    assert (drawn["start"] >= 0).all()
    assert (drawn["end"] <= batch.lengths).all()
    assert (drawn["end"] == batch.lengths).any()
