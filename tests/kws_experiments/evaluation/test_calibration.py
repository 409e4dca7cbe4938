from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from kws_experiments.evaluation.calibration import BINS, calibration, reliability
from tests.predictions import LABELS, predicted


@given(predicted())
def test_metrics_are_scikit_learns(predictions: pd.DataFrame) -> None:
    scores = predictions[[f"score_{label}" for label in LABELS]].to_numpy()
    truth = pd.Index(LABELS).get_indexer(predictions["label"])

    metrics, table = calibration(scores, truth)

    confidence, right = scores.max(axis=1).astype(np.float64), scores.argmax(axis=1) == truth
    accuracy, sure = calibration_curve(right, confidence.clip(0, 1), n_bins=BINS)
    filled = table[table["clips"] > 0]
    np.testing.assert_allclose(filled["accuracy"], accuracy)
    np.testing.assert_allclose(filled["confidence"], sure, atol=1e-6)
    assert table["clips"].sum() == len(truth)
    expected = np.average(np.abs(accuracy - sure), weights=filled["clips"])
    assert metrics["expected_calibration_error"] == pytest.approx(expected, abs=1e-6)
    assert metrics["maximum_calibration_error"] == pytest.approx(np.abs(accuracy - sure).max(), abs=1e-6)
    exact = scores.astype(np.float64) / scores.sum(axis=1, keepdims=True, dtype=np.float64)
    assert metrics["brier"] == pytest.approx(
        brier_score_loss(truth, exact, labels=range(4), scale_by_half=False), abs=1e-5
    )
    assert metrics["log_loss"] == pytest.approx(log_loss(truth, scores, labels=range(4)), rel=1e-4, abs=1e-5)
    json.dumps(metrics, allow_nan=False)


def test_an_example_by_hand() -> None:
    confidence, right = np.array([0.55, 0.6, 0.91, 0.99, 1.0]), np.array([1, 0, 1, 1, 0], bool)

    table = reliability(confidence, right, bins=10)

    assert table["clips"].tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert table["accuracy"].iloc[[5, 9]].tolist() == pytest.approx([0.5, 2 / 3])
    assert table["confidence"].iloc[[5, 9]].tolist() == pytest.approx([0.575, 2.9 / 3])


def test_scores_drawn_as_they_say_are_calibrated() -> None:
    generator = np.random.default_rng(0)
    scores = generator.dirichlet([0.5] * 4, 20_000)
    truth = (scores.cumsum(axis=1) < generator.random((20_000, 1))).sum(axis=1)

    honest, _ = calibration(scores, truth)
    sharpened = scores**3 / (scores**3).sum(axis=1, keepdims=True)
    boastful, _ = calibration(sharpened, truth)

    assert honest["expected_calibration_error"] < 0.02
    assert boastful["expected_calibration_error"] > 0.08
    assert boastful["log_loss"] > honest["log_loss"]
