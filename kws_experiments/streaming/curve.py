"""Misses against false accepts an hour, over all thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kws_data.catalog import SILENCE, UNKNOWN
from kws_experiments.streaming.listener import Detection
from kws_experiments.streaming.matching import CORRECT, FALSE_ACCEPT, WRONG, Spoken, match
from kws_experiments.streaming.recognize import RecognizerSettings, Smoother, Trigger

# Scores crowd below 1, and with them the thresholds that make a difference.
THRESHOLDS = (*np.round(np.arange(0, 0.99, 0.01), 2).tolist(), 0.985, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
FALSE_ACCEPTS_PER_HOUR = (0, 1, 2, 5, 10, 20, 50)


class Smoothed(NamedTuple):
    """The top of the averaged scores at each window: everything before a threshold.

    Attributes:
        times_ms: [windows] whole milliseconds.
        indices: [windows] of the labels; UNRELIABLE where there was too little to average.
        scores: [windows].
    """

    times_ms: list[int]
    indices: list[int]
    scores: list[float]


def smooth(times_ms: Sequence[int], scores: np.ndarray, settings: RecognizerSettings) -> Smoothed:
    """Average the windows' scores [windows, labels] as a `Recognizer` with these settings does."""
    smoother = Smoother(scores.shape[1], settings)
    tops = [smoother.top(time_ms, row) for time_ms, row in zip(times_ms, scores, strict=True)]
    return Smoothed(list(times_ms), [index for index, _ in tops], [score for _, score in tops])


def detect(smoothed: Smoothed, labels: Sequence[str], settings: RecognizerSettings) -> list[Detection]:
    """The keywords that a `Listener` with these settings would detect."""
    trigger = Trigger(labels, settings)
    return [
        Detection(time_ms, labels[index], score)
        for time_ms, index, score in zip(*smoothed, strict=True)
        if trigger.fires(time_ms, index, score) and labels[index] not in (SILENCE, UNKNOWN)
    ]


def threshold_curve(
    smoothed: Smoothed,
    labels: Sequence[str],
    settings: RecognizerSettings,
    truth: Sequence[Spoken],
    *,
    hours: float,
    tolerance_ms: float,
) -> pd.DataFrame:
    """A row per threshold: `threshold`, `correct`, `wrong`, `false_accepts`, `miss_rate`, `false_accepts_per_hour`.

    Misses are of the keywords said; both wrong detections and false accepts are left out of them.
    """
    keywords = [label for label in labels if label not in (SILENCE, UNKNOWN)]
    said = sum(word.word in keywords for word in truth)
    rows = []
    for threshold in THRESHOLDS:
        detections = detect(smoothed, labels, replace(settings, detection_threshold=threshold))
        matching = match([(time_ms, word) for time_ms, word, _ in detections], truth, keywords, tolerance_ms)
        correct, false_accepts = matching.count(CORRECT), matching.count(FALSE_ACCEPT)
        rows.append(
            {
                "threshold": threshold, "correct": correct, "wrong": matching.count(WRONG),
                "false_accepts": false_accepts, "miss_rate": 1 - correct / said,
                "false_accepts_per_hour": false_accepts / hours,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def operating_points(curve: pd.DataFrame) -> list[dict[str, Any]]:
    """The fewest misses with at most so many false accepts an hour, and the threshold for it; None where none is."""
    points = []
    for allowed in FALSE_ACCEPTS_PER_HOUR:
        good = curve[curve["false_accepts_per_hour"] <= allowed].sort_values(["miss_rate", "threshold"])
        best = None if good.empty else good.iloc[0]
        points.append(
            {
                "false_accepts_per_hour_at_most": allowed,
                "threshold": None if best is None else float(best["threshold"]),
                "miss_rate": None if best is None else float(best["miss_rate"]),
            }
        )
    return points
