"""Detections from scores: the rules of the original's RecognizeCommands and our own, case by case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_experiments.streaming.curve import detect, smooth
from kws_experiments.streaming.listener import Detection
from kws_experiments.streaming.recognize import (
    ORIGINAL,
    PER_WORD,
    RULES,
    Recognition,
    Recognizer,
    RecognizerSettings,
    keywords_of,
)

LABELS = ["_silence_", "_unknown_", "yes", "no"]


def scores(label: str, score: float = 1.0) -> np.ndarray:
    """`score` for the label, the rest shared by the others."""
    rest = (1 - score) / (len(LABELS) - 1)
    return np.array([score if name == label else rest for name in LABELS])


def recognizer(**settings: Any) -> Recognizer:
    return Recognizer(LABELS, RecognizerSettings(**settings))


def run(recognizer: Recognizer, *stretches: tuple[str, int], step_ms: int = 50) -> list[tuple[int, str]]:
    """New labels in stretches of (label, milliseconds), with a window every `step_ms`."""
    labels = [label for label, length_ms in stretches for _ in range(length_ms // step_ms)]
    results = [recognizer.process(step_ms * number, scores(label)) for number, label in enumerate(labels)]
    return [(step_ms * number, result.label) for number, result in enumerate(results) if result.is_new]


def test_a_word_is_new_once_however_long_it_lasts() -> None:
    assert run(recognizer(), ("_silence_", 1000), ("yes", 3000)) == [(1350, "yes")]


@pytest.mark.parametrize(
    ("average_window_ms", "length_ms", "detected"),
    # 500 ms hold 11 windows 50 ms apart: with the eighth, 8/11 = 0.73 of them are the word's
    [(500, 1000, [(2350, "yes")]), (200, 1000, [(2150, "yes")]), (1000, 500, [])],
)
def test_the_average_decides_when_a_word_is_detected(
    average_window_ms: float, length_ms: int, detected: list[tuple[int, str]]
) -> None:
    recognize = recognizer(average_window_ms=average_window_ms)
    assert run(recognize, ("_silence_", 2000), ("yes", length_ms)) == detected


def test_the_average_is_over_the_windows_within_the_time_and_no_others() -> None:
    recognize = recognizer(average_window_ms=100, minimum_count=1)
    for time_ms, score in ((0, 0.9), (50, 0.8), (100, 0.7), (150, 0.6)):
        result = recognize.process(time_ms, scores("yes", score))
    assert result.label == "yes"
    assert result.score == pytest.approx((0.8 + 0.7 + 0.6) / 3)  # the window exactly 100 ms ago counts


@pytest.mark.parametrize(("score", "detected"), [(0.75, []), (0.8, [(150, "yes")])])
def test_the_threshold_must_be_exceeded(score: float, detected: list[tuple[int, str]]) -> None:
    recognize = recognizer(detection_threshold=0.75, minimum_count=4)
    assert [(t, "yes") for t in range(0, 1000, 50) if recognize.process(t, scores("yes", score)).is_new] == detected


def test_too_few_windows_are_unreliable() -> None:
    recognize = recognizer(minimum_count=6, average_window_ms=500)
    results = [recognize.process(time_ms, scores("yes")) for time_ms in range(0, 400, 50)]
    assert results[:5] == [Recognition("_silence_", 0.0, False)] * 5
    assert results[5] == Recognition("yes", 1.0, True)


def test_windows_over_too_short_a_time_are_unreliable() -> None:
    """A quarter of the averaging window must have passed."""
    recognize = recognizer(minimum_count=1, average_window_ms=400)
    assert [recognize.process(time_ms, scores("yes")).is_new for time_ms in (0, 50, 99, 100)] == [
        False,
        False,
        False,
        True,
    ]


def test_after_a_gap_in_time_the_last_label_stays_at_score_0() -> None:
    recognize = recognizer()
    assert run(recognize, ("yes", 500))
    assert recognize.process(100_000, scores("no")) == Recognition("yes", 0.0, False)


QUICK: dict[str, float] = {"average_window_ms": 100.0, "minimum_count": 1}


@pytest.mark.parametrize(
    ("suppression_ms", "stretches", "new"),
    [
        (500, [("yes", 200), ("no", 1000)], [(50, "yes"), (600, "no")]),
        (0, [("yes", 200), ("no", 1000)], [(50, "yes"), (300, "no")]),
        # gone before the suppression ends
        (500, [("yes", 200), ("no", 200), ("yes", 1000)], [(50, "yes")]),
        # silence can be new too, and suppresses nothing
        (500, [("yes", 200), ("_silence_", 600), ("no", 500)], [(50, "yes"), (600, "_silence_"), (900, "no")]),
    ],
)
def test_other_words_are_suppressed_for_a_time(
    suppression_ms: float, stretches: list[tuple[str, int]], new: list[tuple[int, str]]
) -> None:
    assert run(recognizer(suppression_ms=suppression_ms, **QUICK), *stretches) == new


def test_the_same_word_again_needs_something_else_in_between() -> None:
    quick = QUICK | {"suppression_ms": 100.0}
    for between in ("_silence_", "_unknown_"):
        new = run(recognizer(**quick), ("yes", 500), (between, 500), ("yes", 500))
        assert [label for _, label in new] == ["yes", between, "yes"]
    recognize = recognizer(**quick)
    run(recognize, ("yes", 500))
    # silence that never rises above the threshold is not new: the word continues
    assert not any(recognize.process(time_ms, scores("_silence_", 0.6)).is_new for time_ms in range(500, 1000, 50))
    assert not any(recognize.process(time_ms, scores("yes")).is_new for time_ms in range(1000, 1500, 50))


def test_a_stream_starts_in_silence() -> None:
    assert run(recognizer(), ("_silence_", 2000)) == []


def test_labels_without_silence() -> None:
    recognize = Recognizer(["yes", "no"], RecognizerSettings(average_window_ms=100, minimum_count=1))
    assert [recognize.process(time_ms, np.array([1.0, 0.0])).is_new for time_ms in (0, 50, 100)] == [False, True, False]


def test_the_first_of_equal_labels_is_the_top() -> None:
    recognize = recognizer(detection_threshold=0.1, minimum_count=1, average_window_ms=0)
    assert recognize.process(0, np.array([0.0, 0.0, 0.5, 0.5])).label == "yes"


def test_a_time_that_goes_backwards_is_refused() -> None:
    recognize = recognizer()
    recognize.process(100, scores("yes"))
    recognize.process(100, scores("yes"))
    with pytest.raises(ValueError, match="time_ms must not go backwards, got 99 after 100"):
        recognize.process(99, scores("yes"))


def test_scores_of_another_number_of_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="scores must be 4 numbers, one a label"):
        recognizer().process(0, np.zeros(5))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("average_window_ms", -1), ("detection_threshold", 1.5), ("suppression_ms", -5), ("minimum_count", 0),
        ("rule", "newest"), ("release", 2), ("repeat_ms", -1),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        RecognizerSettings(**{name: value})  # type: ignore[arg-type]


# the rule of our own

OWN: dict[str, Any] = {**QUICK, "rule": PER_WORD, "suppression_ms": 200.0, "thresholds": {"yes": 0.6, "no": 0.9}}


def levels(recognizer: Recognizer, word: str, *stretches: tuple[float, int]) -> list[tuple[int, str]]:
    """New labels where a word has each score for so many milliseconds, with a window every 50 ms."""
    rows = [scores(word, score) for score, length_ms in stretches for _ in range(length_ms // 50)]
    results = [recognizer.process(50 * number, row) for number, row in enumerate(rows)]
    return [(50 * number, result.label) for number, result in enumerate(results) if result.is_new]


def test_each_word_has_a_threshold() -> None:
    assert levels(recognizer(**OWN), "yes", (0.7, 500)) == [(50, "yes")]
    assert levels(recognizer(**OWN), "no", (0.7, 500)) == []
    assert levels(recognizer(**OWN), "no", (0.95, 500)) == [(50, "no")]
    assert levels(recognizer(**QUICK, thresholds={"no": 0.9}), "no", (0.7, 500)) == []  # with the original's rule too


def test_a_word_above_its_threshold_is_new_though_another_is_higher() -> None:
    recognize = recognizer(**OWN | {"thresholds": {"yes": 0.3, "no": 0.9}})
    results = [recognize.process(time_ms, np.array([0.0, 0.6, 0.4, 0.0])) for time_ms in (0, 50)]
    assert results[-1] == Recognition("yes", pytest.approx(0.4), True)


@pytest.mark.parametrize(
    ("stretches", "new"),
    [
        # it falls below eight tenths of its threshold, to no silence
        ([(0.9, 400), (0.4, 150), (0.9, 400)], [50, 600]),
        # it doesn't
        ([(0.9, 400), (0.55, 150), (0.9, 300)], [50]),
        # it stays up for longer than a window: said twice without a pause
        ([(0.9, 1000)], [50]),
        ([(0.9, 1400)], [50, 1050]),
        # it falls at once, and rises before the suppression ends
        ([(0.9, 100), (0.1, 100), (0.9, 400)], [50, 300]),
    ],
)
def test_the_same_word_again_needs_no_silence(stretches: list[tuple[float, int]], new: list[int]) -> None:
    assert levels(recognizer(**OWN), "yes", *stretches) == [(time_ms, "yes") for time_ms in new]
    assert len(levels(recognizer(**OWN | {"rule": ORIGINAL}), "yes", *stretches)) == 1


def test_the_unknown_class_suppresses_no_word_and_silence_is_never_new() -> None:
    stretches = [("_silence_", 500), ("_unknown_", 150), ("yes", 500)]
    assert run(recognizer(**OWN), *stretches) == [(600, "_unknown_"), (700, "yes")]


@given(st.integers(0, 10_000), st.sampled_from(sorted(RULES)), st.sampled_from([100.0, 330.0, 500.0]))
def test_all_at_once_is_detected_what_is_detected_window_by_window(seed: int, rule: str, average_ms: float) -> None:
    generator = np.random.default_rng(seed)
    logits = np.repeat(generator.normal(0, 5, (30, len(LABELS))), generator.integers(1, 12, 30), axis=0)
    rows = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    times = np.cumsum(generator.choice([40, 40, 41, 300], len(rows))).tolist()
    settings = RecognizerSettings(average_ms, 0.6, 200, 2, rule, {"no": 0.3})
    recognize = Recognizer(LABELS, settings)

    results = [(time_ms, recognize.process(time_ms, row)) for time_ms, row in zip(times, rows, strict=True)]

    one_by_one = [(t, r.label, round(r.score, 9)) for t, r in results if r.is_new and r.label in keywords_of(LABELS)]
    found = detect(smooth(times, rows, settings), LABELS, settings)
    assert all(isinstance(detection, Detection) for detection in found)
    assert [(t, label, round(score, 9)) for t, label, score in found] == one_by_one


def test_thresholds_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"^thresholds of yes must be a number from 0 to 1, got 1\.1"):
        recognizer(thresholds={"yes": 1.1})
