"""Which detections are correct: chosen cases, and a comparison with SciPy's largest matching."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from kws_experiments.evaluation.intervals import poisson_rate, wilson
from kws_experiments.streaming.evaluate_stream import compare, compute_metrics
from kws_experiments.streaming.listener import Detection
from kws_experiments.streaming.matching import CORRECT, FALSE_ACCEPT, NOTHING, WRONG, Matching, Spoken, match

KEYWORDS = ["yes", "no"]


def matched(detections: list[tuple[int, str]], truth: list[Spoken], tolerance_ms: float = 100) -> Matching:
    return match([Detection(*detection, 1.0) for detection in detections], truth, KEYWORDS, tolerance_ms)


def test_each_outcome() -> None:
    truth = [Spoken(1000, 1500, "yes"), Spoken(3000, 3400, "no"), Spoken(5000, 5500, "bed")]

    matching = matched([(1600, "yes"), (3100, "yes"), (5200, "no"), (8000, "no")], truth)

    assert matching.outcomes == [CORRECT, WRONG, FALSE_ACCEPT, FALSE_ACCEPT]
    assert matching.spoken.tolist() == [0, NOTHING, NOTHING, NOTHING]
    assert matching.on_speech.tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("times", "truth", "outcomes"),
    [
        # the tolerance applies on both sides and includes its ends
        ([899], [(1000, 1500)], [FALSE_ACCEPT]),
        ([900], [(1000, 1500)], [CORRECT]),
        ([1600], [(1000, 1500)], [CORRECT]),
        ([1601], [(1000, 1500)], [FALSE_ACCEPT]),
        # a word is matched once
        ([1100, 1400], [(1000, 1500)], [CORRECT, WRONG]),
        # the first detection takes the word that ends first, and leaves the other to the second
        ([400, 1900], [(0, 2000), (0, 500)], [CORRECT, CORRECT]),
        ([], [], []),
        ([5], [], [FALSE_ACCEPT]),
    ],
)
def test_outcomes_of_one_word(times: list[int], truth: list[tuple[int, int]], outcomes: list[str]) -> None:
    assert matched([(time, "yes") for time in times], [Spoken(*when, "yes") for when in truth]).outcomes == outcomes


@pytest.mark.parametrize("detections", [[], [(1600, "yes"), (1400, "yes"), (5200, "no"), (9000, "no")]])
def test_metrics_follow_from_the_outcomes(detections: list[tuple[int, str]]) -> None:
    truth = [Spoken(1000, 1500, "yes"), Spoken(3000, 3400, "no"), Spoken(5000, 5500, "bed")]
    found = [Detection(*detection, 1.0) for detection in detections]

    compared = compare(found, truth, KEYWORDS, 100)
    metrics = compute_metrics(compared, KEYWORDS, hours=0.5)

    some = bool(detections)
    assert compared.words["detected_ms"].fillna(-1).tolist() == [1400 if some else -1, -1, -1]
    assert metrics == {
        "miss_rate_95": wilson(2 - some, 2),
        "keywords": 2, "unknown_words": 1, "correct": int(some), "missed": 2 - some, "wrong": int(some),
        "false_accepts": 2 * some, "false_accepts_on_other_words": int(some), "miss_rate": 1 - some / 2,
        "hours": 0.5, "false_accepts_per_hour": 4.0 * some,
        "false_accepts_per_hour_95": poisson_rate(2 * some, 0.5), "false_accepts_per_hour_asked": None,
        "latency_ms": dict.fromkeys(("median", "p90", "max"), -100.0 if some else None),
        "per_word": {
            "yes": {"said": 1, "correct": int(some), "wrong": int(some), "false_accepts": 0},
            "no": {"said": 1, "correct": 0, "wrong": 0, "false_accepts": 2 * some},
        },
    }  # fmt: skip
    json.dumps(metrics)


words = st.sampled_from(["yes", "no", "bed"])
spoken = st.builds(
    lambda start, length, word: Spoken(start, start + length, word), st.integers(0, 2000), st.integers(0, 500), words
)
detected = st.tuples(st.integers(0, 3000), st.sampled_from(KEYWORDS))


@given(st.lists(detected, max_size=12).map(sorted), st.lists(spoken, max_size=12), st.integers(0, 300))
def test_matching_is_one_to_one_correct_and_as_large_as_possible(
    detections: list[tuple[int, str]], truth: list[Spoken], tolerance_ms: int
) -> None:
    matching = matched(detections, truth, tolerance_ms)

    def near(time: int, row: Spoken) -> bool:
        return row.time_ms - tolerance_ms <= time <= row.end_ms + tolerance_ms

    fits = np.array([word == row.word and near(time, row) for time, word in detections for row in truth], dtype=bool)
    fits = fits.reshape(len(detections), len(truth))
    pairs = [(number, index) for number, index in enumerate(matching.spoken) if index != NOTHING]
    assert all(fits[pair] for pair in pairs)
    assert len({index for _, index in pairs}) == len(pairs) == matching.outcomes.count(CORRECT)
    if fits.size:
        best = maximum_bipartite_matching(csr_matrix(fits), perm_type="column")
        assert len(pairs) == np.sum(best != -1)
    for (time, _), outcome, on_speech in zip(detections, matching.outcomes, matching.on_speech, strict=True):
        around = [row for row in truth if near(time, row)]
        assert on_speech == bool(around)
        if outcome != CORRECT:
            assert (outcome == WRONG) == any(row.word in KEYWORDS for row in around)
