"""Which windows of a stream are mistakes, and which is cut out for each."""

from __future__ import annotations

import numpy as np

from kws_data.catalog import UNKNOWN
from kws_experiments.streaming.matching import Spoken
from kws_experiments.streaming.mistakes import false_accepts, missed_words

ENDS_MS = np.arange(1000.0, 10_001.0, 100.0)
WORDS = ["yes", "no"]


def scores_with(*peaks: tuple[float, str, float]) -> np.ndarray:
    """Scores that reach a value where a window ends at a time, and half of it a window before and after that."""
    scores = np.zeros((len(ENDS_MS), 2))
    for time_ms, word, value in peaks:
        at = int(np.argmin(np.abs(ENDS_MS - time_ms)))
        for place, share in ((at - 1, 0.5), (at, 1.0), (at + 1, 0.5)):
            scores[place, WORDS.index(word)] = max(scores[place, WORDS.index(word)], value * share)
    return scores


def test_a_false_accept_is_taken_once_where_it_is_clearest() -> None:
    found = false_accepts(ENDS_MS, scores_with((3000, "no", 0.6), (7000, "yes", 0.9)), [], 1000, 0.2)
    assert [(ENDS_MS[one.window], one.word, one.score) for one in found] == [(7000, UNKNOWN, 0.9), (3000, UNKNOWN, 0.6)]


def test_windows_with_a_part_of_a_keyword_are_no_false_accepts() -> None:
    truth = [Spoken(2500, 3100, "no")]
    scores = scores_with((2500, "yes", 0.7), (3000, "yes", 0.9), (4000, "yes", 0.8), (4100, "yes", 0.6))
    found = false_accepts(ENDS_MS, scores, truth, 1000, 0.2)
    assert [ENDS_MS[one.window] for one in found] == [2500, 4100]  # the window that ends at 4000 begins at 3000


def test_low_scores_are_no_mistakes() -> None:
    assert false_accepts(ENDS_MS, scores_with((3000, "no", 0.19)), [], 1000, 0.2) == []
    assert false_accepts(ENDS_MS, np.zeros((len(ENDS_MS), 0)), [], 1000, 0.2) == []


def test_a_word_is_missed_if_no_window_with_all_of_it_scores_high() -> None:
    truth = [Spoken(2000, 2500, "no"), Spoken(5000, 5500, "yes"), Spoken(8000, 8600, "no")]
    scores = scores_with((2700, "no", 0.9), (4900, "yes", 0.9), (8800, "yes", 0.9), (8800, "no", 0.4))
    found = missed_words(ENDS_MS, scores, WORDS, truth, 1000, 0.5)
    assert [(one.word, one.score) for one in found] == [("yes", 0.0), ("no", 0.4)]
    for one, word in zip(found, [truth[1], truth[2]], strict=True):
        assert ENDS_MS[one.window] - 1000 <= word.time_ms
        assert word.end_ms <= ENDS_MS[one.window]


def test_a_word_longer_than_a_window_is_no_mistake() -> None:
    assert missed_words(ENDS_MS, scores_with(), WORDS, [Spoken(2000, 3500, "no")], 1000, 0.5) == []
