from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kws_data.augment.mixup import Mixup
from tests.kws_data.augment.clips import MANY, MOVING_ROWS, augmented, batch_of, drawn_by, tiny


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_weights_are_of_the_beta_distribution(alpha: float) -> None:
    batch = tiny(samples=4)
    weights = drawn_by(Mixup(alpha, 0.7), batch, clip_samples=4)["weight"]
    assert batch.label_weights is not None
    np.testing.assert_array_equal(weights, batch.label_weights)
    mixed = weights < 1
    if alpha >= 1:  # below, many weights are so close to 1 as to be 1
        assert stats.binomtest(int(mixed.sum()), MANY, 0.7).pvalue > 1e-3
    beta = stats.beta(alpha, alpha)
    for weight in (0.6, 0.8, 0.95):
        expected = 0.7 * (beta.cdf(weight) - beta.cdf(1 - weight))
        assert stats.binomtest(int((weights < weight).sum()), MANY, expected).pvalue > 1e-3
    assert weights.min() >= 0.5


def test_mixup_mixes_clips_and_labels_alike() -> None:
    silence = np.arange(300) % 3 == 0
    batch = batch_of([MOVING_ROWS[row % 40] for row in range(300)], silence=silence)
    before = batch.pcm / 32768
    labels = batch.labels.copy()
    stage = Mixup(0.5, 1.0)
    drawn = drawn_by(stage, batch)
    after = stage.apply(before.astype(np.float32), drawn).numpy()
    assert batch.second_labels is not None
    assert batch.label_weights is not None
    np.testing.assert_array_equal(batch.labels, labels)
    np.testing.assert_array_equal(batch.label_weights[silence], 1)
    np.testing.assert_array_equal(after[silence], before[silence].astype(np.float32))
    # every partner is one clip of the pool, and its label comes with it
    for row in np.flatnonzero(~silence):
        partner = np.flatnonzero((MOVING_ROWS[:, :50] == drawn["partner"][row, :50]).all(axis=1))
        assert batch.second_labels[row] in {example % 7 for example in range(100, 140) if example % 40 == partner[0]}
        weight = batch.label_weights[row]
        expected = weight * before[row] + (1 - weight) * MOVING_ROWS[partner[0]] / 32768
        np.testing.assert_allclose(after[row], expected, atol=1e-6)
    assert len(np.unique(drawn["partner"][:, :50], axis=0)) > 35


def test_without_words_nothing_is_mixed() -> None:
    batch = tiny(10)
    before = batch.pcm / np.float32(32768)
    np.testing.assert_array_equal(augmented(Mixup(0.5, 1.0), batch, clip_samples=400, words=[]), before)
    assert batch.second_labels is None
