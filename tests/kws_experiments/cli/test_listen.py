"""`kws label`, `kws stream` and `kws evaluate-stream` on a network trained for seconds on real clips."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from kws_data.errors import KwsError
from kws_data.streams.plan import StreamSettings
from kws_experiments.export.load import load_scorer
from kws_experiments.streaming import audio_file
from kws_experiments.streaming.listener import open_listener
from kws_experiments.streaming.make_stream import write_stream
from kws_experiments.streaming.recognize import RecognizerSettings
from kws_experiments.streaming.windows import EachWindow, FramesOnce, open_windows
from tests.conftest import ROOT, SAMPLE_RATE
from tests.kws_experiments.conftest import Kws
from tests.kws_experiments.test_train import SMALL, only_run, train

WORDS = ["yes", "stop", "left"]


@pytest.fixture(scope="module")
def run(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on three words."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KWS_DATA", str(folder / "cache"))
        small = [override for override in SMALL if not override.startswith(("model.", "trainer.batch"))]
        train(folder, "dataset=folder", f"dataset.path={real_data}", "split=lists", *small, "features.normalise=true",
              f"task.words=[{','.join(WORDS)}]", "model.filters=24", "task.unknown_percentage=60",
              "trainer.epochs=18", "trainer.batch_size=32", "optimizer.learning_rate=0.005",
              "augment=original")  # fmt: skip
    return only_run(folder)


@pytest.fixture(scope="module")
def recording(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three minutes with these words."""
    folder = tmp_path_factory.mktemp("recording") / "three_minutes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KWS_DATA", str(folder.parent / "cache"))
        overrides = ["dataset=folder", f"dataset.path={real_data}", "split=lists", "task=custom", "task.unknown=true"]
        write_stream([*overrides, f"task.words=[{','.join(WORDS)}]"], folder, StreamSettings(3, (20, 20)))
    return folder


pytestmark = pytest.mark.slow


