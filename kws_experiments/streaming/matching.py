"""Hold detections against what was said: which are right, which words were missed."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CORRECT, WRONG, FALSE_ACCEPT = "correct", "wrong", "false accept"
NOTHING = -1


class Spoken(NamedTuple):
    """A word of the truth: from when to when, in ms."""

    time_ms: float
    end_ms: float
    word: str


@dataclass(frozen=True)
class Matching:
    """What became of detections and words.

    Attributes:
        outcomes: of each detection: CORRECT, WRONG (a keyword was said there, but another one, or it had been detected
            already) or FALSE_ACCEPT (no keyword was said there).
        spoken: [detections] the word, by its place in the truth, that it is correct of; NOTHING for the others.
        on_speech: [detections] whether any word was said there, a keyword or not.
    """

    outcomes: list[str]
    spoken: np.ndarray
    on_speech: np.ndarray

    def count(self, outcome: str) -> int:
        """Detections of that outcome."""
        return Counter(self.outcomes)[outcome]


def match(
    detections: Sequence[tuple[float, str]], truth: Sequence[Spoken], keywords: Sequence[str], tolerance_ms: float
) -> Matching:
    """Match each detection with at most one word of the same name, each word with at most one detection.

    As many detections as possible are matched. A detection fits a word from `tolerance_ms` before its beginning to
    `tolerance_ms` after its end.

    Args:
        detections: (time in ms, word), in the order of time.
        truth: what was said.
        keywords: the words that can be detected; all others of the truth are unknown words.
        tolerance_ms: at least 0.
    """
    spoken = np.full(len(detections), NOTHING)
    by_word: dict[str, list[int]] = defaultdict(list)
    for place, (_, word) in enumerate(detections):
        by_word[word].append(place)
    for word, places in by_word.items():
        said = [place for place, row in enumerate(truth) if row.word == word]
        for place, row in _most_pairs(
            [detections[place][0] for place in places], [truth[row] for row in said], tolerance_ms
        ):
            spoken[places[place]] = said[row]
    wanted = set(keywords)
    times = np.array([time for time, _ in detections], np.float64)
    near_keyword = _near(times, [row for row in truth if row.word in wanted], tolerance_ms)
    outcomes = [
        CORRECT if row != NOTHING else WRONG if near else FALSE_ACCEPT
        for row, near in zip(spoken, near_keyword, strict=True)
    ]
    return Matching(outcomes, spoken, _near(times, truth, tolerance_ms))


def _most_pairs(times: Sequence[float], truth: Sequence[Spoken], tolerance_ms: float) -> list[tuple[int, int]]:
    """The most pairs (place in times, place in truth) there can be.

    Each time, in order, takes of the words that it fits the one whose interval ends first (Glover, 'Maximum matching in
    a convex bipartite graph', 1967).
    """
    by_start = sorted(range(len(truth)), key=lambda place: truth[place].time_ms)
    waiting: list[tuple[float, int]] = []  # (end of the interval, place) of words that have begun
    pairs, following = [], 0
    for place in sorted(range(len(times)), key=lambda place: times[place]):
        time = times[place]
        while following < len(by_start) and truth[by_start[following]].time_ms - tolerance_ms <= time:
            row = by_start[following]
            heapq.heappush(waiting, (truth[row].end_ms + tolerance_ms, row))
            following += 1
        while waiting and waiting[0][0] < time:
            heapq.heappop(waiting)
        if waiting:
            pairs.append((place, heapq.heappop(waiting)[1]))
    return pairs


def _near(times: np.ndarray, truth: Sequence[Spoken], tolerance_ms: float) -> np.ndarray:
    """[times] bool: whether each lies within the tolerance of any of these words."""
    if not truth:
        return np.zeros(len(times), bool)
    begun = np.sort([row.time_ms - tolerance_ms for row in truth])
    ended = np.sort([row.end_ms + tolerance_ms for row in truth])
    return np.searchsorted(begun, times, "right") > np.searchsorted(ended, times, "left")
