"""The page of `kws evaluate-stream`: its tables, its intervals, and the claims that the hours can't carry."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from kws_experiments.reports.stream_page import write_stream_page
from kws_experiments.runs.listening import Listening
from kws_experiments.streaming import evaluate_stream
from kws_experiments.streaming.recognize import RecognizerSettings
from tests.kws_experiments.streaming.test_evaluate_stream import HEADER, NOISY, QUIET, Loudness, record


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_stream, "open_windows", lambda path, hop_ms: Loudness())


def evaluated(model: Path, *recordings: Path, sensitivity: str = "") -> Path:
    """The folder of the results of recordings, by a run that was tuned for 40 false accepts an hour."""
    medium = {"thresholds": {"yes": 0.5, "no": 0.5}, "false_accepts_per_hour_asked": 40.0}
    Listening({"clips": {"thresholds": {}}, "medium": medium}).write(model)
    settings = RecognizerSettings(200, thresholds=medium["thresholds"] if sensitivity else {}, sensitivity=sensitivity)
    *_, out = evaluate_stream.evaluate(
        model, recordings, settings, hop_ms=50, tolerance_ms=500, out=model / "out <b>"
    )  # fmt: skip
    return out


def text_of(page: Path) -> str:
    """What a reader sees, on one line."""
    text = re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", page.read_text().replace("<wbr>", ""), flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def test_the_page_has_every_table_with_its_intervals(tmp_path: Path) -> None:
    quiet = record(tmp_path / "quiet", {5: 0.4, 20: 0.2}, QUIET)  # yes is detected, no is missed
    noisy = record(tmp_path / "noisy", {5: 0.4, 10: 0.6, 40: 0.4}, NOISY, 120)  # no in speech, yes in nothing

    page = write_stream_page(evaluated(tmp_path, quiet, noisy, tmp_path / "absent"))

    text = text_of(page)
    for part in (
        "out <b>",
        "Keywords missed 33.3 % of 3; 95 %: 6.1 to 79.2 %",
        "False accepts an hour 40.0 in 0.05 hours; 95 %: 4.8 to 144.5",
        "With threshold 0.7: 2 correct, 1 missed (33.3 %)",
        "'absent' is set aside: no folder",
        "noisy 1 0.0 % 0.0 to 79.3 %",
        "2 0.03 60.0 7.3 to 216.7",  # false accepts of that recording, its hours and rate
        "signal-to-noise, dB",
        "0.3 s 1 100.0 % 20.7 to 100.0 %",
        "telephone 1 0.0 %",
        "bob 1 100.0 %",
        "eva 0 – – – 1",
        "The tenth of the 2 speakers with the most misses (bob): 100.0 % of 1 keywords missed",
    ):
        assert part in text, part
    assert not re.search(r"(src|href)=\"(?!#|data:)", page.read_text())


def test_claims_that_the_hours_cannot_carry_are_marked(tmp_path: Path) -> None:
    """Also those that a recording refutes."""
    minute = record(tmp_path / "minute", {10: 0.4}, QUIET)
    busy = record(tmp_path / "busy", dict.fromkeys(range(30, 50, 2), 0.6), QUIET)
    hour = record(tmp_path / "hour", {10: 0.4}, QUIET, 3600)

    out = evaluated(tmp_path, minute, sensitivity="medium")
    metrics = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert (metrics["false_accepts_per_hour_asked"], metrics["shown"]) == (40, False)
    text = text_of(write_stream_page(out))
    assert "medium sensitivity: at most 40 an hour is not shown by 0.02 h with 1 false accept; it needs 0.1 h" in text
    assert "not shown: needs" in text

    text = text_of(write_stream_page(evaluated(tmp_path, busy, sensitivity="medium")))
    assert "medium sensitivity: at most 40 an hour is exceeded: 600.0 an hour (10 in 0.02 h" in text

    text = text_of(write_stream_page(evaluated(tmp_path, hour, sensitivity="medium")))
    assert "at most 40 an hour" not in text
    rows = dict(re.findall(r"(\d+\.0) \S+ to \S+ (shown|not shown: needs \S+ h)", text))
    assert rows == {"1.0": "not shown: needs 4.7 h", "2.0": "not shown: needs 2.4 h"} | dict.fromkeys(
        ("5.0", "10.0", "20.0", "50.0"), "shown"
    )


def test_a_page_without_keywords_and_without_conditions(tmp_path: Path) -> None:
    talk = record(tmp_path / "talk", {10: 0.6}, HEADER + "9000,12000,_speech_,0,eva,none,clean\n")
    text = text_of(write_stream_page(evaluated(tmp_path, talk)))
    assert "Keywords missed – none is said" in text
    assert "worst" not in text
