from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats
from threadpoolctl import threadpool_limits

from kws_data.augment.background_noise import BackgroundNoise
from kws_data.augment.mixup import Mixup
from kws_data.augment.reverb import Reverb
from kws_data.augment.speed import Speed
from kws_data.augment.time_shift import TimeShift
from kws_data.augment.white_noise import WhiteNoise
from kws_data.draws import Draws
from tests.kws_data.augment.clips import MANY, MOVING_ROWS, RATE, augmented, batch_of, context, db, drawn_by, tiny, tone


def pitch(row: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(row * np.hanning(len(row)), 8 * len(row)))
    return float(spectrum.argmax() * RATE / (8 * len(row)))


@pytest.mark.parametrize("factor", [0.5, 0.85, 0.9, 1.1, 1.15, 2.0])
@pytest.mark.parametrize("clip_samples", [RATE, None])
def test_a_faster_clip_is_higher_and_shorter(factor: float, clip_samples: int | None) -> None:
    batch = batch_of([tone(440)])
    row = augmented(Speed((factor, factor)), batch, clip_samples=clip_samples)[0]
    sounding = np.flatnonzero(np.abs(row) > 1e-3)
    span = sounding[-1] - sounding[0] + 1
    expected = RATE / factor if clip_samples is None else min(RATE, RATE / factor)
    assert span == pytest.approx(expected, abs=40)
    assert pitch(row[sounding[0] : sounding[-1]]) == pytest.approx(440 * factor, abs=0.6)
    assert batch.lengths[0] == (RATE if clip_samples else round(RATE / factor))
    if clip_samples and factor > 1:  # about the middle, and nothing wraps around
        assert sounding[0] == pytest.approx(RATE - 1 - sounding[-1], abs=40)


@pytest.mark.parametrize("factor", [0.5, 0.85, 0.9025, 1.1, 1.1575, 2.0])
def test_speed_keeps_the_band_that_both_rates_have(factor: float) -> None:
    middle, place = (RATE - 1) / 2, np.arange(5000, 11_000)
    for frequency in np.array([0.01, 0.1, 0.4, 0.76]) * 8000 / max(1, factor):
        row = augmented(Speed((factor, factor)), batch_of([tone(frequency)]))[0].astype(float)[place]
        source = (place - middle) * factor + middle
        expected = 10_000 / 32768 * np.sin(2 * np.pi * frequency * source / RATE)
        assert db(((row - expected) ** 2).mean() / (expected**2).mean()) < -57


@pytest.mark.parametrize("factor", [1.1, 1.15, 1.25, 1.5, 2.0])
def test_what_becomes_too_high_for_the_rate_is_gone(factor: float) -> None:
    nyquist = RATE / 2
    for frequency in np.linspace(nyquist / factor, nyquist, 7)[:-1] + 20:
        row = augmented(Speed((factor, factor)), batch_of([tone(frequency)]))[0].astype(float)
        assert db((row[5000:11_000] ** 2).mean() / (tone(frequency) / 32768).var()) < -57


@pytest.mark.parametrize("factor", [0.5, 0.8, 0.95])
def test_a_slower_clip_has_no_images_above_its_band(factor: float) -> None:
    noise = np.random.default_rng(0).normal(0, 3000, RATE).astype(np.int16)
    row = augmented(Speed((factor, factor)), batch_of([noise]))[0].astype(float)
    spectrum = np.abs(np.fft.rfft(row * np.hanning(RATE))) ** 2
    assert db(spectrum[int(8000 * factor) :].max() / spectrum[: int(6000 * factor)].mean()) < -50


@pytest.mark.parametrize("stage", [Speed((1, 1)), Speed((0.999, 1.001)), Speed((0.8, 1.2), 0.0)])
@pytest.mark.parametrize("clip_samples", [RATE, None])
def test_at_its_own_speed_a_clip_keeps_its_bits(stage: Speed, clip_samples: int | None) -> None:
    rows = [*MOVING_ROWS[:6], np.full(RATE, -32768, np.int16)]
    rows = rows if clip_samples else [*rows, MOVING_ROWS[7][:777]]
    batch = batch_of(rows)
    before = batch.pcm.copy()
    assert drawn_by(stage, batch, clip_samples=clip_samples) == {}
    np.testing.assert_array_equal(batch.pcm, before)
    assert batch.lengths.tolist() == [len(row) for row in rows]


