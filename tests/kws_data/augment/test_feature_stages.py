from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kws_data.augment.augmentation import Augmentation
from kws_data.augment.feature_stage import FeatureStage
from kws_data.augment.frequency_warp import FrequencyWarp
from kws_data.augment.spec_augment import SpecAugment
from kws_data.augment.spec_cutout import SpecCutout
from kws_data.draws import Draws
from tests.kws_data.augment.clips import FEATURE_STAGES as STAGES

FRAMES, BINS = 98, 40


def features_of(count: int, frames: int = FRAMES, bins: int = BINS, seed: int = 0) -> np.ndarray:
    """No two values alike, so that what a mask changed can be seen."""
    return np.random.default_rng(seed).normal(-3, 2, (count, frames, bins)).astype(np.float32)


def masked_by(
    stage: FeatureStage, features: np.ndarray, num_frames: Any = None, *, ids: Any = None, seed: int = 0, epoch: int = 0
) -> np.ndarray:
    import tensorflow as tf

    draws = Draws(seed, epoch, np.arange(len(features)) if ids is None else ids)
    frames = np.full(len(features), features.shape[1]) if num_frames is None else np.asarray(num_frames)
    drawn = {name: tf.constant(value) for name, value in stage.prepare(draws).items()}
    return stage.apply(tf.constant(features), tf.constant(frames.astype(np.int32)), drawn).numpy()


def runs(places: np.ndarray) -> list[int]:
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.r_[0, places.astype(int), 0]))
    return (edges[1::2] - edges[::2]).tolist()


@pytest.mark.parametrize(
    ("stage", "shape", "axis", "widest"),
    [(SpecAugment(1, 20, 0, 0), (60, 3), 1, 20), (SpecAugment(0, 0, 1, 7), (3, 30), 2, 7)],
)
def test_masks_have_the_widths_and_starts_asked_for(
    stage: FeatureStage, shape: tuple[int, int], axis: int, widest: int
) -> None:
    before = features_of(4000, *shape)
    changed = np.moveaxis(masked_by(stage, before) != before, axis, 1)
    assert (changed == changed[:, :, :1]).all()  # whole frames, or one band in all frames
    masked = changed[:, :, 0]
    assert all(len(runs(row)) <= 1 for row in masked)
    widths = masked.sum(axis=1)
    assert stats.chisquare(np.bincount(widths, minlength=widest + 1)).pvalue > 1e-3
    some = widths > 0
    starts = masked[some].argmax(axis=1)
    assert stats.kstest(starts / (shape[axis - 1] + 1 - widths[some]), "uniform").pvalue > 1e-4


def test_as_many_masks_as_asked_at_most_and_often() -> None:
    before = features_of(1000, 200, 60)
    changed = masked_by(SpecAugment(3, 10, 2, 4), before) != before
    time_runs = [len(runs(row.all(axis=1))) for row in changed]
    bin_runs = [len(runs(row.all(axis=0))) for row in changed]
    assert max(time_runs) == 3
    assert max(bin_runs) == 2
    assert np.mean(np.array(time_runs) == 3) > 0.4


def test_cutouts_are_rectangles_of_the_sizes_asked_for() -> None:
    before = features_of(4000, 50, 30)
    changed = masked_by(SpecCutout(1, 12, 6), before) != before
    heights, widths = changed.any(axis=2).sum(axis=1), changed.any(axis=1).sum(axis=1)
    assert (changed.sum(axis=(1, 2)) == heights * widths).all()
    assert all(len(runs(row)) <= 1 for row in changed.any(axis=2))
    assert heights.max() == 12
    assert widths.max() == 6
    # empty when either side is; the sides are independent
    counts = np.zeros((12, 6))
    for height, width in zip(heights, widths, strict=True):
        if height:
            counts[height - 1, width - 1] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    assert stats.binomtest(int((heights > 0).sum()), 4000, 12 / 13 * 6 / 7).pvalue > 1e-3


@pytest.mark.parametrize("name", ["spec_augment", "spec_cutout"])
def test_the_fill_is_the_clips_mean_without_its_padding(name: str) -> None:
    lengths = np.array([98, 40, 7, 60] * 10)
    before = features_of(40)
    before[np.arange(FRAMES) >= lengths[:, None]] = -1000.0
    after = masked_by(STAGES[name](), before, lengths)
    for clip, row, length in zip(before, after, lengths, strict=True):
        filled = row[:length][row[:length] != clip[:length]]
        np.testing.assert_allclose(filled, clip[:length].mean(), rtol=1e-4)
    assert (after != before).any(axis=(1, 2)).mean() > 0.8


@pytest.mark.parametrize("stage", [SpecAugment(2, 25, 0, 0), SpecCutout(3, 20, 8)])
def test_masks_in_time_lie_within_the_clips_frames(stage: FeatureStage) -> None:
    lengths = np.arange(200) % FRAMES + 1
    before = features_of(200)
    changed = (masked_by(stage, before, lengths) != before).any(axis=2)
    assert not changed[np.arange(FRAMES) >= lengths[:, None]].any()


def test_short_clips_are_not_mostly_masked_away() -> None:
    before = features_of(2000)
    changed = masked_by(SpecAugment(1, 25, 0, 0), before, np.full(2000, 10)) != before
    whole = (changed[:, :10, 0]).all(axis=1).mean()
    assert whole == pytest.approx(1 / 11, abs=0.03)  # widths are uniform up to the clip's own length


