"""What exports and long recordings add to a run's report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kws_data.errors import KwsError
from kws_experiments.evaluation.intervals import false_accepts
from kws_experiments.export.artifact import Artifact, ModelFile, Port
from kws_experiments.reports.run_report import renew_run_report, write_run_report
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.listening import Listening
from tests.kws_experiments.reports.test_report import make_run


def add_export(run: Path, name: str) -> None:
    check = {
        "split": "testing", "clips": 543, "accuracy": 0.913, "disagreements": 4, "latency_ms": 0.54,
        "original": {"accuracy": 0.926, "bytes": 1_435_600, "latency_ms": 3.28},
    }  # fmt: skip
    port = Port("input", [1, 16000], "float32")
    model = ModelFile("model.tflite", "waveform", port, port, bytes=386_600, check=check)
    folder = RunFolder(run).exports / name
    folder.mkdir(parents=True)
    Artifact(
        format="tflite", quantize="int8", run={}, labels=["yes", "no"], sample_rate=16000, clip_samples=16000,
        front_end={}, thresholds={}, thresholds_from="", data_licence=None, data_citation=None, versions={},
        files=[model], notes=[],
    ).write(folder)  # fmt: skip


def add_stream(run: Path, name: str) -> Path:
    folder = RunFolder(run).streams / name
    folder.mkdir(parents=True)
    metrics = {
        "hours": 0.5, "keywords": 399, "unknown_words": 197, "detection_threshold": 0.7, "correct": 318, "missed": 81,
        "miss_rate": 0.203, "wrong": 15, "false_accepts": 27, "false_accepts_per_hour": 54.0,
        "latency_ms": {"median": 138.0, "p90": 300.0, "max": 700.0},
        "operating_points": [
            {"false_accepts_per_hour_at_most": 0, "threshold": None, "miss_rate": None},
            {"false_accepts_per_hour_at_most": 2, "threshold": 0.86, "miss_rate": 0.338},
        ],
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    curve = {"threshold": [0.5, 0.86], "miss_rate": [0.1, 0.338], "false_accepts_per_hour": [90.0, 2.0]}
    pd.DataFrame(curve).to_parquet(folder / "curve.parquet")
    (folder / "words.csv").write_text("time_ms,end_ms,word,detected_ms\n100,500,yes,640\n2000,2400,no,\n")
    return folder


def test_exports_and_long_recordings_are_told_of(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_export(run, "tflite-int8")
    add_stream(run, "half <hour>")

    html, markdown = write_run_report(run).read_text(), (run / "report.md").read_text()

    for text in (html, markdown):
        for figure in (
            "539 of 543",
            "91.3%",
            "386.6 kB",
            "0.54",
            "318 correct, 81 missed",
            "54.0 an hour (27 in 0.50 h, 95 % interval 35.6 to 78.6)",
            "33.8 %",
        ):
            assert figure in text
        assert "27 false accepts: 54.0 an hour (27 in 0.50 h, 95 % interval 35.6 to 78.6)" in text
    assert 'href="#exports"' in html
    assert 'href="#streams"' in html
    assert "half &lt;hour&gt;" in html
    assert "<hour>" not in html
    assert "mathdefault" not in html
    (picture,) = (run / "figures").glob("stream_*.png")
    assert picture.stat().st_size > 10_000
    assert f"figures/{picture.name}" in markdown


def add_sensitivities(run: Path, apart: dict[str, dict[str, Any]], speech: dict[str, str] | None = None) -> None:
    measured = {
        "keywords": 400, "missed": 60, "miss_rate": 0.15, "wrong": 3, **false_accepts(1, 0.75, 2.0), "apart": apart,
        "by_snr": [{"snr_db": 10.0, "keywords": 400, "missed": 60, "miss_rate": 0.153}],
    }  # fmt: skip
    listening = Listening.read(run)
    words = dict.fromkeys(listening.thresholds, 0.877)
    settings = {"average_window_ms": 320.0, "suppression_ms": 300.0}
    medium = {"settings": settings, "thresholds": words, "false_accepts_per_hour_asked": 2.0, "measured": measured}
    tuned_on = {"streams": [{"minutes": 15.0}] * 3, "different_clips": 271, "different_unknown_clips": 37}
    tuned_on |= {"speech": speech} if speech else {}
    Listening(listening.sensitivities | {"medium": medium}, tuned_on).write(run)


def test_sensitivities_stand_with_their_hours_intervals_and_claims(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_sensitivities(run, {})

    html, markdown = write_run_report(run).read_text(), (run / "report.md").read_text()

    for text in (html, markdown):
        assert "1.3 an hour (1 in 0.75 h, 95 % interval 0.0 to 7.4)" in text
        assert "not shown: needs 2.4 h" in text
        for value in ("15.3 %", "0.877", "45 minutes", "271", "320 ms"):
            assert value in text
        assert "running speech" not in text
    assert 'href="#sensitivities"' in html


def test_false_accepts_in_running_speech_stand_apart(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_sensitivities(run, {"words": false_accepts(1, 0.5), "speech": false_accepts(0, 0.25)}, {"speech": "synthetic"})

    html, markdown = write_run_report(run).read_text(), (run / "report.md").read_text()

    for text in (html, markdown):
        assert "2.0 an hour (1 in 0.50 h, 95 % interval 0.1 to 11.1)" in text
        assert "0.0 an hour (0 in 0.25 h, 95 % interval 0.0 to 14.8)" in text
        assert "running speech (synthetic)" in text


def test_a_report_without_them_has_no_such_section(tmp_path: Path) -> None:
    html = write_run_report(make_run(tmp_path / "run")).read_text()

    assert 'id="exports"' not in html
    assert 'id="streams"' not in html
    assert 'id="sensitivities"' not in html


def test_a_damaged_addition_is_one_line_and_the_older_report_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path / "run")
    before = write_run_report(run).read_bytes()
    folder = add_stream(run, "noon")
    (folder / "metrics.json").write_text('{"hours": 0.5}')

    with pytest.raises(KwsError, match=r"streams/noon/.*' is missing or damaged: kws evaluate-stream writes it again"):
        write_run_report(run)
    renew_run_report(run)

    assert "the report is as it was" in caplog.text
    assert (run / "report.html").read_bytes() == before


def test_only_a_report_that_is_there_is_renewed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    renew_run_report(run)
    assert not (run / "report.html").exists()

    write_run_report(run)
    add_export(run, "tflite-int8")
    renew_run_report(run)

    assert 'id="exports"' in (run / "report.html").read_text()
