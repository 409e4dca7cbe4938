"""Misses against false accepts per hour, for all thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kws_experiments.streaming.listener import Detection
from kws_experiments.streaming.matching import CORRECT, FALSE_ACCEPT, WRONG, Spoken, match
from kws_experiments.streaming.recognize import RULES, RecognizerSettings, keywords_of

# Scores crowd just below 1, so the thresholds are denser there.
THRESHOLDS = (*np.round(np.arange(0, 0.99, 0.01), 2).tolist(), 0.985, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
FALSE_ACCEPTS_PER_HOUR = (0, 1, 2, 5, 10, 20, 50)


class Smoothed(NamedTuple):
    """The averaged scores of all windows; no threshold has been applied.

    Attributes:
        times_ms: [windows] float64, whole milliseconds.
        averages: [windows, labels] float64; NaN where there were too few windows to average.
    """

    times_ms: np.ndarray
    averages: np.ndarray


def smooth(times_ms: Sequence[int], scores: np.ndarray, settings: RecognizerSettings) -> Smoothed:
    """Average the scores [windows, labels] as a `Recognizer` with these settings does, all at once."""
    times = np.asarray(times_ms, np.float64)
    first = np.searchsorted(times, times - settings.average_window_ms)
    count = np.arange(1, len(times) + 1) - first
    sums = np.vstack([np.zeros(scores.shape[1]), np.cumsum(scores, axis=0, dtype=np.float64)])
    averages = (sums[1:] - sums[first]) / count[:, None]
    averages[(count < settings.minimum_count) | (times - times[first] < settings.average_window_ms / 4)] = np.nan
    return Smoothed(times, averages)


def detect(smoothed: Smoothed, labels: Sequence[str], settings: RecognizerSettings) -> list[Detection]:
    """The keywords that a `Listener` with these settings detects."""
    rule, keywords, found = RULES[settings.rule](labels, settings), keywords_of(labels), []
    matters = rule.matters(smoothed.averages)
    for time_ms, averages in zip(smoothed.times_ms[matters].tolist(), smoothed.averages[matters], strict=True):
        index = rule.new(time_ms, averages)
        if index is not None and labels[index] in keywords:
            found.append(Detection(int(time_ms), labels[index], float(averages[index])))
    return found


def threshold_curve(
    smoothed: Smoothed,
    labels: Sequence[str],
    settings: RecognizerSettings,
    truth: Sequence[Spoken],
    *,
    hours: float,
    tolerance_ms: float,
) -> pd.DataFrame:
    """Count the outcomes at each of THRESHOLDS.

    Args:
        smoothed: see `smooth`.
        labels: class names.
        settings: of the recognizer; its thresholds are not used: one is tried for all words.
        truth: the words that are spoken, at least one of them a keyword.
        hours: length of the recording.
        tolerance_ms: see `match`.

    Returns:
        one row per threshold: `threshold`, `correct`, `wrong`, `false_accepts`, `miss_rate` (of the spoken keywords,
        those without a correct detection) and `false_accepts_per_hour`.
    """
    keywords = keywords_of(labels)
    spoken = sum(word.word in keywords for word in truth)
    rows = []
    for threshold in THRESHOLDS:
        detections = detect(smoothed, labels, replace(settings, detection_threshold=threshold, thresholds={}))
        outcomes = match(detections, truth, keywords, tolerance_ms).outcomes
        rows.append((threshold, *(outcomes.count(outcome) for outcome in (CORRECT, WRONG, FALSE_ACCEPT))))
    curve = pd.DataFrame(rows, columns=["threshold", "correct", "wrong", "false_accepts"])
    return curve.assign(miss_rate=1 - curve["correct"] / spoken, false_accepts_per_hour=curve["false_accepts"] / hours)


def operating_points(curve: pd.DataFrame) -> list[dict[str, Any]]:
    """For each of FALSE_ACCEPTS_PER_HOUR the lowest miss rate within it, and its threshold; None where there is none.

    Args:
        curve: see `threshold_curve`.
    """
    points = []
    for allowed in FALSE_ACCEPTS_PER_HOUR:
        within = curve[curve["false_accepts_per_hour"] <= allowed].sort_values(["miss_rate", "threshold"])
        best: dict[str, float | None] = {"threshold": None, "miss_rate": None}
        if len(within):
            best = {name: float(within[name].iloc[0]) for name in best}
        points.append({"false_accepts_per_hour_at_most": allowed, **best})
    return points