def test_factors_are_uniform_in_small_steps() -> None:
    batch = tiny(samples=10)
    stage = Speed((0.8, 1.3), 0.5)
    factors = stage.factors(batch, Draws(0, 0, batch.ids))
    changed = factors != 1
    assert stats.binomtest(int(changed.sum()), MANY, 0.5).pvalue > 1e-3
    assert stats.kstest(factors[changed], stats.uniform(0.8, 0.5).cdf).pvalue > 1e-3
    np.testing.assert_allclose(factors * 400, np.rint(factors * 400), atol=1e-9)
    one, two = (stage.factors(batch, Draws(0, 0, batch.ids).of(name)) for name in ("one", "two"))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.08


def test_the_bits_do_not_depend_on_threads() -> None:
    rows = [np.tile(MOVING_ROWS[place], 12) for place in range(4)]  # long enough for BLAS to want threads

    def once(_: int = 0) -> bytes:
        batch = batch_of(rows)
        Speed((0.5, 2.0)).prepare(batch, Draws(3, 0, batch.ids), context(None))
        return batch.pcm.tobytes()

    with threadpool_limits(1):
        alone = once()
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(once, range(12))) == {alone}


def test_an_overshoot_beyond_full_scale_is_clipped() -> None:
    square = np.where(np.arange(RATE) // 100 % 2, -32768, 32767)
    row = augmented(Speed((0.8, 0.8)), batch_of([square]))[0]
    assert row.max() == np.float32(32767 / 32768)
    assert row.min() == -1
    source = np.rint((np.arange(RATE) - 7999.5) * 0.8 + 7999.5).astype(int)
    plateau = (source % 100 > 5) & (source % 100 < 95)
    assert (row * square[source] / 32768)[plateau].min() > 0.8  # and none wraps to the other sign


def test_a_short_clip_that_a_shift_moved_is_not_cut_at_its_former_end() -> None:
    batch = batch_of([np.pad(tone(440, 4000), (0, RATE - 4000))] * 30)
    batch.lengths[:] = 4000
    rows = augmented({"time_shift": TimeShift(100), "speed": Speed((0.8, 0.8))}, batch)
    sounding = [np.flatnonzero(np.abs(row) > 1e-3) for row in rows]
    later = [np.ptp(places) for places in sounding if places[0] > 30]
    assert len(later) > 5
    np.testing.assert_allclose(later, 5000, atol=40)


def test_a_short_clip_in_its_padding_changes_its_length() -> None:
    clips = [np.pad(tone(440, length), (0, RATE - length)) for length in (4000, 15_900, 4000, 8000)]
    batch = batch_of(clips, silence=[False, False, True, False])
    batch.lengths = np.array([4000, 15_900, 4000, 8000], np.int32)
    rows = augmented(Speed((0.8, 0.8)), batch)
    assert rows.shape == (4, RATE)
    assert batch.lengths.tolist() == [5000, RATE, 4000, 10_000]
    for row, length in zip(rows, batch.lengths, strict=True):
        assert not row[length + 3 :].any()
        assert row[length - 100 : length].any()


def test_lengths_follow_the_speed_and_what_comes_later_follows_them() -> None:
    clips = [tone(440, length) for length in (1, 7, 5000, 4000)]
    batch = batch_of(clips)
    stages = {"mixup": Mixup(0.5, 1.0), "speed": Speed((0.5, 0.5)), "reverb": Reverb(RATE, probability=1.0),
              "background_noise": BackgroundNoise(0.1, 1.0), "white_noise": WhiteNoise((-50, -50))}  # fmt: skip
    rows = augmented(stages, batch, clip_samples=None)
    assert batch.lengths.tolist() == [2, 14, 10_000, 8000]
    assert rows.shape == batch.pcm.shape == (4, 10_000)
    for row, length in zip(rows, batch.lengths, strict=True):
        assert not row[length:].any()
        assert row[:length].all()  # noise up to the end
    faster = batch_of(clips)
    rows = augmented(stages | {"speed": Speed((2, 2))}, faster, clip_samples=None)
    assert faster.lengths.tolist() == [1, 4, 2500, 2000]
    assert rows.shape == (4, 5000)
    assert not rows[np.arange(5000) >= faster.lengths[:, None]].any()


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_shift_after_a_change_of_speed_still_moves_the_whole_clip(factor: float) -> None:
    clip = np.zeros(4000, np.int16)
    clip[1000:3000] = tone(440, 2000)
    batch = batch_of([clip] * 30)
    rows = augmented({"speed": Speed((factor, factor)), "time_shift": TimeShift(50)}, batch, clip_samples=None)
    energy = (rows.astype(float) ** 2).sum(axis=1)
    np.testing.assert_allclose(energy, energy.mean(), rtol=1e-3)  # nothing torn off or left behind
    for row in rows:
        sounding = np.flatnonzero(np.abs(row) > 0.01)
        assert sounding[-1] - sounding[0] == pytest.approx(2000 / factor, abs=40)
