"""Which detections are right: by hand, and against the best that any matching could do."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from kws_experiments.streaming.matching import CORRECT, FALSE_ACCEPT, NOTHING, WRONG, Spoken, match

KEYWORDS = ["yes", "no"]


def outcomes(detections: list[tuple[float, str]], truth: list[Spoken], tolerance_ms: float = 100) -> list[str]:
    return match(detections, truth, KEYWORDS, tolerance_ms).outcomes


def test_each_outcome() -> None:
    truth = [Spoken(1000, 1500, "yes"), Spoken(3000, 3400, "no"), Spoken(5000, 5500, "bed")]
    detections = [(1600.0, "yes"), (3100.0, "yes"), (5200.0, "no"), (8000.0, "no")]

    matching = match(detections, truth, KEYWORDS, 100)

    assert matching.outcomes == [CORRECT, WRONG, FALSE_ACCEPT, FALSE_ACCEPT]
    assert matching.spoken.tolist() == [0, NOTHING, NOTHING, NOTHING]
    assert matching.on_speech.tolist() == [True, True, True, False]


def test_the_tolerance_is_on_both_sides_and_its_ends_count() -> None:
    truth = [Spoken(1000, 1500, "yes")]
    for time, outcome in ((899, FALSE_ACCEPT), (900, CORRECT), (1600, CORRECT), (1601, FALSE_ACCEPT)):
        assert outcomes([(float(time), "yes")], truth) == [outcome], time


def test_a_word_is_matched_once() -> None:
    assert outcomes([(1100.0, "yes"), (1400.0, "yes")], [Spoken(1000, 1500, "yes")]) == [CORRECT, WRONG]


def test_words_that_overlap_each_get_their_own() -> None:
    """The first detection takes the word that ends first, and leaves the other to the second."""
    truth = [Spoken(0, 2000, "yes"), Spoken(0, 500, "yes")]
    assert outcomes([(400.0, "yes"), (1900.0, "yes")], truth) == [CORRECT, CORRECT]


def test_nothing_said_nothing_heard() -> None:
    assert outcomes([], []) == []
    assert outcomes([(5.0, "yes")], []) == [FALSE_ACCEPT]


words = st.sampled_from(["yes", "no", "bed"])
spoken = st.builds(
    lambda start, length, word: Spoken(start, start + length, word), st.integers(0, 2000), st.integers(0, 500), words
)
detected = st.tuples(st.integers(0, 3000).map(float), st.sampled_from(KEYWORDS))


@given(st.lists(detected, max_size=12).map(sorted), st.lists(spoken, max_size=12), st.integers(0, 300))
def test_matching_is_one_to_one_right_and_as_large_as_can_be(
    detections: list[tuple[float, str]], truth: list[Spoken], tolerance_ms: int
) -> None:
    matching = match(detections, truth, KEYWORDS, tolerance_ms)

    fits = np.array(
        [
            [
                word == row.word and row.time_ms - tolerance_ms <= time <= row.end_ms + tolerance_ms
                for row in truth
            ]
            for time, word in detections
        ],
        dtype=bool,
    ).reshape(len(detections), len(truth))  # fmt: skip
    pairs = [(place, row) for place, row in enumerate(matching.spoken) if row != NOTHING]
    assert all(fits[pair] for pair in pairs)
    assert len({row for _, row in pairs}) == len(pairs) == matching.count(CORRECT)
    if fits.size:
        best = maximum_bipartite_matching(csr_matrix(fits), perm_type="column")
        assert len(pairs) == np.sum(best != -1)
    for (time, _), outcome, near in zip(detections, matching.outcomes, matching.on_speech, strict=True):
        around = [row for row in truth if row.time_ms - tolerance_ms <= time <= row.end_ms + tolerance_ms]
        assert near == bool(around)
        if outcome != CORRECT:
            assert (outcome == WRONG) == any(row.word in KEYWORDS for row in around)
