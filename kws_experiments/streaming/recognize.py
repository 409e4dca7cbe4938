"""From the scores of overlapping windows to detections, as the original example's RecognizeCommands makes them.

Source: tensorflow/examples/speech_commands/recognize_commands.py. One difference: a time that goes backwards is refused
whenever it is earlier than the one before, there only when it is earlier than the oldest one remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kws_data.catalog import SILENCE
from kws_data.checks import check_number, check_probability, check_whole

UNRELIABLE = -1  # no top label: there are too few windows to average


@dataclass(frozen=True)
class RecognizerSettings:
    """How scores become detections; the defaults are those of the original's test_streaming_accuracy.

    Attributes:
        average_window_ms: scores of so long are averaged.
        detection_threshold: an average above it is a detection.
        suppression_ms: after a detection of anything but silence, no other one for so long.
        minimum_count: averages of fewer windows count for nothing.

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
    """What is heard at one time: the top label, its averaged score, and whether it is news."""

    label: str
    score: float
    is_new: bool


class Smoother:
    """Averages the scores of the last `average_window_ms`.

    Args:
        num_labels: scores of a window.
        settings: `average_window_ms` and `minimum_count` are used.
    """

    def __init__(self, num_labels: int, settings: RecognizerSettings) -> None:
        self._num_labels = num_labels
        self._settings = settings
        self._recent: deque[tuple[float, np.ndarray]] = deque()

    def top(self, time_ms: float, scores: np.ndarray) -> tuple[int, float]:
        """(index of the highest average, that average), or (UNRELIABLE, 0) of too few windows or too short a time.

        Raises:
            ValueError: `scores` has another length than there are labels, or `time_ms` is earlier than the last one.
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
    """Decides which top labels are news.

    A label is, when its average is above the threshold, it differs from the last news, and that is more than
    `suppression_ms` ago or was silence. Silence is news like any other label; the same word is not heard twice without
    it, or another label, in between.

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
        """The index of the last news; None before any."""
        return self._last

    def fires(self, time_ms: float, index: int, score: float) -> bool:
        """Whether the top label is news; UNRELIABLE never is."""
        last = self._silence if self._last is None else self._last  # every stream begins in silence
        if index in (UNRELIABLE, last) or score <= self._threshold:
            return False
        if self._last is not None and self._last != self._silence and time_ms - self._last_ms <= self._suppression_ms:
            return False
        self._last, self._last_ms = index, time_ms
        return True


class Recognizer:
    """Smooths the scores of windows in the order of time, and says what is news.

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
        """Take in the scores [labels] of one window; while averages are unreliable, the last news goes on at score 0.

        Raises:
            ValueError: see `Smoother.top`.
        """
        index, score = self._smoother.top(time_ms, scores)
        is_new = self._trigger.fires(time_ms, index, score)
        if index == UNRELIABLE:
            last = self._trigger.last
            return Recognition(SILENCE if last is None else self.labels[last], 0.0, False)
        return Recognition(self.labels[index], score, is_new)
