from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kws_data.augment.stage import ClipBatch
from kws_data.augment.time_shift import TimeShift
from tests.kws_data.augment.clips import RATE, batch_of, drawn_by

RAMPS = np.tile(np.arange(1, 1001), (4000, 1))


def shifted(batch: ClipBatch, most: float, clip_samples: int | None, seed: int = 0) -> np.ndarray:
    """The batch after shifts of at most so many samples."""
    assert drawn_by(TimeShift(1000 * most / RATE), batch, seed, clip_samples=clip_samples) == {}
    return batch.pcm


def shift_of(before: np.ndarray, after: np.ndarray) -> int | None:
    """By how much a row of distinct values was moved; None if all of it left. Fails for anything but a shift."""
    kept = np.flatnonzero(after)
    if not len(kept):
        return None
    shift = int(kept[0] - np.flatnonzero(before == after[kept[0]])[0])
    expected = np.zeros_like(before)
    for index, value in enumerate(before):
        if 0 <= index + shift < len(before):
            expected[index + shift] = value
    np.testing.assert_array_equal(after, expected)
    return shift


def test_shifts_are_uniform_zero_filled_and_never_wrap() -> None:
    after = shifted(batch_of(RAMPS), 100, 1000)
    shifts = np.array([shift_of(RAMPS[0], row) for row in after])
    assert shifts.min() == -100
    assert shifts.max() == 100
    counts = np.bincount(shifts + 100, minlength=201)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_short_clip_moves_within_its_padding() -> None:
    pcm = np.zeros((500, 1000))
    pcm[:, :600] = np.arange(1, 601)
    batch = batch_of(pcm)
    batch.lengths[:] = 600
    after = shifted(batch, 100, 1000)
    shifts = [shift_of(pcm[0], row) for row in after]
    assert max(shift for shift in shifts if shift is not None) > 90
    for row, shift in zip(after, shifts, strict=True):
        assert shift is not None
        assert np.count_nonzero(row) == 600 + min(shift, 0)  # nothing of it is lost to the right


def test_clips_of_their_own_length_move_within_it() -> None:
    batch = batch_of([np.arange(1, length + 1) for length in [600, 1000, 30] * 50])
    pcm = batch.pcm.copy()
    after = shifted(batch, 100, None)
    for before, row, length in zip(pcm, after, batch.lengths, strict=True):
        assert not row[length:].any()
        shift_of(before[:length], row[:length])
    assert (after != pcm).any(axis=1).mean() > 0.9


@given(st.integers(1, 40), st.floats(0, 200), st.integers(0, 99))
def test_any_shift_of_any_clip_is_a_shift(samples: int, most: float, seed: int) -> None:
    before = np.arange(1, samples + 1)
    row = shifted(batch_of(before[None]), most, samples, seed)[0]
    shift = shift_of(before, row)
    assert shift is None or abs(shift) <= most + 1e-6


def test_no_shift_changes_nothing() -> None:
    np.testing.assert_array_equal(shifted(batch_of(RAMPS[:10]), 0, 1000), RAMPS[:10])
