"""Detections from scores: the rules of the original's RecognizeCommands, case by case."""

from __future__ import annotations

import numpy as np
import pytest

from kws_experiments.streaming.recognize import Recognition, Recognizer, RecognizerSettings

LABELS = ["_silence_", "_unknown_", "yes", "no"]


def scores(label: str, score: float = 1.0) -> np.ndarray:
    """`score` for the label, the rest shared by the others."""
    rest = (1 - score) / (len(LABELS) - 1)
    return np.array([score if name == label else rest for name in LABELS])


def recognizer(**settings: float) -> Recognizer:
    return Recognizer(LABELS, RecognizerSettings(**settings))  # type: ignore[arg-type]


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
    [("average_window_ms", -1), ("detection_threshold", 1.5), ("suppression_ms", -5), ("minimum_count", 0)],
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        RecognizerSettings(**{name: value})  # type: ignore[arg-type]
