from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kws_data.augment.background_noise import BackgroundNoise
from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.augment.time_shift import TimeShift
from kws_data.draws import Draws
from kws_data.noise import NoiseBank
from kws_data.splits import SPLITS, TRAINING

RATE = 1000  # Hz: small arrays
NOISE = NoiseBank([np.arange(1, 30_001).astype(np.int16), -np.arange(1, 30_001).astype(np.int16)])


def batch_of(pcm: np.ndarray, lengths: Any = None, silence: Any = None) -> ClipBatch:
    count, samples = pcm.shape
    return ClipBatch(
        pcm=pcm.astype(np.int16),
        lengths=np.full(count, samples, np.int32) if lengths is None else np.array(lengths, np.int32),
        labels=np.zeros(count, np.int32),
        ids=np.arange(count),
        silence=np.zeros(count, bool) if silence is None else np.array(silence),
    )


def context(clip_samples: int | None, noise: NoiseBank = NOISE, split: str = TRAINING) -> StageContext:
    return StageContext(noise, split, RATE, clip_samples, words=np.arange(len(PARTNERS.ids)), gather=partners)


PARTNERS = batch_of(np.random.default_rng(1).integers(-9000, 9000, (20, 50)))


def partners(ids: np.ndarray) -> ClipBatch:
    """Mixup's other clips: rows of PARTNERS, whose labels are their numbers."""
    chosen = batch_of(PARTNERS.pcm[ids])
    chosen.labels = ids.astype(np.int32)
    return chosen


def shifted(batch: ClipBatch, shift_ms: float, clip_samples: int | None, seed: int = 0, epoch: int = 0) -> np.ndarray:
    assert TimeShift(shift_ms).prepare(batch, Draws(seed, epoch, batch.ids), context(clip_samples)) == {}
    return batch.pcm


def shift_of(before: np.ndarray, after: np.ndarray) -> int | None:
    """By how much a row of distinct values was moved; None if all of it left. Fails for anything but a shift."""
    kept = np.flatnonzero(after)
    if not len(kept):
        return None
    shift = int(kept[0] - np.flatnonzero(before == after[kept[0]])[0])
    expected = np.zeros_like(before)
    for place, value in enumerate(before):
        if 0 <= place + shift < len(before):
            expected[place + shift] = value
    np.testing.assert_array_equal(after, expected)
    return shift


RAMPS = np.tile(np.arange(1, 1001), (4000, 1))


def test_shifts_are_uniform_zero_filled_and_never_wrap() -> None:
    after = shifted(batch_of(RAMPS), 100, 1000)
    shifts = np.array([shift_of(RAMPS[0], row) for row in after])
    assert shifts.min() == -100
    assert shifts.max() == 100
    counts = np.bincount(shifts + 100, minlength=201)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_shifts_differ_between_epochs_and_seeds_and_repeat_for_both() -> None:
    first = shifted(batch_of(RAMPS[:50]), 100, 1000)
    np.testing.assert_array_equal(first, shifted(batch_of(RAMPS[:50]), 100, 1000))
    for other in ({"seed": 1}, {"epoch": 1}):
        again = shifted(batch_of(RAMPS[:50]), 100, 1000, **other)
        assert (again != first).any(axis=1).mean() > 0.9


def test_a_short_clip_moves_within_its_padding() -> None:
    pcm = np.zeros((500, 1000))
    pcm[:, :600] = np.arange(1, 601)
    after = shifted(batch_of(pcm, lengths=[600] * 500), 100, 1000)
    shifts = [shift_of(pcm[0], row) for row in after]
    assert max(shift for shift in shifts if shift is not None) > 90
    for row, shift in zip(after, shifts, strict=True):
        assert shift is not None
        assert np.count_nonzero(row) == 600 + min(shift, 0)  # nothing of it is lost to the right


def test_clips_of_their_own_length_move_within_it() -> None:
    lengths = np.array([600, 1000, 30] * 50)
    pcm = np.zeros((150, 1000))
    for row, length in zip(pcm, lengths, strict=True):
        row[:length] = np.arange(1, length + 1)
    after = shifted(batch_of(pcm, lengths=lengths), 100, None)
    for before, row, length in zip(pcm, after, lengths, strict=True):
        assert not row[length:].any()
        shift_of(before[:length], row[:length])
    assert (after != pcm).any(axis=1).mean() > 0.9


def test_silence_rows_are_not_shifted() -> None:
    silence = np.arange(100) % 2 == 0
    after = shifted(batch_of(RAMPS[:100], silence=silence), 100, 1000)
    np.testing.assert_array_equal(after[silence], RAMPS[:100][silence])
    assert (after[~silence] != RAMPS[:100][~silence]).any(axis=1).mean() > 0.9


