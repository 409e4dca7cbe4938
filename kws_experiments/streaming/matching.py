"""Compare detections with the words that are spoken: which are correct, and which words are missed."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from kws_experiments.streaming.listener import Detection

CORRECT, WRONG, FALSE_ACCEPT = "correct", "wrong", "false accept"
NOTHING = -1


class Spoken(NamedTuple):
    """A spoken word, with its start and end in ms."""

    time_ms: float
    end_ms: float
    word: str


@dataclass(frozen=True)
class Matching:
    """The result of `match`.

    Attributes:
        outcomes: of each detection: CORRECT, WRONG (a keyword is spoken there, but another one, or one that is detected
            already) or FALSE_ACCEPT (no keyword is spoken there).
        spoken: [detections] index in the truth of the word that a correct detection belongs to; NOTHING for the others.
        on_speech: [detections] whether any word is spoken there, a keyword or not.
    """

    outcomes: list[str]
    spoken: np.ndarray
    on_speech: np.ndarray


def match(
    detections: Sequence[Detection], truth: Sequence[Spoken], keywords: Sequence[str], tolerance_ms: float
) -> Matching:
    """Match each detection with at most one word of the same name, and each word with at most one detection.

    As many detections as possible are matched. A detection fits a word from `tolerance_ms` before its start to
    `tolerance_ms` after its end.

    Args:
        detections: in any order; those with equal times are matched in the order given.
        truth: the spoken words.
        keywords: the words that can be detected; all other words are unknown words.
        tolerance_ms: at least 0.
    """
    spoken = _most_pairs(detections, truth, tolerance_ms)
    times = np.array([detection.time_ms for detection in detections], np.float64)
    near_keyword = _near(times, [word for word in truth if word.word in keywords], tolerance_ms)
    outcomes = [
        CORRECT if index != NOTHING else WRONG if near else FALSE_ACCEPT
        for index, near in zip(spoken, near_keyword, strict=True)
    ]
    return Matching(outcomes, spoken, _near(times, truth, tolerance_ms))


def _most_pairs(detections: Sequence[Detection], truth: Sequence[Spoken], tolerance_ms: float) -> np.ndarray:
    """[detections] the word (its index in the truth) of each detection, or NOTHING; as many words as possible.

    Each detection, in order of time, takes the word that ends first of those that it fits (Glover, 'Maximum matching in
    a convex bipartite graph', 1967).
    """
    spoken = np.full(len(detections), NOTHING)
    upcoming = sorted(range(len(truth)), key=lambda index: truth[index].time_ms, reverse=True)  # the next one last
    begun: dict[str, list[tuple[float, int]]] = defaultdict(list)  # per word a heap of (latest fit in ms, index)
    for number in sorted(range(len(detections)), key=lambda number: detections[number].time_ms):
        time_ms, word, _ = detections[number]
        while upcoming and truth[upcoming[-1]].time_ms - tolerance_ms <= time_ms:
            index = upcoming.pop()
            heapq.heappush(begun[truth[index].word], (truth[index].end_ms + tolerance_ms, index))
        waiting = begun[word]
        while waiting and waiting[0][0] < time_ms:
            heapq.heappop(waiting)
        if waiting:
            spoken[number] = heapq.heappop(waiting)[1]
    return spoken


def _near(times: np.ndarray, truth: Sequence[Spoken], tolerance_ms: float) -> np.ndarray:
    """[times] bool: whether each lies within the tolerance of any of these words."""
    if not truth:
        return np.zeros(len(times), bool)
    starts = np.sort([word.time_ms - tolerance_ms for word in truth])
    ends = np.sort([word.end_ms + tolerance_ms for word in truth])
    return np.searchsorted(starts, times, "right") > np.searchsorted(ends, times, "left")
