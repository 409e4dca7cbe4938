"""Whether scores are calibrated: reliability diagram, expected calibration error, Brier score, log loss."""

from __future__ import annotations

import numpy as np
import pandas as pd

BINS = 15  # as Guo et al., 'On calibration of modern neural networks', arXiv:1706.04599


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Accuracy by confidence, which is the highest score: a row per bin, the empty ones too.

    Args:
        confidence: [clips], from 0 to 1.
        right: [clips] bool.
        bins: of equal width; each holds its upper end.

    Returns:
        `low`, `high`, `clips`, `confidence` (mean; NaN in an empty bin) and `accuracy` (likewise).
    """
    edges = np.linspace(0, 1, bins + 1)
    index = np.searchsorted(edges[1:-1], confidence)
    clips = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0/0 in an empty bin
        return pd.DataFrame(
            {
                "low": edges[:-1],
                "high": edges[1:],
                "clips": clips,
                "confidence": np.bincount(index, confidence, minlength=bins) / clips,
                "accuracy": np.bincount(index, right, minlength=bins) / clips,
            }
        )


def calibration(scores: np.ndarray, truth: np.ndarray) -> tuple[dict[str, float | int], pd.DataFrame]:
    """Metrics, and the reliability diagram as a table.

    Args:
        scores: [clips, labels], softmax.
        truth: [clips], the clips' labels as indices.

    Returns:
        `mean_confidence`; `expected_calibration_error`, the mean over clips of how far their bin's confidence and
        accuracy are apart, and `maximum_calibration_error`, the largest such distance (arXiv:1706.04599; few clips in
        a bin make the latter large by chance); `brier`, the mean over clips of the squared error summed over
        labels (Brier 1950: 0 to 2); `log_loss`, in nats, where scores below the type's epsilon count as epsilon.
    """
    scores = scores.astype(np.float64) if scores.dtype != np.float32 else scores
    confidence = scores.max(axis=1).astype(np.float64)
    table = reliability(confidence, scores.argmax(axis=1) == truth)
    filled = table[table["clips"] > 0]
    gaps = (filled["confidence"] - filled["accuracy"]).abs()
    own = np.maximum(scores[np.arange(len(truth)), truth], np.finfo(scores.dtype).eps).astype(np.float64)
    wanted = np.arange(scores.shape[1]) == truth[:, None]
    metrics = {
        "bins": len(table),
        "mean_confidence": float(confidence.mean()),
        "expected_calibration_error": float((gaps * filled["clips"]).sum() / len(truth)),
        "maximum_calibration_error": float(gaps.max()),
        "brier": float(np.square(scores.astype(np.float64) - wanted).sum(axis=1).mean()),
        "log_loss": float(-np.log(own).mean()),
    }
    return metrics, table
