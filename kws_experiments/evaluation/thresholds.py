"""Decision thresholds: a keyword counts as heard where its score reaches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kws_data.catalog import SILENCE, UNKNOWN


def keyword_thresholds(
    scores: np.ndarray, truth: np.ndarray, labels: Sequence[str], false_accept_rate: float
) -> dict[str, float]:
    """For each keyword the lowest threshold that other clips reach at most so often.

    Args:
        scores: [clips, labels], softmax.
        truth: [clips], the clips' labels as indices.
        labels: class names; silence and unknown get no threshold.
        false_accept_rate: of the clips that aren't the keyword.
    """
    thresholds = {}
    for index, label in keyword_columns(labels):
        others = np.sort(scores[truth != index, index])[::-1]
        allowed = sum(count / len(others) <= false_accept_rate for count in range(1, len(others) + 1))
        # Just above the first score that is one too many, as the scores' own type can tell it.
        above = np.nextafter(others, others.dtype.type(np.inf))
        thresholds[label] = float(above[allowed]) if allowed < len(others) else 0.0
    return thresholds


def rates_at_thresholds(
    scores: np.ndarray, truth: np.ndarray, labels: Sequence[str], thresholds: Mapping[str, float]
) -> dict[str, dict[str, float | None]]:
    """For each keyword: `threshold`, `false_accept_rate` (of other clips) and `false_reject_rate` (of its own).

    Args are as of `keyword_thresholds`; a rate of no clips is None.
    """
    rates: dict[str, dict[str, float | None]] = {}
    for index, label in keyword_columns(labels):
        heard, own = scores[:, index] >= thresholds[label], truth == index
        rates[label] = {
            "threshold": thresholds[label],
            "false_accept_rate": float(heard[~own].mean()) if (~own).any() else None,
            "false_reject_rate": float((~heard[own]).mean()) if own.any() else None,
        }
    return rates


def keyword_columns(labels: Sequence[str]) -> list[tuple[int, str]]:
    """(index, name) of the labels that are keywords."""
    return [(index, label) for index, label in enumerate(labels) if label not in (SILENCE, UNKNOWN)]