@pytest.mark.parametrize("name", STAGES)
def test_features_are_augmented_alike_whatever_stands_beside_them(name: str) -> None:
    ids = np.array([5, 900, 7, 44, 123456])
    lengths = np.array([98, 50, 3, 98, 71])
    before = features_of(5)
    together = masked_by(STAGES[name](), before, lengths, ids=ids)
    for row, length in enumerate(lengths):
        chosen = slice(row, row + 1)
        alone = masked_by(STAGES[name](), before[chosen, :length], lengths[chosen], ids=ids[chosen])
        np.testing.assert_allclose(together[row, :length], alone[0], rtol=1e-4)


@pytest.mark.parametrize("name", STAGES)
def test_draws_depend_on_seed_epoch_id_and_name(name: str) -> None:
    before = features_of(20)
    first = masked_by(STAGES[name](), before)
    np.testing.assert_array_equal(first, masked_by(STAGES[name](), before))
    for options in ({"seed": 1}, {"epoch": 1}, {"ids": np.arange(20) + 99}):
        assert (masked_by(STAGES[name](), before, **options) != first).any(axis=(1, 2)).mean() > 0.8
    chain = Augmentation(features={"one": STAGES[name](), "two": STAGES[name]()})
    empty: Any = None  # features need neither batch nor context
    drawn = chain.prepare(empty, Draws(0, 0, np.arange(20)), empty)
    for parameter in STAGES[name]().parameter_shapes():
        assert (drawn[f"one/{parameter}"] != drawn[f"two/{parameter}"]).all()


@pytest.mark.parametrize(
    "stage", [SpecAugment(2, 9, 3, 4), SpecAugment(0, 9, 0, 4), SpecCutout(2, 5, 5), SpecCutout(0, 5, 5)]
)
def test_parameters_are_as_declared(stage: FeatureStage) -> None:
    drawn = stage.prepare(Draws(0, 0, np.arange(6)))
    drawn_as = {name: (str(value.dtype), value.shape) for name, value in drawn.items()}
    assert drawn_as == {name: (dtype, (6, *shape)) for name, (dtype, shape) in stage.parameter_shapes().items()}
    before = features_of(6)
    assert masked_by(stage, before).shape == before.shape


@pytest.mark.parametrize(
    "stage", [SpecAugment(0, 9, 0, 4), SpecAugment(3, 0, 3, 0), SpecCutout(0, 5, 5), SpecCutout(4, 0, 5)]
)
def test_masks_of_nothing_change_nothing(stage: FeatureStage) -> None:
    before = features_of(10)
    np.testing.assert_array_equal(masked_by(stage, before), before)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_never_more_is_masked_than_asked(data: Any) -> None:
    import tensorflow as tf

    # of one bin and one frame the fill, a mean, is the value itself, and what is masked does not show
    frames, bins = data.draw(st.integers(1, 30)), data.draw(st.integers(2, 12))
    count, max_frames, max_bins = (data.draw(st.integers(0, high)) for high in (3, 40, 20))
    # 1.0 is what a draw next to 1 becomes as float32
    place = st.sampled_from([0.0, 0.25, 0.5, np.float32(1 - 2**-24), 1.0])
    length = data.draw(st.integers(1, frames))
    before = features_of(1, frames, bins)
    augment = {
        "time": np.array(data.draw(st.lists(st.tuples(place, place), min_size=count, max_size=count)), np.float32),
        "frequency": np.array(data.draw(st.lists(st.tuples(place, place), min_size=count, max_size=count)), np.float32),
    }
    drawn = {name: tf.constant(value.reshape(1, count, 2)) for name, value in augment.items()}
    lengths = tf.constant([length])
    after = SpecAugment(count, max_frames, count, max_bins).apply(before, lengths, drawn).numpy()
    assert np.isfinite(after).all()
    changed = (after != before)[0]
    by_time, by_bin = changed.all(axis=1), changed.all(axis=0)
    if not by_bin.all():
        assert by_time.sum() <= count * max_frames
        assert not by_time[length:].any()
    if not by_time.all():
        assert by_bin.sum() <= count * max_bins
    rectangles = tf.concat([drawn["time"], drawn["frequency"]], axis=2)
    cut = SpecCutout(count, max_frames, max_bins).apply(before, lengths, {"rectangles": rectangles}).numpy()[0]
    assert (cut != before[0]).sum() <= count * min(max_frames, length) * min(max_bins, bins)
    np.testing.assert_array_equal(cut[length:], before[0, length:])


def test_a_warp_moves_a_tone_by_its_factor_and_keeps_the_ends() -> None:
    import tensorflow as tf

    before = np.tile(np.arange(BINS, dtype=np.float32), (3, FRAMES, 1))  # each bin holds its own number
    after = FrequencyWarp().apply(tf.constant(before), None, {"factor": tf.constant([0.9, 1.0, 1.1])}).numpy()
    np.testing.assert_allclose(after[1], before[1], atol=1e-4)
    np.testing.assert_allclose(after[[0, 2]][:, :, [0, -1]], before[[0, 2]][:, :, [0, -1]], atol=1e-4)
    for row, factor in ((0, 0.9), (2, 1.1)):  # what is at 10 × factor was at 10
        np.testing.assert_allclose(np.interp(10 * factor, np.arange(BINS), after[row, 0]), 10, atol=1e-4)
        assert (np.diff(after[row, 0]) > 0).all()


def test_as_many_clips_as_asked_are_warped() -> None:
    before = features_of(2000, 4, 12)
    warped = (masked_by(FrequencyWarp((0.9, 1.1), 0.4), before) != before).any(axis=(1, 2))
    assert warped.mean() == pytest.approx(0.4, abs=0.04)
