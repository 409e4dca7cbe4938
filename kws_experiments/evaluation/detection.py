"""Each keyword as a detector: it is detected where its score (softmax) reaches a threshold.

A keyword's own clips are the positives, all other clips the negatives, silence and unknown words among them. Here a
rate is a fraction of clips; false accepts per hour need a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri
from sklearn.metrics import auc, confusion_matrix_at_thresholds

from kws_experiments.evaluation.thresholds import keyword_columns

MOST_POINTS = 200  # of a curve in the table
FALSE_ACCEPT_RATES = (0.001, 0.01, 0.05)
_POINT = ["threshold", "false_accept_rate", "false_reject_rate", "true_positive_rate"]
COLUMNS = ["keyword", *_POINT]
_MEANS = ("auc", "equal_error_rate")


@dataclass(frozen=True)
class Curve:
    """A keyword's ROC and DET curve: [points] each, one per distinct score from the highest down, after one above all.

    Attributes:
        threshold: a clip is accepted where its score is at least so high; the first lies just above the highest
            score, so that nothing is accepted.
        false_accepts: how many other clips reach it.
        true_accepts: how many of the keyword's own.
    """

    threshold: np.ndarray
    false_accepts: np.ndarray
    true_accepts: np.ndarray

    @property
    def false_accept_rate(self) -> np.ndarray:
        """Of the other clips; it rises from 0 to 1. Also called false positive rate, the x of ROC and DET curves."""
        return self.false_accepts / self.false_accepts[-1]

    @property
    def true_positive_rate(self) -> np.ndarray:
        """Of the keyword's own clips; it rises from 0 to 1; the y of an ROC curve."""
        return self.true_accepts / self.true_accepts[-1]

    @property
    def false_reject_rate(self) -> np.ndarray:
        """Of the keyword's own clips; it falls from 1 to 0; the y of a DET curve."""
        return 1 - self.true_positive_rate


def curve(scores: np.ndarray, own: np.ndarray) -> Curve | None:
    """The curve of one keyword; None if it has no clip, or if there is no other clip.

    Args:
        scores: [clips], the keyword's.
        own: [clips] bool, whether the clip is the keyword.
    """
    if own.all() or not own.any():
        return None
    _, false_accepts, _, true_accepts, threshold = confusion_matrix_at_thresholds(own, scores)
    above = np.nextafter(threshold[:1], threshold.dtype.type(np.inf))
    return Curve(np.append(above, threshold), np.append(0, false_accepts), np.append(0, true_accepts))


def equal_error_rate(points: Curve) -> tuple[float, float]:
    """The rate at which false accepts and false rejects are equally frequent, and a threshold for it.

    Between two points of the curve both rates are interpolated on a straight line. The threshold is the higher one at
    which false rejects are no more frequent than false accepts.
    """
    others, own = points.false_accepts[-1], points.true_accepts[-1]
    # rejects minus accepts times the clips of both kinds: whole numbers, so that equal rates are equal
    ahead = (own - points.true_accepts) * others - points.false_accepts * own
    after = int(np.argmax(ahead <= 0))
    part = ahead[after - 1] / (ahead[after - 1] - ahead[after])
    accepts = points.false_accept_rate
    rate = accepts[after - 1] + part * (accepts[after] - accepts[after - 1])
    return float(rate), float(points.threshold[after])


def false_reject_rate_at(points: Curve, false_accept_rate: float) -> float:
    """The lowest false reject rate of a threshold that other clips reach at most so often."""
    within = np.searchsorted(points.false_accept_rate, false_accept_rate, side="right") - 1
    return float(points.false_reject_rate[within])


def miss_rate(scores: np.ndarray, truth: np.ndarray, labels: Sequence[str], false_accept_rate: float) -> float:
    """The mean of the keywords' lowest false reject rates, where other clips pass at most so often.

    Args are as in `detection`. NaN where scores are not finite, no keyword has clips, or there are no others.
    """
    if not np.isfinite(scores).all():
        return float("nan")
    curves = [curve(scores[:, index], truth == index) for index, _ in keyword_columns(labels)]
    rates = [false_reject_rate_at(points, false_accept_rate) for points in curves if points is not None]
    return float(np.mean(rates)) if rates else float("nan")


def detection(scores: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics per keyword, and the curves as a table.

    Args:
        scores: [clips, labels], softmax.
        truth: [clips], the clips' labels as indices.
        labels: class names; silence and unknown are no keywords.

    Returns:
        `mean_auc` and `mean_equal_error_rate` (over the keywords that have them), and `keywords`: for each `clips` and
        `others`, `auc`, `equal_error_rate`, its `threshold`, `false_reject_rate_at` false accept rates; None where
        there are no clips. The table has COLUMNS, at most MOST_POINTS rows per keyword.
    """
    keywords: dict[str, dict[str, Any]] = {}
    tables = [pd.DataFrame({name: np.array([], str if name == "keyword" else float) for name in COLUMNS})]
    for index, label in keyword_columns(labels):
        own = truth == index
        points = curve(scores[:, index], own)
        keywords[label] = {"clips": int(own.sum()), "others": int((~own).sum())} | _metrics(points)
        if points is not None:
            tables.append(_thinned(points).assign(keyword=label)[COLUMNS])
    known = {name: [value[name] for value in keywords.values() if value[name] is not None] for name in _MEANS}
    means = {f"mean_{name}": float(np.mean(values)) if values else None for name, values in known.items()}
    return means | {"keywords": keywords}, pd.concat(tables, ignore_index=True)


def _metrics(points: Curve | None) -> dict[str, Any]:
    names = {f"{rate:g}": rate for rate in FALSE_ACCEPT_RATES}
    if points is None:
        rates = dict.fromkeys(names)
        return {"auc": None, "equal_error_rate": None, "threshold": None, "false_reject_rate_at": rates}
    rate, threshold = equal_error_rate(points)
    return {
        "auc": float(auc(points.false_accept_rate, points.true_positive_rate)),
        "equal_error_rate": rate,
        "threshold": threshold,
        "false_reject_rate_at": {name: false_reject_rate_at(points, rate) for name, rate in names.items()},
    }


def _thinned(points: Curve) -> pd.DataFrame:
    """The corners of the curve; if they are more than MOST_POINTS, those evenly spaced along a DET curve.

    Its axes are normal deviates, which spread out the low rates that matter.
    """
    bends = (np.diff(points.false_accepts, 2) != 0) | (np.diff(points.true_accepts, 2) != 0)
    kept = np.flatnonzero(np.concatenate([[True], bends, [True]]))
    if len(kept) > MOST_POINTS:
        along = np.zeros(len(kept))
        for counts in (points.false_accepts, points.true_accepts):
            deviates = ndtri((counts[kept] + 0.5) / (counts[-1] + 1))  # half a clip away from 0 and 1
            along[1:] += np.cumsum(np.abs(np.diff(deviates)))
        nearest = np.searchsorted(along, np.linspace(0, along[-1], MOST_POINTS))
        kept = kept[np.unique(np.append(nearest[:-1], len(kept) - 1))]
    return pd.DataFrame({name: getattr(points, name)[kept].astype(np.float64) for name in _POINT})
