"""Detections from the scores of overlapping windows: averages over time, and a rule for what is new.

There are two rules. `original` is that of RecognizeCommands in the original example
(tensorflow/examples/speech_commands/recognize_commands.py), with one difference: a time that goes backwards is always
an error here; there only if it is earlier than the oldest one remembered. `per-word` is this project's own: each word
has a threshold, and the same word can be detected twice in a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.checks import check_number, check_probability, check_whole

ORIGINAL, PER_WORD = "original", "per-word"


def keywords_of(labels: Sequence[str]) -> list[str]:
    """The labels that are keywords: all but silence and unknown."""
    return [label for label in labels if label not in (SILENCE, UNKNOWN)]


@dataclass(frozen=True)
class RecognizerSettings:
    """How scores become detections; the defaults are those of the original's test_streaming_accuracy.

    Attributes:
        average_window_ms: scores of this stretch of time are averaged.
        detection_threshold: an average above it is a detection.
        suppression_ms: after a detection, no other one for this time.
        minimum_count: averages of fewer windows are ignored.
        rule: `original` or `per-word`; see `OriginalRule` and `PerWordRule`.
        thresholds: of the words that have one of their own.
        release: with `per-word`, a word can be detected again once its average has fallen below this part of its
            threshold.
        repeat_ms: with `per-word`, or so long after its last detection: the length of the model's window, since no
            utterance stays in it for longer.
        sensitivity: the name of these settings in `listening.json`; '' where they are others.

    Raises:
        ValueError: naming the attribute.
    """

    average_window_ms: float = 500.0
    detection_threshold: float = 0.7
    suppression_ms: float = 500.0
    minimum_count: int = 4
    rule: str = ORIGINAL
    thresholds: Mapping[str, float] = field(default_factory=dict)
    release: float = 0.8
    repeat_ms: float = 1000.0
    sensitivity: str = ""

    def __post_init__(self) -> None:
        check_number("average_window_ms", self.average_window_ms, 0)
        check_probability("detection_threshold", self.detection_threshold)
        check_number("suppression_ms", self.suppression_ms, 0)
        check_whole("minimum_count", self.minimum_count, 1)
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got '{self.rule}'")
        for word, threshold in self.thresholds.items():
            check_probability(f"thresholds of {word}", threshold)
        check_probability("release", self.release)
        check_number("repeat_ms", self.repeat_ms, 0)

    def of_labels(self, labels: Sequence[str]) -> np.ndarray:
        """[labels] float64: the threshold of each."""
        return np.array([self.thresholds.get(label, self.detection_threshold) for label in labels])


class Recognition(NamedTuple):
    """A label at one time, its averaged score, and whether it is new: if not, it is the top label."""

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

    def average(self, time_ms: float, scores: np.ndarray) -> np.ndarray | None:
        """[labels] float64, or None for too few windows or too short a time.

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
            return None
        return np.mean([scores for _, scores in self._recent], axis=0)


class Rule(ABC):
    """Decides, window by window, which labels are new; silence can be new too.

    Args:
        labels: class names.
        settings: all but those of the averages are used.

    Attributes:
        last: the index of the last new label; None before the first.
    """

    def __init__(self, labels: Sequence[str], settings: RecognizerSettings) -> None:
        self.last: int | None = None
        self._last_ms = -np.inf
        self._thresholds = settings.of_labels(labels)
        self._suppression_ms = settings.suppression_ms

    @abstractmethod
    def new(self, time_ms: float, averages: np.ndarray) -> int | None:
        """The index of the label that is new now, if any.

        Args:
            time_ms: not earlier than before.
            averages: [labels].
        """

    @abstractmethod
    def matters(self, averages: np.ndarray) -> np.ndarray:
        """[windows] bool: those of [windows, labels] averages that `new` must be given to find all keywords."""


class OriginalRule(Rule):
    """The top label is new if its average is above its threshold, it differs from the last new label, and that one is
    more than `suppression_ms` ago or was silence.

    The same word is not new twice without silence, or another label, in between.
    """  # fmt: skip

    def __init__(self, labels: Sequence[str], settings: RecognizerSettings) -> None:
        super().__init__(labels, settings)
        self._silence = labels.index(SILENCE) if SILENCE in labels else None

    def new(self, time_ms: float, averages: np.ndarray) -> int | None:
        """See Rule."""
        index = int(averages.argmax())
        last = self._silence if self.last is None else self.last  # every stream starts in silence
        if index == last or averages[index] <= self._thresholds[index]:
            return None
        if self.last is not None and self.last != self._silence and time_ms - self._last_ms <= self._suppression_ms:
            return None
        self.last, self._last_ms = index, time_ms
        return index

    def matters(self, averages: np.ndarray) -> np.ndarray:
        """See Rule."""
        return averages.max(axis=1) > self._thresholds.min()


class PerWordRule(Rule):
    """A word is new if its average is above its threshold, whatever the others' are, no word was new for
    `suppression_ms`, and, since it was new itself, its average has been below `release` times its threshold or
    `repeat_ms` have passed.

    So 'yes yes' is two words. With silence in between, the average falls. Without it, windows of a second hold one
    'yes' or the other all the time, and the average stays up: what shows the second is that it stays up for longer
    than a window is. Of several words at once, the one with the highest average is new. The unknown class is treated
    as a word that changes nothing for the others.
    """

    def __init__(self, labels: Sequence[str], settings: RecognizerSettings) -> None:
        super().__init__(labels, settings)
        if SILENCE in labels:
            self._thresholds[labels.index(SILENCE)] = np.inf
        self._release, self._repeat_ms = settings.release * self._thresholds, settings.repeat_ms
        self._released = np.ones(len(labels), bool)
        self._new_ms = np.full(len(labels), -np.inf)
        self._suppresses = np.array([label != UNKNOWN for label in labels])

    def new(self, time_ms: float, averages: np.ndarray) -> int | None:
        """See Rule."""
        self._released |= (averages < self._release) | (time_ms - self._new_ms >= self._repeat_ms)
        possible = self._released & (averages > self._thresholds)
        if not possible.any() or time_ms - self._last_ms <= self._suppression_ms:
            return None
        index = int(np.where(possible, averages + self._suppresses, -1.0).argmax())  # the unknown class last
        self.last, self._released[index], self._new_ms[index] = index, False, time_ms
        if self._suppresses[index]:
            self._last_ms = time_ms
        return index

    def matters(self, averages: np.ndarray) -> np.ndarray:
        """See Rule."""
        low = averages < self._release
        falls = low & ~np.vstack([np.zeros_like(low[:1]), low[:-1]])
        return (falls | (averages > self._thresholds))[:, self._suppresses].any(axis=1)


RULES: dict[str, type[Rule]] = {ORIGINAL: OriginalRule, PER_WORD: PerWordRule}


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
        self._rule = RULES[settings.rule](self.labels, settings)

    def process(self, time_ms: float, scores: np.ndarray) -> Recognition:
        """Process the scores [labels] of one window; while averages are unreliable, the last label stays at score 0.

        Raises:
            ValueError: see `Smoother.average`.
        """
        averages = self._smoother.average(time_ms, scores)
        if averages is None:
            last = self._rule.last
            return Recognition(SILENCE if last is None else self.labels[last], 0.0, False)
        new = self._rule.new(time_ms, averages)
        index = int(averages.argmax()) if new is None else new
        return Recognition(self.labels[index], float(averages[index]), new is not None)
