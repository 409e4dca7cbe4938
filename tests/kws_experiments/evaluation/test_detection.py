from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from sklearn.metrics import det_curve, roc_auc_score, roc_curve

from kws_experiments.evaluation.detection import (
    COLUMNS,
    FALSE_ACCEPT_RATES,
    MOST_POINTS,
    curve,
    detection,
    equal_error_rate,
    false_reject_rate_at,
    miss_rate,
)
from tests.predictions import LABELS, predicted


@st.composite
def scored(draw: st.DrawFn, most: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """(scores [clips], own [clips]), both kinds of clips among them, often with equal scores."""
    clips = draw(st.integers(2, most))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    own = generator.random(clips) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    own[:2] = [True, False]
    scores = np.round(generator.random(clips) + own * draw(st.sampled_from([-2, 0, 0.5, 2])), draw(st.integers(0, 6)))
    return (scores / 4 + 0.5).astype(draw(st.sampled_from([np.float32, np.float64]))), own


@given(scored())
def test_the_curve_is_scikit_learns(data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, own = data

    points = curve(scores, own)

    assert points is not None
    false_accepts, detected, thresholds = roc_curve(own, scores, drop_intermediate=False)
    np.testing.assert_allclose(points.false_accept_rate, false_accepts, atol=1e-12)
    np.testing.assert_allclose(points.true_positive_rate, detected, atol=1e-12)
    np.testing.assert_array_equal(points.threshold[1:], thresholds[1:])
    assert not (scores >= points.threshold[0]).any()
    accepts, rejects, _ = det_curve(own, scores, drop_intermediate=False)
    rates = np.stack([points.false_accept_rate, points.false_reject_rate], axis=1)
    assert {tuple(row) for row in np.stack([accepts, rejects], axis=1).round(9)} <= {
        tuple(row) for row in rates.round(9)
    }


@given(scored())
def test_equal_error_rate_lies_where_the_curve_crosses_the_diagonal(data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, own = data
    points = curve(scores, own)
    assert points is not None

    rate, threshold = equal_error_rate(points)

    # Walk along the curve in small steps: no place is nearer to equal rates.
    accepts, detected, _ = roc_curve(own, scores, drop_intermediate=False)
    fine = np.linspace(0, len(accepts) - 1, 200 * (len(accepts) - 1) + 1)
    x, y = (np.interp(fine, np.arange(len(accepts)), values) for values in (accepts, 1 - detected))
    nearest = np.argmin(np.abs(x - y))
    assert rate == pytest.approx((x[nearest] + y[nearest]) / 2, abs=0.01)
    # At the threshold false rejects are at most as frequent as false accepts, and at no higher one.
    assert (scores[own] < threshold).mean() <= (scores[~own] >= threshold).mean() + 1e-12
    for higher in np.unique(scores[scores > threshold]):
        assert (scores[own] < higher).mean() > (scores[~own] >= higher).mean()


@given(scored(), st.sampled_from([0.0, 0.01, 0.1, 1 / 3, 0.5, 1.0]))
def test_false_reject_rate_at_a_false_accept_rate_is_the_best_there_is(
    data: tuple[np.ndarray, np.ndarray], allowed: float
) -> None:
    scores, own = data
    points = curve(scores, own)
    assert points is not None
    possible = [
        (scores[own] < threshold).mean()
        for threshold in [*scores, 2.0]
        if (scores[~own] >= threshold).mean() <= allowed
    ]
    assert false_reject_rate_at(points, allowed) == pytest.approx(min(possible))


@settings(max_examples=60)
@given(predicted())
def test_whatever_the_predictions_metrics_are_scikit_learns_or_none(predictions: pd.DataFrame) -> None:
    scores = predictions[[f"score_{label}" for label in LABELS]].to_numpy()
    truth = pd.Index(LABELS).get_indexer(predictions["label"])

    metrics, table = detection(scores, truth, LABELS)

    assert list(metrics["keywords"]) == ["yes", "no"]
    assert list(table.columns) == COLUMNS
    for index, label in ((2, "yes"), (3, "no")):
        values, own = metrics["keywords"][label], truth == index
        assert values["clips"] + values["others"] == len(truth)
        if own.all() or not own.any():
            assert values["auc"] is values["equal_error_rate"] is values["threshold"] is None
            assert label not in set(table["keyword"])
        else:
            assert values["auc"] == pytest.approx(roc_auc_score(own, scores[:, index]))
            assert list(values["false_reject_rate_at"]) == [f"{rate:g}" for rate in FALSE_ACCEPT_RATES]
            rows = table[table["keyword"] == label]
            assert rows["false_accept_rate"].iloc[[0, -1]].tolist() == [0, 1]
    known = [values["auc"] for values in metrics["keywords"].values() if values["auc"] is not None]
    assert metrics["mean_auc"] == (pytest.approx(np.mean(known)) if known else None)


def test_a_long_curve_is_thinned_to_points_of_its_own_that_keep_its_shape() -> None:
    generator = np.random.default_rng(0)
    own = generator.random(20_000) < 0.1
    scores = np.zeros((20_000, 4), np.float32)
    scores[:, 2] = 1 / (1 + np.exp(-generator.normal(0, 1, 20_000) - 3 * own))
    truth = np.where(own, 2, 1)

    _, table = detection(scores, truth, LABELS)

    rows = table[table["keyword"] == "yes"]
    assert 100 < len(rows) <= MOST_POINTS
    for row in rows.itertuples():
        detected = scores[:, 2] >= row.threshold
        assert row.false_accept_rate == pytest.approx(detected[~own].mean())
        assert row.false_reject_rate == pytest.approx((~detected)[own].mean())
        assert row.true_positive_rate == pytest.approx(detected[own].mean())
    accepts, detected, _ = roc_curve(own, scores[:, 2], drop_intermediate=False)
    kept = rows[["false_accept_rate", "true_positive_rate"]].to_numpy()
    fine = np.arange(0, len(kept) - 1, 0.02)
    along = np.stack([np.interp(fine, np.arange(len(kept)), column) for column in kept.T], axis=1)
    distances, _ = cKDTree(along).query(np.stack([accepts, detected], axis=1))
    assert distances.max() < 0.01
    assert (rows["false_accept_rate"].between(1e-9, 0.01)).sum() > 20  # where detectors are used


def test_the_miss_rate_is_the_mean_of_the_keywords() -> None:
    generator = np.random.default_rng(0)
    scores, truth = generator.dirichlet(np.ones(4), 200), generator.integers(0, 4, 200)
    labels = ["_silence_", "_unknown_", "yes", "no"]
    keywords = detection(scores, truth, labels)[0]["keywords"].values()
    for rate in FALSE_ACCEPT_RATES:
        missed = [keyword["false_reject_rate_at"][f"{rate:g}"] for keyword in keywords]
        assert miss_rate(scores, truth, labels, rate) == pytest.approx(np.mean(missed))
    assert np.isnan(miss_rate(np.full_like(scores, np.nan), truth, labels, 0.01))
    assert np.isnan(miss_rate(scores[:1], truth[:1], labels, 0.01))