def test_label_lists_the_best_classes_of_every_file(kws: Kws, run: Path, real_data: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for word in WORDS:
        (clips / word).mkdir(parents=True)
        for clip in sorted((real_data / word).iterdir())[:50]:
            shutil.copy(clip, clips / word)
    samples, _ = soundfile.read(next((clips / "yes").iterdir()))
    soundfile.write(clips / "stereo.flac", np.repeat(np.stack([samples, samples], axis=1), 3, axis=0), 48000)
    soundfile.write(clips / "one.wav", [0.5], SAMPLE_RATE)
    soundfile.write(clips / "long.ogg", np.zeros(3 * SAMPLE_RATE), SAMPLE_RATE)
    bad = {"cut.wav": (next((clips / "yes").iterdir())).read_bytes()[:999], "text.mp3": b"no sound"}
    for name, content in bad.items():
        (clips / name).write_bytes(content)
    soundfile.write(clips / "nan.wav", [0.0, np.nan], SAMPLE_RATE, subtype="FLOAT")
    out = tmp_path / "labels.csv"

    result = kws("label", run, clips, "--out", out, "--top", 2)

    assert result.status == 1  # some could not be read
    for name in (*bad, "nan.wav"):
        assert f"{name}: " in result.log
    assert "1 files are longer than the model's window: 1 s of each are labelled (clip_from=auto)" in result.log
    table = pd.read_csv(out)
    assert list(table) == ["path", "label_1", "score_1", "label_2", "score_2"]
    assert len(table) == 150 + 3
    assert (table["score_1"] >= table["score_2"]).all()
    known = table[~table["path"].str.contains(r"stereo|one\.wav|long")]
    correct = [Path(path).parent.name for path in known["path"]] == known["label_1"]
    assert correct.mean() > 0.6
    scorer = load_scorer(run)
    some = known.iloc[7]
    clip, _ = soundfile.read(some["path"], dtype="float32")
    scores = scorer.scores(clip[None])[0]
    assert scorer.labels[scores.argmax()] == some["label_1"]
    assert some["score_1"] == pytest.approx(scores.max(), abs=1e-3)


def test_label_prints_and_draws(kws: Kws, run: Path, real_data: Path, tmp_path: Path) -> None:
    files = sorted((real_data / "stop").iterdir())[:2]

    table = kws("label", run, *files, "--figures", tmp_path / "figures")
    as_json = kws("label", run, *files, "--json", "--top", 6)
    as_csv = kws("label", run, *files, "--csv")

    assert [result.status for result in (table, as_json, as_csv)] == [0, 0, 0]
    assert files[0].name in table.out.replace("\n", "")
    rows = json.loads(as_json.out)
    assert [row["path"] for row in rows] == [str(file) for file in files]
    assert [len(row["top"]) for row in rows] == [5, 5]
    assert sum(best["score"] for best in rows[0]["top"]) == pytest.approx(1, abs=1e-3)
    assert as_csv.out.splitlines()[1].startswith(f"{files[0]},{rows[0]['top'][0]['label']},")
    pictures = sorted((tmp_path / "figures").iterdir())
    assert [picture.name for picture in pictures] == [f"{file.name}.png" for file in files]
    assert Image.open(pictures[0]).size[0] > 800


def test_stream_finds_the_same_words_however_it_runs(kws: Kws, run: Path, recording: Path, tmp_path: Path) -> None:
    audio, track = recording / "stream.wav", tmp_path / "track.txt"

    lines = kws("stream", run, audio, "--json", "--labels", track)

    assert lines.status == 0
    found = [json.loads(line) for line in lines.out.splitlines()]
    assert {"time_ms", "word", "score"} == set(found[0])
    assert {row["word"] for row in found} <= set(WORDS)
    assert "real-time factor" in lines.err
    assert [line.split("\t") for line in track.read_text().splitlines()] == [
        [f"{row['time_ms'] / 1000:.6f}"] * 2 + [row["word"]] for row in found
    ]
    text = kws("stream", run, audio, "--unknown")
    assert f"{found[0]['time_ms'] / 1000:.2f} s  {found[0]['word']}" in text.out
    assert "_unknown_" in text.out

    shared, samples = open_windows(run, 40), soundfile.read(audio, dtype="float32")[0][: 20 * SAMPLE_RATE]
    each = EachWindow(load_scorer(run), 640)
    assert isinstance(shared, FramesOnce)
    np.testing.assert_allclose(shared.feed(samples).scores, each.feed(samples).scores, atol=1e-4)

    stereo = tmp_path / "stereo.flac"  # the same sound in another format
    whole, _ = soundfile.read(audio)
    soundfile.write(stereo, np.stack([whole, whole], axis=1), SAMPLE_RATE)
    assert kws("stream", run, stereo, "--json").out == lines.out


def test_evaluate_stream_agrees_with_stream_and_writes_everything(kws: Kws, run: Path, recording: Path) -> None:
    result = kws("evaluate-stream", run, recording, "--threshold", 0.6)

    assert result.status == 0, result.err
    out = run / "streams" / "three_minutes"
    assert result.out.strip().splitlines()[-1] == str(out)
    metrics = json.loads((out / "metrics.json").read_text())
    detections, words = pd.read_csv(out / "detections.csv"), pd.read_csv(out / "words.csv")
    curve = pd.read_parquet(out / "curve.parquet")
    assert Image.open(out / "stream.png").size[0] > 1000
    keywords = words[words["word"].isin(WORDS)]
    assert metrics["keywords"] == len(keywords)
    assert metrics["keywords"] + metrics["unknown_words"] == len(words)
    assert metrics["correct"] == keywords["detected_ms"].notna().sum() == (detections["outcome"] == "correct").sum()
    assert metrics["correct"] + metrics["missed"] == metrics["keywords"]
    assert metrics["correct"] + metrics["wrong"] + metrics["false_accepts"] == len(detections)
    assert metrics["false_accepts_per_hour"] == pytest.approx(metrics["false_accepts"] * 20)
    assert metrics["miss_rate"] < 0.8  # it was trained for seconds
    assert sum(row["said"] for row in metrics["per_word"].values()) == metrics["keywords"]
    at = curve[np.isclose(curve["threshold"], 0.6)].iloc[0]
    assert (at["correct"], at["wrong"], at["false_accepts"]) == tuple(
        metrics[name] for name in ("correct", "wrong", "false_accepts")
    )
    assert curve["false_accepts"].iloc[0] >= curve["false_accepts"].iloc[-1]
    late = keywords["detected_ms"] - keywords["end_ms"]
    assert metrics["latency_ms"]["median"] == pytest.approx(late.median())
    lines = kws("stream", run, recording / "stream.wav", "--threshold", 0.6, "--json").out.splitlines()
    streamed = pd.DataFrame([json.loads(line) for line in lines])[["time_ms", "word"]]
    length_ms = 180_000
    pd.testing.assert_frame_equal(streamed[streamed["time_ms"] <= length_ms], detections[["time_ms", "word"]])
    before = (out / "metrics.json").read_bytes()
    assert kws("evaluate-stream", run, recording, "--threshold", 0.6).status == 0
    assert (out / "metrics.json").read_bytes() == before


def test_a_tuned_run_listens_by_its_sensitivities_and_so_do_its_exports(
    kws: Kws, run: Path, recording: Path, tmp_path: Path
) -> None:
    tuned, audio = tmp_path / "tuned", recording / "stream.wav"
    shutil.copytree(run, tuned, ignore=shutil.ignore_patterns("streams"))
    asked = ("--false-accepts-per-hour", "5,40,200", "--snr-db", "10,20", "--minutes", 1.5)
    asked += ("--speech", recording, "--speech-minutes", 0.5)  # with words that its table lists

    result = kws("tune", tuned, *asked)

    assert result.status == 0, result.err
    assert result.out.splitlines()[-1] == str(tuned / "listening.json")
    assert "low: at most 5 an hour is not shown by 0.07 h" in result.out
    assert "low: among words 0.0 an hour (0 in 0.05 h, 95 %" in result.out
    kept = (tuned / "listening.json").read_bytes()
    content = json.loads(kept)
    assert list(content["sensitivities"]) == ["clips", "low", "medium", "high"]
    assert [stream["seed"] for stream in content["tuned_on"]["streams"]] == [0, 1, -1, -2]
    assert content["tuned_on"]["speech"]["speech"] == str(recording)
    assert list(content["sensitivities"]["low"]["measured"]["apart"]) == ["words", "speech"]
    assert not (tuned / "streams").exists()
    assert kws("tune", tuned, *asked).status == 0
    assert (tuned / "listening.json").read_bytes() == kept

    def words(model: Path, *options: object) -> list[str]:
        return kws("stream", model, audio, "--json", *options).out.splitlines()

    assert words(tuned) == words(tuned, "--sensitivity", "medium")
    assert len(words(tuned, "--sensitivity", "low")) < len(words(tuned, "--sensitivity", "high"))
    assert words(tuned, "--rule", "original") == words(run)  # as before it was tuned
    assert words(tuned, "--threshold", 0.999) == []
    assert "--sensitivity: " in kws("stream", tuned, audio, "--sensitivity", "loud").error()
    assert "--rule must be one of original, per-word" in kws("stream", tuned, audio, "--rule", "newest").error()
    metrics = {}
    for name in ("low", "high"):
        assert kws("evaluate-stream", tuned, recording, "--sensitivity", name).status == 0
        metrics[name] = json.loads((tuned / "streams" / "three_minutes" / "metrics.json").read_text())
        assert metrics[name]["sensitivity"] == name
        assert metrics[name]["thresholds"] == content["sensitivities"][name]["thresholds"]
        low, high = metrics[name]["false_accepts_per_hour_95"]
        assert low <= metrics[name]["false_accepts_per_hour"] <= high
    assert metrics["low"]["missed"] > metrics["high"]["missed"]

    command = [sys.executable, "-m", "kws_experiments.cli.main", "export", str(tuned), "--format", "tflite"]
    for quantize, check in (("none", "--no-check"), ("int8", "--no-check"), ("int8", "--check")):
        whole = [*command, "--quantize", quantize, check]
        done = subprocess.run(whole, cwd=ROOT, check=True, capture_output=True, text=True)
        export = tuned / "exports" / f"tflite-{quantize}"
        assert json.loads((export / "export.json").read_text())["sensitivities"] == ["clips", "low", "medium", "high"]
        (header,) = export.glob("*.h")
        assert "_thresholds_medium[" in header.read_text()
        theirs = json.loads((export / "listening.json").read_text())
        own_scores = check == "--check"
        assert ("tuned on the scores of the run's own model" in done.stderr) == (quantize == "int8" and not own_scores)
        assert (theirs["sensitivities"]["high"] != content["sensitivities"]["high"]) == own_scores
        assert theirs["tuned_on"] == content["tuned_on"]
    theirs = theirs["sensitivities"]
    assert theirs["clips"]["thresholds"] == json.loads((export / "export.json").read_text())["thresholds"]
    for name in ("low", "medium", "high"):
        ours = content["sensitivities"][name]
        for key in ("average_window_ms", "rule"):
            assert theirs[name]["settings"][key] == ours["settings"][key]
        assert theirs[name]["false_accepts_per_hour_asked"] == ours["false_accepts_per_hour_asked"]
        assert theirs[name]["thresholds"] == pytest.approx(ours["thresholds"], abs=0.1)
    assert words(tuned / "exports" / "tflite-none") == words(
        tuned / "exports" / "tflite-none", "--sensitivity", "medium"
    )


def test_recordings_with_and_without_keywords_are_evaluated_together(
    kws: Kws, run: Path, recording: Path, tmp_path: Path
) -> None:
    pytest.importorskip("espeakng_loader")
    talk, busy = tmp_path / "talk", tmp_path / "busy"
    options = ["--minutes", 1, "--speech", "synthetic"]
    assert kws("make-stream", run, "--out", talk, *options, "--level-db", "-40,-20").status == 0
    rooms = ["--rooms", "none", "--rooms", "synthetic", "--channel", "clean", "--channel", "telephone"]
    inside = ["--speech-percentage", 0, "--inside-percentage", 50, "--repeat-percentage", 50]
    assert kws("make-stream", run, "--out", busy, *options, *rooms, *inside).status == 0
    assert set(pd.read_csv(talk / "truth.csv")["word"]) == {"_speech_"}
    assert set(pd.read_csv(busy / "truth.csv")["word"]) > {"_speech_"}

    result = kws("evaluate-stream", run, recording, talk, busy, tmp_path / "absent", "--threshold", 0.6)

    assert result.status == 1
    assert "'absent' is set aside: no folder" in result.log
    for text in ("recording talk", "none said", "channel telephone", "word stop", "speakers with the most misses"):
        assert text in result.out, text
    metrics = json.loads((run / "streams" / "three_minutes+talk+busy" / "metrics.json").read_text())
    assert metrics["hours"] == pytest.approx(5 / 60)
    low, high = metrics["false_accepts_per_hour_95"]
    assert low <= metrics["false_accepts_per_hour"] <= high
    page = (run / "streams" / "three_minutes+talk+busy" / "report.html").read_text()
    assert "By signal-to-noise, dB" in page
    assert "&#39;absent&#39; is set aside" in page
    alone = kws("evaluate-stream", run, talk)
    assert alone.status == 0
    assert json.loads((run / "streams" / "talk" / "metrics.json").read_text())["miss_rate"] is None


def test_an_export_labels_and_listens_as_its_run(
    kws: Kws, run: Path, recording: Path, real_data: Path, tmp_path: Path
) -> None:
    # in its own process, since it sets the threads, which TensorFlow allows once
    command = [sys.executable, "-m", "kws_experiments.cli.main", "export", str(run), "--format", "tflite", "--no-check"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    export, files = run / "exports" / "tflite-none", sorted((real_data / "left").iterdir())[:5]
    start = tmp_path / "start.wav"
    samples, _ = soundfile.read(recording / "stream.wav", frames=15 * SAMPLE_RATE)
    soundfile.write(start, samples, SAMPLE_RATE)

    ours, theirs = (json.loads(kws("label", model, *files, "--json").out) for model in (run, export))
    for one, other in zip(ours, theirs, strict=True):
        assert one["top"][0]["label"] == other["top"][0]["label"]
        assert one["top"][0]["score"] == pytest.approx(other["top"][0]["score"], abs=0.01)
    ours, theirs = (kws("stream", model, start, "--threshold", 0.5).out.splitlines() for model in (run, export))
    assert [line.split()[:3] for line in ours] == [line.split()[:3] for line in theirs]  # times and words
    assert "--out: give a folder to write to" in kws("evaluate-stream", export, recording).error()


def test_mistakes_are_one_line(kws: Kws, run: Path, recording: Path, tmp_path: Path) -> None:
    audio = recording / "stream.wav"
    cut = tmp_path / "cut.wav"
    cut.write_bytes(audio.read_bytes()[:99_999])
    nan = tmp_path / "nan.wav"
    soundfile.write(nan, np.full(SAMPLE_RATE, np.nan), SAMPLE_RATE, subtype="FLOAT")
    other = tmp_path / "other"
    shutil.copytree(recording, other)
    (other / "truth.csv").write_text("time_ms,word\nsoon,marvin\n")
    short = tmp_path / "short"
    shutil.copytree(recording, short)
    soundfile.write(short / "stream.wav", np.zeros(100), SAMPLE_RATE)
    for arguments, message in (
        (("stream", run, cut), "cut.wav': cut short"),
        (("stream", run, nan), "nan.wav': holds samples that are not finite"),
        (("stream", run, tmp_path), "is a folder: give one audio file; kws label takes folders"),
        (("stream", run, tmp_path / "absent.wav"), "no such file"),
        (("stream", tmp_path / "absent", audio), "holds no run: give the folder of a run, or of an export"),
        (("stream", tmp_path, audio), "holds no run: give the folder of a run"),
        (("stream", run), "give one audio file, or --microphone"),
        (("stream", run, audio, "--hop-ms", 0), "--hop-ms: must be from one sample"),
        (("stream", run, audio, "--threshold", 2), "--threshold must be a number from 0 to 1"),
        (("stream", run, audio, "--minimum-count", 0), "--minimum-count must be"),
        (("label", run, tmp_path / "absent"), "no such file or folder"),
        (("label", run, nan), "the file cannot be read"),
        (("label", run, audio, "--out", "x.txt"), "must end in .csv or .json"),
        (("evaluate-stream", run, other), "row 2: time_ms must be a number of milliseconds, got 'soon'"),
        (("evaluate-stream", run, tmp_path), "stream.wav"),
        (("evaluate-stream", run, tmp_path / "absent"), "give one that kws make-stream made"),
        (("evaluate-stream", run, short), "shorter than one window"),
        (("make-stream", run, "--out", tmp_path / "new", "--snr-db", "loud"), "--snr-db must be a number, or LOW,HIGH"),
        (("make-stream", run, "--out", tmp_path), "is not a stream"),
        (("make-stream", run, "--out", tmp_path / "new", "--channel", "radio"), "--channel must be one of clean, tele"),
        (("make-stream", run, "--out", tmp_path / "new", "--rooms", tmp_path / "absent"), "--rooms: no folder"),
        (("make-stream", run, "--out", tmp_path / "new", "--speech", tmp_path / "absent"), "or 'synthetic'"),
        (("make-stream", run, "--out", tmp_path / "new", "--inside-percentage", 5), "give --speech"),
        (
            ("make-stream", run, "--out", tmp_path / "new", "--speech-percentage", 5),
            "--speech-percentage is of running",
        ),
        (("make-stream", run, "--out", tmp_path / "new", "--loop"), "--loop is of running speech: give --speech"),
    ):
        assert message in kws(*arguments).error(), arguments
    assert not (tmp_path / "new").exists()
    assert not (run / "streams" / "other").exists()


def test_silence_and_one_sample_are_no_mistake(kws: Kws, run: Path, tmp_path: Path) -> None:
    for name, count in (("silence", 5 * SAMPLE_RATE), ("sample", 1)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, np.zeros(count), SAMPLE_RATE)
        result = kws("stream", run, path, "--threshold", 0.9)
        assert (result.status, result.out) == (0, "")


def test_a_file_that_ends_badly_keeps_the_labels_before(
    kws: Kws, run: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole.txt", tmp_path / "cut.txt"
    kws("stream", run, recording / "stream.wav", "--labels", whole)
    real = audio_file.file_blocks

    def ends_badly(*arguments: Any) -> Iterator[np.ndarray]:
        yield from real(*arguments)
        raise KwsError("cut short")

    monkeypatch.setattr(audio_file, "file_blocks", ends_badly)
    assert kws("stream", run, recording / "stream.wav", "--labels", cut).error() == "error: cut short"
    assert cut.read_text()
    assert whole.read_text().startswith(cut.read_text())


def test_a_full_disk_leaves_no_labels(kws: Kws, run: Path, recording: Path, tmp_path: Path, monkeypatch) -> None:
    def full(self: Path, *arguments: object, **options: object) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    result = kws("stream", run, recording / "stream.wav", "--labels", tmp_path / "kept" / "labels.txt")
    assert "No space left on device" in result.err.splitlines()[-1]
    assert list((tmp_path / "kept").iterdir()) == []


class FakeSound(types.ModuleType):
    """Replaces sounddevice: a device that plays a recording, or that fails."""

    class PortAudioError(Exception):
        """The error of sounddevice."""

    def __init__(self, samples: np.ndarray, error: Exception | None = None) -> None:
        super().__init__("sounddevice")
        self.samples, self.error, self.asked = samples, error, {}

    @contextmanager
    def InputStream(self, *, callback, **asked):
        if self.error:
            raise self.error
        self.asked, size = asked, asked["blocksize"]
        for at in range(0, len(self.samples) - size + 1, size):
            callback(self.samples[at : at + size, None], size, None, None)
        yield


def test_the_microphone(kws: Kws, run: Path, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, _ = soundfile.read(recording / "stream.wav", dtype="float32")
    samples = samples[: 9 * SAMPLE_RATE]
    listener = open_listener(run, RecognizerSettings(detection_threshold=0.5))
    expected = [detection.word for detection in listener.feed(samples[: len(samples) // 640 * 640])]
    assert expected
    from kws_experiments.streaming import microphone

    monkeypatch.setattr(microphone, "_WAIT_S", 0.1)
    fake = FakeSound(samples)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    result = kws("stream", run, "--microphone", "--json", "--threshold", 0.5, "--device", "3")
    assert [json.loads(line)["word"] for line in result.out.splitlines()] == expected
    assert "nothing came for 0.1 s" in result.err  # the recording has ended
    assert fake.asked == {"samplerate": 16000, "blocksize": 640, "channels": 1, "dtype": "float32", "device": 3}

    monkeypatch.setattr(microphone, "_BEHIND_S", 1)
    assert "the model is 1 s behind" in kws("stream", run, "--microphone").err
    for error in (FakeSound.PortAudioError("Error querying device -1"), ValueError("No input device matching 'x'")):
        monkeypatch.setitem(sys.modules, "sounddevice", FakeSound(samples, error))
        line = kws("stream", run, "--microphone").err.splitlines()[-1]
        assert line.startswith(f"error: --microphone: no sound from it: {error}")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert "pip install -e '.[microphone]'" in kws("stream", run, "--microphone").err.splitlines()[-1]


@pytest.mark.parametrize("command", ["label", "stream", "make-stream", "evaluate-stream", "tune"])
def test_help_needs_no_tensorflow(command: str) -> None:
    code = f"""
import sys
sys.argv = ["kws", "{command}", "--help"]
from kws_experiments.cli.main import main
try:
    main()
except SystemExit:
    print([name for name in ("tensorflow", "keras", "matplotlib", "sklearn") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip().endswith("[]"), result.stdout + result.stderr
