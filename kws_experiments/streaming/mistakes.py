"""What a network hears wrongly in a stream: windows that would be false accepts, and words that it misses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kws_data.catalog import UNKNOWN
from kws_experiments.streaming.matching import Spoken

APART_MS = 500.0  # from one window that is taken to the next: later ones have the same cause


class Mistake(NamedTuple):
    """A window.

    Attributes:
        window: its number.
        word: what is said in it: a keyword that is missed, or UNKNOWN.
        score: of the keyword that is heard; of one that is missed, its own.
    """

    window: int
    word: str
    score: float


def false_accepts(
    ends_ms: np.ndarray, scores: np.ndarray, truth: Sequence[Spoken], window_ms: float, least: float
) -> list[Mistake]:
    """Windows that hold no part of a keyword, but score high for one; the highest first.

    Args:
        ends_ms: [windows], in order.
        scores: [windows, keywords].
        truth: the keywords that are said.
        window_ms: length of a window.
        least: scores below are no mistakes.
    """
    best = scores.max(axis=1, initial=0.0)
    free = best >= least
    for word in truth:
        free &= (ends_ms <= word.time_ms) | (ends_ms - window_ms >= word.end_ms)
    found: list[Mistake] = []
    for index in np.argsort(-best, kind="stable"):
        if not free[index]:
            continue
        found.append(Mistake(int(index), UNKNOWN, float(best[index])))
        free &= np.abs(ends_ms - ends_ms[index]) >= APART_MS
    return found


def missed_words(
    ends_ms: np.ndarray,
    scores: np.ndarray,
    words: Sequence[str],
    truth: Sequence[Spoken],
    window_ms: float,
    most: float,
) -> list[Mistake]:
    """Keywords that score at most `most` in each window that holds them whole; the lowest first.

    Args:
        ends_ms: [windows], in order.
        scores: [windows, keywords].
        words: the keywords.
        truth: those that are said.
        window_ms: length of a window.
        most: higher scores are no mistakes.

    Returns:
        of each the middle one of its windows.
    """
    found = []
    for word in truth:
        (inside,) = np.nonzero((ends_ms >= word.end_ms) & (ends_ms - window_ms <= word.time_ms))
        if len(inside):
            score = float(scores[inside, words.index(word.word)].max())
            if score <= most:
                found.append(Mistake(int(inside[len(inside) // 2]), word.word, score))
    return sorted(found, key=lambda mistake: mistake.score)
