"""Several recordings together: what counts, what is set aside, by condition, and with which intervals."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from kws_data.errors import KwsError
from kws_experiments.evaluation.intervals import poisson_rate, wilson
from kws_experiments.streaming import evaluate_stream
from kws_experiments.streaming.by_condition import by_condition, worst_speakers
from kws_experiments.streaming.recognize import RecognizerSettings
from kws_experiments.streaming.windows import WindowScorer

RATE = 1000
LABELS = ["_silence_", "_unknown_", "yes", "no"]


class Loudness(WindowScorer):
    """A model that takes a constant of 0.4 for 'yes', of 0.6 for 'no', and all else for silence."""

    def __init__(self) -> None:
        super().__init__(LABELS, RATE, 100, 50)
        self._rest = np.zeros(0)

    def _feed(self, samples: np.ndarray) -> np.ndarray:
        samples = np.concatenate([self._rest, samples])
        count = max(0, (len(samples) - 100) // 50 + 1)
        self._rest = samples[50 * count :]
        levels = np.array([samples[50 * index : 50 * index + 100].mean() for index in range(count)])
        classes = np.select([np.abs(levels - 0.4) < 0.05, np.abs(levels - 0.6) < 0.05], [2, 3], 0)
        return np.eye(4, dtype=np.float32)[classes] * 0.9 + 0.025


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_stream, "open_windows", lambda path, hop_ms: Loudness())


def record(folder: Path, heard: dict[float, float], truth: str, seconds: float = 60) -> Path:
    """A recording with a constant level for half a second from each time on."""
    samples = np.zeros(round(seconds * RATE))
    for time, level in heard.items():
        samples[round(time * RATE) : round((time + 0.5) * RATE)] = level
    folder.mkdir(parents=True)
    soundfile.write(folder / "stream.wav", samples, RATE)
    (folder / "truth.csv").write_text(truth)
    return folder


def evaluate(tmp_path: Path, *recordings: Path) -> tuple[dict, pd.DataFrame, Path]:
    settings = RecognizerSettings(average_window_ms=200, detection_threshold=0.5)
    return evaluate_stream.evaluate(
        tmp_path, recordings, settings, hop_ms=50, tolerance_ms=500, out=tmp_path / "out"
    )  # fmt: skip


HEADER = "time_ms,end_ms,word,snr_db,speaker,room,channel\n"
QUIET = HEADER + "5000,5500,yes,15,ann,none,clean\n20000,20500,no,15,bob,0.3 s,clean\n"
NOISY = HEADER + "5000,5500,yes,0,ann,none,telephone\n9000,12000,_speech_,0,eva,none,telephone\n"


def test_recordings_count_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quiet = record(tmp_path / "quiet", {5: 0.4, 20: 0.2}, QUIET)  # yes is detected, no is missed
    noisy = record(tmp_path / "noisy", {5: 0.4, 10: 0.6, 40: 0.4}, NOISY, 120)  # no in speech, yes in nothing
    none = record(tmp_path / "none", {30: 0.6}, "time_ms,word\n", 180)

    result, table, out = evaluate(tmp_path, quiet, noisy, none)

    assert (result["keywords"], result["correct"], result["missed"], result["false_accepts"]) == (3, 2, 1, 3)
    assert result["unknown_words"] == 0  # running speech is no word
    assert result["false_accepts_on_other_words"] == 1
    assert result["hours"] == pytest.approx(0.1)
    assert result["false_accepts_per_hour"] == pytest.approx(30)
    assert result["false_accepts_per_hour_95"] == poisson_rate(3, result["hours"])
    assert result["miss_rate_95"] == wilson(1, 3)
    rows = table.set_index(["condition", "value"])
    assert rows.loc[("recording", "none"), ["said", "false_accepts"]].tolist() == [0, 1]
    assert rows.loc[("recording", "noisy"), "false_accepts_per_hour"] == pytest.approx(60)
    assert rows.loc[("snr_db", "15"), ["said", "missed"]].tolist() == [2, 1]
    assert rows.loc[("snr_db", "0"), ["said", "missed", "false_accepts"]].tolist() == [1, 0, 1]
    assert rows.loc[("room", "0.3 s"), ["said", "missed"]].tolist() == [1, 1]
    assert rows.loc[("channel", "telephone"), "false_accepts"] == 1
    assert rows.loc[("word", "yes"), ["said", "missed", "false_accepts"]].tolist() == [2, 0, 1]
    assert rows.loc[("word", "no"), ["said", "missed", "false_accepts"]].tolist() == [1, 1, 2]
    assert rows.loc["speaker"].index.tolist() == ["bob", "ann", "eva"]
    assert result["worst_speakers"] == {"speakers": ["bob"], "of": 2, "said": 1, "missed": 1, "miss_rate": 1.0}
    assert json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)["recordings"] == [
        "quiet", "noisy", "none",
    ]  # fmt: skip
    assert pd.read_csv(out / "by_condition.csv")["condition"].tolist() == table["condition"].tolist()
    words, found = pd.read_csv(out / "words.csv"), pd.read_csv(out / "detections.csv")
    assert words["recording"].tolist() == ["quiet", "quiet", "noisy", "noisy"]
    assert found["recording"].tolist() == ["quiet", "noisy", "noisy", "noisy", "none"]
    curve = pd.read_parquet(out / "curve.parquet")
    at = curve[curve["threshold"] == 0.5].iloc[0]
    assert (at["correct"], at["false_accepts"], at["miss_rate"]) == (2, 3, pytest.approx(1 / 3))
    assert at[["false_accepts_per_hour_low", "false_accepts_per_hour_high"]].tolist() == pytest.approx(
        poisson_rate(3, result["hours"])
    )
    assert Image.open(out / "stream.png").size[0] > 1000
    assert caplog.text.count("misses are not measured") == 0


def test_a_recording_without_keywords_counts_for_false_accepts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = record(tmp_path / "talk", {10: 0.6}, HEADER + "9000,12000,_speech_,0,eva,none,clean\n")

    result, table, out = evaluate(tmp_path, talk)

    assert (result["keywords"], result["miss_rate"], result["miss_rate_95"]) == (0, None, None)
    assert result["false_accepts"] == 1
    assert {point["miss_rate"] for point in result["operating_points"]} == {None}
    assert result["operating_points"][0]["threshold"] > 0.9
    json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    evaluate_stream.show(result, table)
    assert "none said" in capsys.readouterr().out
    assert "misses" not in caplog.text
    other = record(tmp_path / "other", {}, "time_ms,word\n100,marvin\n")
    evaluate(tmp_path, other)
    assert "no word of the model's (yes, no) is said, but marvin: only false accepts are counted" in caplog.text


def test_bad_recordings_are_set_aside_in_a_line_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = record(tmp_path / "good", {5: 0.4}, QUIET)
    cut = record(tmp_path / "cut", {}, QUIET)
    (cut / "stream.wav").write_bytes((cut / "stream.wav").read_bytes()[:999])
    broken = record(tmp_path / "broken", {}, "time_ms,word\nsoon,yes\n")
    short = record(tmp_path / "short", {}, QUIET, 0.05)
    bare = record(tmp_path / "bare", {}, QUIET)
    (bare / "truth.csv").unlink()
    other = record(tmp_path / "other", {}, "time_ms,word\n5000,yes\n60000,no\n")
    with caplog.at_level(logging.WARNING):
        result, _, _ = evaluate(tmp_path, good, cut, broken, short, bare, tmp_path / "absent", other)

    assert result["recordings"] == ["good"]
    assert list(result["set_aside"]) == ["cut", "broken", "bare", "absent", "short", "other"]
    assert len(caplog.messages) == 6
    for message in (
        "'cut' is set aside: ",
        "row 2: time_ms",
        "shorter than one window",
        "write one with the line time_ms",
        "has 'no' at 60000 ms, and",
        "is 60000 ms long: the table must be of this recording",
    ):
        assert message in caplog.text
    with pytest.raises(KwsError, match=r"cut short.*\(nor can the other 1 recordings be used\)"):
        evaluate(tmp_path, cut, broken)
    with pytest.raises(KwsError, match=r"give one that kws make-stream made$"):
        evaluate(tmp_path, tmp_path / "absent")


def test_names_of_recordings(tmp_path: Path) -> None:
    first, second = (record(tmp_path / parent / "half_hour", {5: 0.4}, QUIET) for parent in ("a", "b"))
    result, _, _ = evaluate(tmp_path, first, second, first)
    assert result["recordings"] == [str(first), str(second)]
    assert result["hours"] == pytest.approx(2 / 60)
    model = tmp_path / "run"
    model.mkdir()
    (model / "config.yaml").touch()
    arguments = {"hop_ms": 50, "tolerance_ms": 500, "out": None}
    for recordings, name in (([first], "half_hour"), ([first, second], "half_hour+half_hour")):
        *_, out = evaluate_stream.evaluate(model, recordings, RecognizerSettings(), **arguments)
        assert out == model / "streams" / name
    many = [record(tmp_path / f"recording_number_{number:02}", {5: 0.4}, QUIET) for number in range(6)]
    *_, out = evaluate_stream.evaluate(model, many, RecognizerSettings(), **arguments)
    assert out.name == "recording_number_00+5_more"


def test_many_ratios_are_put_into_steps() -> None:
    count = 40
    words = pd.DataFrame(
        {
            "time_ms": np.arange(count) * 1000.0, "end_ms": np.arange(count) * 1000.0 + 500, "word": "yes",
            "detected_ms": pd.array([None, *range(1, count)], dtype="Int64"), "recording": "a",
            "snr_db": [str(value) for value in np.linspace(-5, 14.99, count).round(2)], "speaker": "", "room": "",
            "channel": "", "clip": "", "level_db": "",
        }
    )  # fmt: skip
    found = pd.DataFrame(columns=["time_ms", "word", "score", "outcome", "on_speech", "recording"])
    table = by_condition(found, words, ["yes"], {"a": 1.0})
    assert table["value"].tolist() == ["-5 to 0", "0 to 5", "5 to 10", "10 to 15"]
    assert table["missed"].tolist() == [1, 0, 0, 0]
    assert worst_speakers(table) is None


def test_words_of_the_truth_are_compared_in_one_form(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Trailing blanks, semicolons and UTF-16 are harmless; another case is another word, and said."""
    one = record(tmp_path / "one", {5: 0.4}, "")
    (one / "truth.csv").write_bytes("time_ms;end_ms;word\r\n5000;5500;yes \r\n".encode("utf-16"))
    result, _, _ = evaluate(tmp_path, one)
    assert (result["keywords"], result["correct"]) == (1, 1)
    other = record(tmp_path / "other", {5: 0.4}, "time_ms,end_ms,word\n5000,5500,Yes\n9000,9500,no\n")
    result, _, _ = evaluate(tmp_path, other)
    assert (result["keywords"], result["correct"]) == (1, 0)
    assert "'Yes' is not the keyword 'yes': upper and lower case differ" in caplog.text


def test_times_in_seconds_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluate(tmp_path, record(tmp_path / "one", {5: 0.4}, "time_ms,end_ms,word\n5.0,5.5,yes\n20,20.5,no\n"))
    assert "all words are in the first 20.5 ms; times must be in milliseconds" in caplog.text
