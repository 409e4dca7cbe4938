"""Detections from the scores of overlapping windows, as in RecognizeCommands of the original example.

Source: tensorflow/examples/speech_commands/recognize_commands.py. One difference: a time that goes backwards is always
an error here; there only if it is earlier than the oldest one remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.checks import check_number, check_probability, check_whole

UNRELIABLE = -1  # no top label: there are too few windows to average


def keywords_of(labels: Sequence[str]) -> list[str]:
    """The labels that are keywords: all but silence and unknown."""
    return [label for label in labels if label not in (SILENCE, UNKNOWN)]


@dataclass(frozen=True)
class RecognizerSettings:
    """How scores become detections; the defaults are those of the original's test_streaming_accuracy.

    Attributes:
        average_window_ms: scores of this stretch of time are averaged.
        detection_threshold: an average above it is a detection.
        suppression_ms: after a detection of anything but silence, no other one for this time.
        minimum_count: averages of fewer windows are ignored.

    Raises:
        ValueError: naming the attribute.
    """

    average_window_ms: float = 500.0
    detection_threshold: float = 0.7
    suppression_ms: float = 500.0
    minimum_count: int = 4

    def __post_init__(self) -> None:
        check_number("average_window_ms", self.average_window_ms, 0)
        check_probability("detection_threshold", self.detection_threshold)
        check_number("suppression_ms", self.suppression_ms, 0)
        check_whole("minimum_count", self.minimum_count, 1)


class Recognition(NamedTuple):
    """The top label at one time, its averaged score, and whether it is new."""

    label: str
    score: float
    is_new: bool


class Smoother:
    """Averages the scores of the last `average_window_ms`.

    Args:
        num_labels: scores per window.
        settings: `average_window_ms` and `minimum_count` are used.
    """

    def __init__(self, num_labels: int, settings: RecognizerSettings) -> None:
        self._num_labels = num_labels
        self._settings = settings
        self._recent: deque[tuple[float, np.ndarray]] = deque()

    def top(self, time_ms: float, scores: np.ndarray) -> tuple[int, float]:
        """(index of the highest average, that average), or (UNRELIABLE, 0) for too few windows or too short a time.

        Raises:
            ValueError: `scores` has another length than the labels, or `time_ms` is earlier than the last one.
        """
        if np.shape(scores) != (self._num_labels,):
            raise ValueError(f"scores must be {self._num_labels} numbers, one a label, got shape {np.shape(scores)}")
        if self._recent and time_ms < self._recent[-1][0]:
            raise ValueError(f"time_ms must not go backwards, got {time_ms:g} after {self._recent[-1][0]:g}")
        self._recent.append((time_ms, np.asarray(scores, np.float64)))
        while self._recent[0][0] < time_ms - self._settings.average_window_ms:
            self._recent.popleft()
        covered_ms = time_ms - self._recent[0][0]
        if len(self._recent) < self._settings.minimum_count or covered_ms < self._settings.average_window_ms / 4:
            return UNRELIABLE, 0.0
        average = np.mean([scores for _, scores in self._recent], axis=0)
        index = int(average.argmax())
        return index, float(average[index])


class Trigger:
    """Decides which top labels are new.

    A label is new if its average is above the threshold, it differs from the last new label, and that one is more than
    `suppression_ms` ago or was silence. Silence can be new like any other label; the same word is not new twice without
    silence, or another label, in between.

    Args:
        labels: class names.
        settings: `detection_threshold` and `suppression_ms` are used.
    """

    def __init__(self, labels: Sequence[str], settings: RecognizerSettings) -> None:
        self._silence = labels.index(SILENCE) if SILENCE in labels else None
        self._threshold, self._suppression_ms = settings.detection_threshold, settings.suppression_ms
        self._last: int | None = None
        self._last_ms = -np.inf

    @property
    def last(self) -> int | None:
        """The index of the last new label; None before the first."""
        return self._last

    def fires(self, time_ms: float, index: int, score: float) -> bool:
        """Whether the top label is new; UNRELIABLE never is."""
        last = self._silence if self._last is None else self._last  # every stream starts in silence
        if index in (UNRELIABLE, last) or score <= self._threshold:
            return False
        if self._last is not None and self._last != self._silence and time_ms - self._last_ms <= self._suppression_ms:
            return False
        self._last, self._last_ms = index, time_ms
        return True


class Recognizer:
    """Averages the scores of windows, in order of time, and finds new labels.

    Args:
        labels: class names, in the order of the scores.
        settings: see RecognizerSettings.
    """

    def __init__(self, labels: Sequence[str], settings: RecognizerSettings) -> None:
        self.labels = list(labels)
        self.settings = settings
        self._smoother = Smoother(len(labels), settings)
        self._trigger = Trigger(self.labels, settings)

    def process(self, time_ms: float, scores: np.ndarray) -> Recognition:
        """Process the scores [labels] of one window; while averages are unreliable, the last label stays at score 0.

        Raises:
            ValueError: see `Smoother.top`.
        """
        index, score = self._smoother.top(time_ms, scores)
        is_new = self._trigger.fires(time_ms, index, score)
        if index == UNRELIABLE:
            last = self._trigger.last
            return Recognition(SILENCE if last is None else self.labels[last], 0.0, False)
        return Recognition(self.labels[index], score, is_new)
