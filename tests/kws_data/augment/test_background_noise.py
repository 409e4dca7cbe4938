from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kws_data.audio import read_pcm
from kws_data.augment.background_noise import BackgroundNoise
from kws_data.augment.stage import ClipBatch
from kws_data.noise import NoiseBank
from kws_data.splits import SPLITS
from tests.kws_data.augment.clips import MOVING_ROWS, RATE, augmented, batch_of, db, drawn_by

RAMPS = NoiseBank([np.arange(1, 30_001).astype(np.int16), -np.arange(1, 30_001).astype(np.int16)])


def noise_for(stage: BackgroundNoise, batch: ClipBatch, clip_samples: int | None = 50, **options: Any) -> Any:
    return drawn_by(stage, batch, clip_samples=clip_samples, **{"noise": RAMPS, **options})


@pytest.mark.parametrize(("volume", "frequency"), [(0.1, 0.8), (1.0, 0.3)])
def test_a_fraction_of_the_clips_gets_noise_at_uniform_volumes(volume: float, frequency: float) -> None:
    drawn = noise_for(BackgroundNoise(volume, frequency), batch_of(np.zeros((10_000, 50), np.int16)))
    noisy = drawn["amount"] > 0
    assert stats.binomtest(int(noisy.sum()), 10_000, frequency).pvalue > 1e-3
    assert stats.kstest(drawn["amount"][noisy] / volume, "uniform").pvalue > 1e-3
    # which clips get noise says nothing of its volume, place or recording
    starts = np.abs(drawn["noise"][:, 0].astype(int))
    assert stats.ks_2samp(starts[noisy], starts[~noisy]).pvalue > 1e-3
    assert abs(np.corrcoef(starts[noisy], drawn["amount"][noisy])[0, 1]) < 0.05


def test_every_clip_has_its_own_noise() -> None:
    drawn = noise_for(BackgroundNoise(0.1, 1.0), batch_of(np.zeros((100, 50))))
    assert len(np.unique(drawn["noise"], axis=0)) > 95
    assert len(np.unique(drawn["amount"])) == 100


@pytest.mark.parametrize("split", SPLITS)
def test_noise_is_of_the_splits_part(split: str) -> None:
    drawn = noise_for(BackgroundNoise(0.1, 1.0), batch_of(np.zeros((300, 50))), split=split)
    places = np.abs(drawn["noise"].astype(int))
    first, last = {"training": (1, 24_000), "validation": (24_001, 27_000), "testing": (27_001, 30_000)}[split]
    assert places.min() >= first
    assert places.max() <= last


def test_generated_noise_is_not_mixed_in() -> None:
    bank = NoiseBank.low_level(RATE, 0)
    drawn = noise_for(BackgroundNoise(0.1, 1.0), batch_of(np.zeros((100, 50))), noise=bank)
    assert (drawn["amount"] == 0).all()


def test_noise_ends_with_a_clip_of_its_own_length() -> None:
    lengths = [50, 20, 35]
    batch = batch_of([np.zeros(length) for length in lengths])
    drawn = noise_for(BackgroundNoise(0.1, 1.0), batch, clip_samples=None)
    assert drawn["noise"].shape == (3, 50)
    for row, length in zip(drawn["noise"], lengths, strict=True):
        assert np.count_nonzero(row) == length
        assert row[:length].all()
    drawn = noise_for(BackgroundNoise(0.1, 1.0), batch)
    assert drawn["noise"].all()  # one length for all clips: noise from start to end, as in the original


