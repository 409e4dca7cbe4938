"""Decision thresholds: a keyword is detected where its score reaches its threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kws_data.catalog import SILENCE, UNKNOWN


def keyword_thresholds(
    scores: np.ndarray, truth: np.ndarray, labels: Sequence[str], false_accept_rate: float
) -> dict[str, float]:
    """For each keyword the lowest threshold that keeps to a rate of false accepts.

    Args:
        scores: [clips, labels], softmax.
        truth: [clips], the clips' labels as indices.
        labels: class names; silence and unknown get no threshold.
        false_accept_rate: the highest that is allowed, as a fraction of the clips that are not the keyword.
    """
    return {
        label: lowest_threshold(scores[truth != index, index], false_accept_rate)
        for index, label in keyword_columns(labels)
    }


def lowest_threshold(others: np.ndarray, false_accept_rate: float) -> float:
    """The lowest threshold that at most this fraction of other clips' scores, [clips], reaches."""
    others = np.sort(others)[::-1]
    allowed = sum(count / len(others) <= false_accept_rate for count in range(1, len(others) + 1))
    # just above the first score that would be one too many, in the scores' own type
    above = np.nextafter(others, others.dtype.type(np.inf))
    return float(above[allowed]) if allowed < len(others) else 0.0


def rates_at_thresholds(
    scores: np.ndarray, truth: np.ndarray, labels: Sequence[str], thresholds: Mapping[str, float]
) -> dict[str, dict[str, float | None]]:
    """For each keyword: `threshold`, `false_accept_rate` (of other clips) and `false_reject_rate` (of its own).

    Args are as in `keyword_thresholds`. The rate of no clips is None.
    """
    rates: dict[str, dict[str, float | None]] = {}
    for index, label in keyword_columns(labels):
        detected, own = scores[:, index] >= thresholds[label], truth == index
        rates[label] = {
            "threshold": thresholds[label],
            "false_accept_rate": float(detected[~own].mean()) if (~own).any() else None,
            "false_reject_rate": float((~detected[own]).mean()) if own.any() else None,
        }
    return rates


def keyword_columns(labels: Sequence[str]) -> list[tuple[int, str]]:
    """(index, name) of the labels that are keywords."""
    return [(index, label) for index, label in enumerate(labels) if label not in (SILENCE, UNKNOWN)]
