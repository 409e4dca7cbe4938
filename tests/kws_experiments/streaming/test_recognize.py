"""From scores to detections: the rules of the original's RecognizeCommands, case by case."""

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
    """News of stretches of (label, milliseconds), a window every `step_ms`."""
    news, time_ms = [], 0
    for label, length_ms in stretches:
        for _ in range(length_ms // step_ms):
            heard = recognizer.process(time_ms, scores(label))
            if heard.is_new:
                news.append((time_ms, heard.label))
            time_ms += step_ms
    return news


def test_a_word_is_news_once_however_long_it_lasts() -> None:
    assert run(recognizer(), ("_silence_", 1000), ("yes", 3000)) == [(1350, "yes")]


def test_the_average_decides_when_a_word_is_heard() -> None:
    """A window of 500 ms holds 11 windows 50 ms apart: the eighth makes 8/11 = 0.73 of them."""
    assert run(recognizer(average_window_ms=500), ("_silence_", 2000), ("yes", 1000)) == [(2350, "yes")]
    assert run(recognizer(average_window_ms=200), ("_silence_", 2000), ("yes", 1000)) == [(2150, "yes")]
    assert run(recognizer(average_window_ms=1000), ("_silence_", 2000), ("yes", 500)) == []


def test_the_average_is_over_the_windows_within_the_time_and_no_others() -> None:
    hear = recognizer(average_window_ms=100, minimum_count=1)
    for time_ms, score in ((0, 0.9), (50, 0.8), (100, 0.7), (150, 0.6)):
        heard = hear.process(time_ms, scores("yes", score))
    assert heard.label == "yes"
    assert heard.score == pytest.approx((0.8 + 0.7 + 0.6) / 3)  # the one just 100 ms old counts


@pytest.mark.parametrize(("score", "heard"), [(0.75, []), (0.8, [(150, "yes")])])
def test_the_threshold_must_be_exceeded(score: float, heard: list[tuple[int, str]]) -> None:
    hear = recognizer(detection_threshold=0.75, minimum_count=4)
    assert [(t, "yes") for t in range(0, 1000, 50) if hear.process(t, scores("yes", score)).is_new] == heard


def test_too_few_windows_are_unreliable() -> None:
    hear = recognizer(minimum_count=6, average_window_ms=500)
    results = [hear.process(time_ms, scores("yes")) for time_ms in range(0, 400, 50)]
    assert results[:5] == [Recognition("_silence_", 0.0, False)] * 5
    assert results[5] == Recognition("yes", 1.0, True)


def test_windows_over_too_short_a_time_are_unreliable() -> None:
    """A quarter of the averaging window must have passed."""
    hear = recognizer(minimum_count=1, average_window_ms=400)
    assert [hear.process(time_ms, scores("yes")).is_new for time_ms in (0, 50, 99, 100)] == [False, False, False, True]


def test_after_a_gap_in_time_the_last_news_goes_on_at_score_0() -> None:
    hear = recognizer()
    assert run(hear, ("yes", 500))
    assert hear.process(100_000, scores("no")) == Recognition("yes", 0.0, False)


def test_other_words_are_suppressed_for_a_time() -> None:
    quick = {"average_window_ms": 100.0, "minimum_count": 1}
    assert run(recognizer(suppression_ms=500, **quick), ("yes", 200), ("no", 1000)) == [(50, "yes"), (600, "no")]
    assert run(recognizer(suppression_ms=0, **quick), ("yes", 200), ("no", 1000)) == [(50, "yes"), (300, "no")]
    # gone before the suppression ends
    assert run(recognizer(suppression_ms=500, **quick), ("yes", 200), ("no", 200), ("yes", 1000)) == [(50, "yes")]


def test_silence_is_news_too_and_suppresses_nothing() -> None:
    quick = {"average_window_ms": 100.0, "minimum_count": 1, "suppression_ms": 500.0}
    news = run(recognizer(**quick), ("yes", 200), ("_silence_", 600), ("no", 500))
    assert news == [(50, "yes"), (600, "_silence_"), (900, "no")]


def test_the_same_word_again_needs_something_else_in_between() -> None:
    quick = {"average_window_ms": 100.0, "minimum_count": 1, "suppression_ms": 100.0}
    again = run(recognizer(**quick), ("yes", 500), ("_silence_", 500), ("yes", 500))
    assert [label for _, label in again] == ["yes", "_silence_", "yes"]
    by_unknown = run(recognizer(**quick), ("yes", 500), ("_unknown_", 500), ("yes", 500))
    assert [label for _, label in by_unknown] == ["yes", "_unknown_", "yes"]
    hear = recognizer(**quick)
    run(hear, ("yes", 500))
    # silence that never rises above the threshold is no news: the word goes on
    assert not any(hear.process(time_ms, scores("_silence_", 0.6)).is_new for time_ms in range(500, 1000, 50))
    assert not any(hear.process(time_ms, scores("yes")).is_new for time_ms in range(1000, 1500, 50))


def test_a_stream_begins_in_silence() -> None:
    assert run(recognizer(), ("_silence_", 2000)) == []


def test_labels_without_silence() -> None:
    hear = Recognizer(["yes", "no"], RecognizerSettings(average_window_ms=100, minimum_count=1))
    assert [hear.process(time_ms, np.array([1.0, 0.0])).is_new for time_ms in (0, 50, 100)] == [False, True, False]


def test_the_first_of_equal_labels_is_the_top() -> None:
    hear = recognizer(detection_threshold=0.1, minimum_count=1, average_window_ms=0)
    assert hear.process(0, np.array([0.0, 0.0, 0.5, 0.5])).label == "yes"


def test_a_time_that_goes_backwards_is_refused() -> None:
    hear = recognizer()
    hear.process(100, scores("yes"))
    hear.process(100, scores("yes"))
    with pytest.raises(ValueError, match="time_ms must not go backwards, got 99 after 100"):
        hear.process(99, scores("yes"))


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