def test_noise_is_added_at_its_volume() -> None:
    import tensorflow as tf

    waveform = tf.constant([[0.5, -0.5, 0.0], [0.9, -0.9, 0.1]])
    noise = tf.constant([[16384, -16384, 8192], [32767, -32768, 0]], tf.int16)
    parameters = {"noise": noise, "amount": tf.constant([0.5, 1.0]), "length": tf.constant([3.0, 3.0])}
    mixed = BackgroundNoise(1.0, 1.0).apply(waveform, parameters).numpy()
    np.testing.assert_allclose(mixed, [[0.75, -0.75, 0.125], [1.9, -1.9, 0.1]], atol=1e-4)
    unmixed = BackgroundNoise(1.0, 1.0).apply(waveform, parameters | {"amount": tf.zeros(2)}).numpy()
    np.testing.assert_array_equal(unmixed, waveform.numpy())


def active_power(clip: np.ndarray) -> float:
    """By the definition: mean power of the 20 ms frames within 30 dB of the loudest."""
    frames = np.pad(clip.astype(float), (0, -len(clip) % 320)).reshape(-1, 320)
    power = (frames**2).mean(axis=1)
    return float(power[power >= power.max() / 1000].mean())


def test_snrs_of_real_clips_are_as_drawn(real_data: Path) -> None:
    files = sorted(real_data.glob("[a-z]*/*_nohash_*.wav"))[::40][:120]
    recordings = [read_pcm(path, RATE) for path in sorted((real_data / "_background_noise_").glob("*.wav"))]
    clips = [read_pcm(path, RATE) for path in files]
    clips = [np.pad(clip, (0, max(0, RATE - len(clip))))[:RATE] for clip in clips if clip.any()]
    assert len(clips) > 50
    measured = []
    for seed in range(3):
        after = augmented(BackgroundNoise(None, 0.9, (-5, 20)), batch_of(clips), seed=seed, noise=NoiseBank(recordings))
        for clip, row in zip(clips, after, strict=True):
            noise = row - clip / 32768
            if np.abs(noise).max() > 1e-5:
                measured.append(db(active_power(clip / 32768) / (noise.astype(float) ** 2).mean()))
    assert stats.binomtest(len(measured), 3 * len(clips), 0.9).pvalue > 1e-3
    assert stats.kstest(measured, stats.uniform(-5, 25).cdf).pvalue > 1e-3
    fixed = augmented(BackgroundNoise(None, 1.0, (10, 10)), batch_of(clips), noise=NoiseBank(recordings))
    for clip, row in zip(clips, fixed, strict=True):
        noise = row - clip / 32768
        assert db(active_power(clip / 32768) / (noise.astype(float) ** 2).mean()) == pytest.approx(10, abs=0.5)


def test_pauses_do_not_count_for_the_snr() -> None:
    word = np.zeros(RATE)
    word[3840:5440] = np.random.default_rng(0).normal(0, 3000, 1600)  # a tenth of the clip
    tight = augmented(BackgroundNoise(None, 1.0, (20, 20)), batch_of([word]))[0] - word.astype(np.int16) / 32768
    assert db((word[3840:5440] / 32768).var() / (tight**2).mean()) == pytest.approx(20, abs=0.2)


def test_neither_silent_clips_nor_silent_noise_have_an_snr() -> None:
    stage = BackgroundNoise(None, 1.0, (0, 0))
    clips = [np.zeros(RATE, np.int16), MOVING_ROWS[0]]
    after = augmented(stage, batch_of(clips))
    assert not after[0].any()
    assert (after[1] != MOVING_ROWS[0] / 32768).any()
    silent = augmented(stage, batch_of(clips), noise=NoiseBank([np.zeros(60_000, np.int16)]))
    np.testing.assert_array_equal(silent, np.stack(clips) / 32768)


def test_the_snr_is_that_of_the_clip_not_of_its_padding() -> None:
    clips = [MOVING_ROWS[0], MOVING_ROWS[1][:1000]]
    after = augmented(BackgroundNoise(None, 1.0, (6, 6)), batch_of(clips), clip_samples=None)
    noise = after[1, :1000] - clips[1] / 32768
    assert db(active_power(clips[1] / 32768) / (noise**2).mean()) == pytest.approx(6, abs=0.1)