@given(st.integers(1, 40), st.floats(0, 200), st.integers(0, 99))
def test_any_shift_of_any_clip_is_a_shift(samples: int, shift_ms: float, seed: int) -> None:
    before = np.arange(1, samples + 1)
    row = shifted(batch_of(before[None]), shift_ms, samples, seed)[0]
    shift = shift_of(before, row)
    assert shift is None or abs(shift) <= shift_ms


def test_no_shift_changes_nothing() -> None:
    np.testing.assert_array_equal(shifted(batch_of(RAMPS[:10]), 0, 1000), RAMPS[:10])


def noise_for(stage: BackgroundNoise, batch: ClipBatch, clip_samples: int | None = 50, **options: Any) -> Any:
    return stage.prepare(batch, Draws(0, 0, batch.ids), context(clip_samples, **options))


@pytest.mark.parametrize(("volume", "frequency"), [(0.1, 0.8), (1.0, 0.3)])
def test_a_fraction_of_the_clips_gets_noise_at_uniform_volumes(volume: float, frequency: float) -> None:
    drawn = noise_for(BackgroundNoise(volume, frequency), batch_of(np.zeros((10_000, 50))))
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


def test_silence_rows_and_generated_noise_are_not_mixed_in() -> None:
    silence = np.arange(100) % 2 == 0
    drawn = noise_for(BackgroundNoise(0.1, 1.0), batch_of(np.zeros((100, 50)), silence=silence))
    assert (drawn["amount"][silence] == 0).all()
    assert (drawn["amount"][~silence] > 0).all()
    bank = NoiseBank.low_level(16000, 0)
    drawn = noise_for(BackgroundNoise(0.1, 1.0), batch_of(np.zeros((100, 50))), noise=bank)
    assert (drawn["amount"] == 0).all()


def test_noise_ends_with_a_clip_of_its_own_length() -> None:
    lengths = [50, 20, 35]
    drawn = noise_for(BackgroundNoise(0.1, 1.0), batch_of(np.zeros((3, 50)), lengths=lengths), clip_samples=None)
    assert drawn["noise"].shape == (3, 50)
    for row, length in zip(drawn["noise"], lengths, strict=True):
        assert np.count_nonzero(row) == length
        assert row[:length].all()
    drawn = noise_for(BackgroundNoise(0.1, 1.0), batch_of(np.zeros((3, 50)), lengths=lengths))
    assert drawn["noise"].all()  # one length for all: noise all over, as in the original


@pytest.mark.parametrize("stage", [BackgroundNoise(0.1, 0.8), TimeShift(100)])
def test_parameters_are_as_declared(stage: WaveformStage) -> None:
    batch = batch_of(RAMPS[:7, :50])
    drawn = stage.prepare(batch, Draws(0, 0, batch.ids), context(50))
    declared = {name: dtype for name, (dtype, _) in stage.parameter_shapes().items()}
    assert {name: str(value.dtype) for name, value in drawn.items()} == declared
    assert all(len(value) == 7 for value in drawn.values())


def test_noise_is_added_at_its_volume() -> None:
    import tensorflow as tf

    waveform = tf.constant([[0.5, -0.5, 0.0], [0.9, -0.9, 0.1]])
    noise = tf.constant([[16384, -16384, 8192], [32767, -32768, 0]], tf.int16)
    parameters = {"noise": noise, "amount": tf.constant([0.5, 1.0]), "length": tf.constant([3.0, 3.0])}
    mixed = BackgroundNoise(1.0, 1.0).apply(waveform, parameters).numpy()
    np.testing.assert_allclose(mixed, [[0.75, -0.75, 0.125], [1.9, -1.9, 0.1]], atol=1e-4)
    unmixed = BackgroundNoise(1.0, 1.0).apply(waveform, parameters | {"amount": tf.zeros(2)}).numpy()
    np.testing.assert_array_equal(unmixed, waveform.numpy())


@pytest.mark.parametrize(
    ("build", "parameter"),
    [
        (lambda: TimeShift(-1), "time_shift_ms"),
        (lambda: TimeShift(float("nan")), "time_shift_ms"),
        (lambda: TimeShift(float("inf")), "time_shift_ms"),
        (lambda: BackgroundNoise(-0.1, 0.8), "background_volume"),
        (lambda: BackgroundNoise(1.1, 0.8), "background_volume"),
        (lambda: BackgroundNoise(0.1, 80), "background_frequency"),
        (lambda: BackgroundNoise(0.1, -1), "background_frequency"),
    ],
)
def test_wrong_parameters_are_refused_by_name(build: Any, parameter: str) -> None:
    with pytest.raises(ValueError, match=f"^{parameter}"):
        build()
