"""Whole runs, as a user starts them: `python train.py …` in its own process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from kws_data.sources.words import CORE_WORDS
from kws_data.text import markdown
from kws_experiments.runs.saved_model import load_model
from tests.conftest import ROOT, SAMPLE_RATE, MakeFolder, tone
from tests.kws_experiments.conftest import Kws

pytestmark = pytest.mark.slow

# A network small enough that a run is mostly start-up
SMALL = [
    "task=custom", "task.unknown=true", "features=log_mel_20ms", "model.filters=8", "model.num_blocks=1",
    "trainer.batch_size=16", "threads.intra_op=1", "trainer.tensorboard=false", "report=false",
]  # fmt: skip


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip


def train(folder: Path, *overrides: str, status: int = 0) -> str:
    process = start(folder, *overrides)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == status, output
    return output


def wait_for_evaluation(process: subprocess.Popen[str]) -> None:
    """Read the output up to the next evaluation, or to its end."""
    assert process.stdout is not None
    next((line for line in process.stdout if "validation loss" in line), None)


def only_run(folder: Path) -> Path:
    (record,) = folder.glob("runs/*/*/run.json")
    return record.parent


def read_metrics(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


def assert_same_arrays(ours: Path, theirs: Path) -> None:
    """The arrays of two `.npz` files are equal to the bit."""
    with np.load(ours) as a, np.load(theirs) as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{ours.name}: {name}")


@pytest.fixture
def command(make_folder: MakeFolder) -> list[str]:
    """Overrides for a small network on clips of two words and others."""
    return two_words(make_folder())


def two_words(root: Path) -> list[str]:
    return ["dataset=folder", f"dataset.path={root}", *SMALL, "task.words=[yes,no]"]


def test_trains_on_real_clips_and_keeps_everything(real_data: Path, tmp_path: Path) -> None:
    command = ["dataset=folder", f"dataset.path={real_data}", "split=lists", "trainer=quick", "features=log_mel_20ms"]
    output = train(tmp_path, *command)

    run = only_run(tmp_path)
    assert output.count(str(run)) >= 5  # the folder, the report, and three commands
    assert output.strip().splitlines()[-4] == "next:"
    assert f"\nrun: {run}\nreport: {run / 'report.html'}\n" in output
    assert "95 % interval" in output
    predictions, metrics = pd.read_parquet(run / "predictions.parquet"), read_metrics(run)
    labels = (run / "labels.txt").read_text().split()
    assert labels == metrics["labels"] == ["_silence_", "_unknown_", *CORE_WORDS]
    named = set((real_data / "testing_list.txt").read_text().split())
    clips = predictions[predictions["word"] != "_silence_"]
    assert set(clips["clip"]) <= named
    assert metrics["accuracy"] == pytest.approx((predictions["label"] == predictions["predicted"]).mean())
    assert np.sum(metrics["confusion_matrix"]) == metrics["clips"] == len(predictions)
    counts = pd.read_csv(run / "data" / "label_counts.csv", index_col=0)
    assert counts.loc["_silence_", "testing"] == -(-counts.loc[labels[2:], "testing"].sum() // 10)
    assert yaml.safe_load((run / "config.yaml").read_text())["features"]["window_ms"] == 40
    assert len(pd.read_csv(run / "history.csv")) == 2
    assert metrics["data_citation"] is None
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "done"
    assert {"versions", "fingerprint", "data_fingerprint", "data_licence", "data_citation"} <= set(record)
    for picture in ("training_curves", "confusion_matrix", "training_batch"):
        assert (run / "figures" / f"{picture}.png").stat().st_size > 10_000
    assert list((run / "tensorboard").rglob("events*"))

    # The saved model computes the same predictions from waveforms.
    model = load_model(run)
    some = clips.head(32)
    waveforms = np.zeros((len(some), SAMPLE_RATE), np.float32)
    for row, clip in zip(waveforms, some["clip"], strict=True):
        samples, _ = soundfile.read(real_data / clip, dtype="float32")
        row[: len(samples)] = samples
    logits = model.predict(waveforms, verbose=0)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, some[[f"score_{label}" for label in labels]], atol=1e-5)

    # The same command finds its folder and leaves it as it is.
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.suffix in (".parquet", ".keras", ".csv")}
    again = train(tmp_path, *command)
    assert "trained already" in again
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_network_learns_separable_words(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(words=("yes", "no", "up"), speakers=60)

    train(tmp_path, *two_words(root), "trainer.epochs=40", "optimizer.learning_rate=0.01", "split=speaker")

    assert read_metrics(only_run(tmp_path))["accuracy"] > 0.8


@pytest.mark.parametrize("clip_ms", ["1000", "null"])
def test_an_interrupted_run_resumes_exactly(command: list[str], tmp_path: Path, clip_ms: str) -> None:
    command += [
        f"clip_ms={clip_ms}", "trainer.epochs=60", "trainer.checkpoint_every=1000", "trainer.eval_every=7",
        "trainer.word_loss=0.5",
    ]  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    train(whole, *command)

    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(broken, *command)
        wait_for_evaluation(process)
        process.send_signal(number)
        process.communicate(timeout=100)
        assert process.returncode == 130, "the run ended before it could be interrupted"
    output = train(broken, *command)

    assert "resuming at step" in output
    ours, theirs = only_run(broken), only_run(whole)
    assert (ours / "predictions.parquet").read_bytes() == (theirs / "predictions.parquet").read_bytes()
    columns = ["step", "loss", "accuracy", "val_loss", "val_accuracy"]
    pd.testing.assert_frame_equal(
        pd.read_csv(ours / "history.csv")[columns], pd.read_csv(theirs / "history.csv")[columns], check_exact=True
    )
    if clip_ms == "null":  # the saved model takes lengths, and its output does not depend on a clip's padding
        model = load_model(ours)
        waveform = np.zeros((2, SAMPLE_RATE), np.float32)
        waveform[:, :9000] = tone(300)[:9000]
        alone = model.predict({"waveform": waveform[:1, :9000], "lengths": np.array([9000])}, verbose=0)
        padded = model.predict({"waveform": waveform, "lengths": np.array([9000, SAMPLE_RATE])}, verbose=0)
        np.testing.assert_allclose(alone[0], padded[0], atol=1e-4)
    assert_same_arrays(ours / "checkpoint" / "best.npz", theirs / "checkpoint" / "best.npz")


def test_force_starts_over_in_a_new_folder(command: list[str], tmp_path: Path) -> None:
    command += ["trainer.epochs=1"]
    train(tmp_path, *command)
    train(tmp_path, *command, "force=true")

    first, second = sorted(record.parent for record in tmp_path.glob("runs/*/*/run.json"))
    assert second.name == f"{first.name}-2"
    assert (first / "predictions.parquet").read_bytes() == (second / "predictions.parquet").read_bytes()


def test_changed_data_do_not_continue_an_old_run(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    command = [*two_words(root), "trainer.epochs=2000"]
    process = start(tmp_path, *command)
    wait_for_evaluation(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100)
    time.sleep(0.01)
    soundfile.write(next((root / "yes").iterdir()), tone(999), SAMPLE_RATE)

    output = train(tmp_path, *command, status=1)

    assert "the data changed since this run began" in output
    assert "Traceback" not in output


def test_bad_files_are_listed_and_the_run_continues(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    (root / "yes" / "broken_nohash_0.wav").write_bytes(b"RIFF")
    (root / "yes" / "notes.txt").write_text("not audio")

    output = train(tmp_path, *two_words(root), "trainer=quick")

    aside = pd.read_csv(only_run(tmp_path) / "data" / "set_aside.csv")
    assert sorted(aside["path"]) == ["yes/broken_nohash_0.wav", "yes/notes.txt"]
    assert "2 files are set aside" in output


def test_unknown_folders_are_reported(make_folder: MakeFolder, tmp_path: Path) -> None:
    root, other = make_folder(), tmp_path / "boo"
    other.mkdir()
    soundfile.write(other / "long.wav", np.random.default_rng(0).normal(0, 0.1, 8000 * 40), 8000)

    output = train(tmp_path, *two_words(root), "trainer=quick", f"task.unknown_dirs=[{other}]")

    metrics = read_metrics(only_run(tmp_path))
    assert metrics["unknown_folders"]["boo"]["clips"] == 4  # the last tenth of 40 seconds
    assert metrics["audio"]["roots"] == {"": str(root), "boo": str(other)}
    predictions = pd.read_parquet(only_run(tmp_path) / "predictions.parquet")
    cuts = predictions.loc[predictions["folder"] == "boo", ["clip", "offset", "length"]].sort_values("offset")
    assert cuts.to_numpy().tolist() == [["long.wav", second * SAMPLE_RATE, SAMPLE_RATE] for second in range(36, 40)]
    assert "boo" in output


def test_30_words_of_the_r_tutorial_train_a_step_on_synthetic_data(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")

    output = train(
        tmp_path, "experiment=r_30words", "dataset=synthetic", "dataset.clips_per_word=10", "dataset.voices=10",
        "trainer.epochs=null", "trainer.steps=1",
    )  # fmt: skip

    metrics = read_metrics(only_run(tmp_path))
    assert len(metrics["labels"]) == 30
    assert metrics["split"] == "validation"
    assert "no clip for testing" in output


def test_multirun_trains_each_choice(command: list[str], tmp_path: Path) -> None:
    train(tmp_path, "-m", *command, "trainer.epochs=1", "seed=1,2")

    seeds = {yaml.safe_load(path.read_text())["seed"] for path in tmp_path.glob("runs/train/*/config.yaml")}
    assert seeds == {1, 2}


def test_custom_configs_and_models(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_net.py").write_text(
        "import keras\n"
        "def my_net(input_shape, num_labels, units):\n"
        "    layers = [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(units)]\n"
        "    return keras.Sequential([*layers, keras.layers.Dense(num_labels)])\n"
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "my_net.yaml").write_text("_target_: my_net.my_net\nunits: 4\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = [override for override in command if not override.startswith("model.")]

    train(tmp_path, "--config-dir", str(tmp_path / "conf"), "model=my_net", *command, "trainer=quick")

    assert (only_run(tmp_path) / "model.keras").is_file()


def test_augmentation_inside_the_training_step_gives_the_same_training(command: list[str], tmp_path: Path) -> None:
    command += ["augment=strong", "trainer.epochs=null", "trainer.steps=4", "trainer.eval_every=1"]

    train(tmp_path, *command, "name=host")
    train(tmp_path, *command, "name=device", "pipeline.on_device=true")

    columns = ["loss", "val_loss"]
    host, device = (
        pd.read_csv(next(tmp_path.glob(f"runs/{name}/*/history.csv")))[columns] for name in ("host", "device")
    )
    np.testing.assert_allclose(host, device, rtol=1e-3)


def test_custom_noise_and_accuracy_in_noise(make_folder: MakeFolder, tmp_path: Path) -> None:
    root, noises = make_folder(noise=False), tmp_path / "noises"
    (noises / "deep").mkdir(parents=True)
    generator = np.random.default_rng(0)
    soundfile.write(noises / "deep" / "hiss.flac", generator.normal(0, 0.1, 44100 * 12), 44100)
    soundfile.write(noises / "nothing.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)

    noise = [f"noise.dirs=[{noises}]", "evaluation.snr_db=[20,0]"]
    output = train(tmp_path, *two_words(root), "trainer=quick", *noise, "report=true")

    run = only_run(tmp_path)
    rows = read_metrics(run)["accuracy_at_snr"]
    assert [(row["split"], row["snr_db"]) for row in rows] == [
        ("validation", 20), ("validation", 0), ("testing", 20), ("testing", 0)
    ]  # fmt: skip
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert (run / "figures" / "accuracy_against_noise.png").is_file()
    assert "generated noise" not in output
    aside = pd.read_csv(run / "data" / "set_aside.csv")
    assert aside[["path", "error"]].to_numpy().tolist() == [["nothing.wav", "noise without a sound"]]


def test_audiomentations_in_workers_train_as_in_this_process(command: list[str], tmp_path: Path) -> None:
    command += ["trainer=quick", "+augment/waveform=audiomentations"]

    for workers in (0, 2):
        train(tmp_path, *command, f"name=workers{workers}", f"augment.waveform.audiomentations.num_workers={workers}")

    one, two = (next(tmp_path.glob(f"runs/workers{workers}/*/predictions.parquet")) for workers in (0, 2))
    assert one.read_bytes() == two.read_bytes()


def test_a_diverging_run_says_so_and_keeps_its_last_good_state(command: list[str], tmp_path: Path) -> None:
    command += ["trainer.epochs=20", "trainer.checkpoint_every=1", "optimizer=sgd", "optimizer.learning_rate=1e15"]

    for _ in range(2):  # started again, it ends the same way
        output = train(tmp_path, *command, status=1)

        run = only_run(tmp_path)
        message = output.strip().splitlines()[-1]
        assert "Traceback" not in output
        found = re.search(r"diverged: .* in step (\d+), at learning rate 1e\+15; the batch's (\d+) clips", message)
        assert found is not None, message
        assert f"{run.name}/diverged.csv', and the checkpoint from before is kept" in message
        clips = pd.read_csv(run / "diverged.csv")
        assert len(clips) == int(found[2])
        assert set(clips["word"]) <= {"_silence_", "yes", "no", "bed"}
        with np.load(run / "checkpoint" / "state.npz") as saved:
            assert json.loads(str(saved["state"]))["step"] == int(found[1]) - 1
            assert all(np.isfinite(saved[name]).all() for name in saved.files if name != "state")
        assert json.loads((run / "run.json").read_text())["status"] == "training"


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_all_at_once_in_half_precision_on_real_clips(real_data: Path, tmp_path: Path, precision: str) -> None:
    output = train(
        tmp_path, "dataset=folder", f"dataset.path={real_data}", "split=lists", *SMALL, "task.words=[yes,no,up]",
        "trainer.batch_size=64", "trainer.epochs=2", f"trainer.precision={precision}", "trainer.print_confusion=true",
        "optimizer=adamw", "optimizer.global_clipnorm=1", "schedule=cosine", "schedule.warmup=1",
        "trainer.label_smoothing=0.1", "trainer.ema_momentum=0.9", "augment=light", "task.unknown_percentage=30",
        "trainer.word_loss=0.5",
        f"trainer.class_balance={'weights' if precision == 'mixed_float16' else 'sampling'}",
        "trainer.tensorboard=true", "trainer.eval_every=10", "evaluation.false_accept_rate=0.1",
    )  # fmt: skip

    run = only_run(tmp_path)
    assert output.count("Confusion matrix: a row per label") > 2
    assert list((run / "tensorboard").rglob("events*"))
    kept = json.loads((run / "listening.json").read_text())["sensitivities"]["clips"]
    assert list(kept["thresholds"]) == ["yes", "no", "up"]
    metrics = read_metrics(run)
    predictions = pd.read_parquet(run / "predictions.parquet")
    for word, threshold in kept["thresholds"].items():
        accepted = predictions[f"score_{word}"] >= threshold
        rates = metrics["at_thresholds"][word]
        assert rates["false_accept_rate"] == pytest.approx(accepted[predictions["label"] != word].mean())
        assert rates["false_reject_rate"] == pytest.approx((~accepted[predictions["label"] == word]).mean())
    rates = pd.read_csv(run / "history.csv")["learning_rate"]
    assert rates.iloc[0] < rates.max() > rates.iloc[-1]
    model = load_model(run)  # a network in half precision between a front end and logits in float32
    clip = predictions[predictions["word"] == "yes"].iloc[0]
    samples, _ = soundfile.read(real_data / clip["clip"], dtype="float32")
    logits = model.predict(np.pad(samples, (0, SAMPLE_RATE - len(samples)))[None], verbose=0)[0]
    assert logits.dtype == np.float32
    scores = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(scores, clip[[f"score_{label}" for label in metrics["labels"]]].astype(float), atol=0.01)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("model=luck", "model=luck: model has no such choice; there are"),
        ("modle=conv", "modle: there is no such key; did you mean model?"),
        ("dataset=folder", "give it as dataset.path="),
        ("trainer.epochs=", "trainer.epochs must be a whole number"),
        ("schedule=piecewise optimizer.learning_rate=0.5", "schedule.rates=[0.001, 0.0001]; change those"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(tmp_path: Path, mistake: str, message: str) -> None:
    output = train(tmp_path, *mistake.split(), status=1)
    assert message in output
    assert len(output.strip().splitlines()) == 1, output


def test_two_processes_do_not_train_one_configuration_at_once(command: list[str], tmp_path: Path) -> None:
    command += ["trainer.epochs=3000"]
    first = start(tmp_path, *command)
    wait_for_evaluation(first)

    output = train(tmp_path, *command, status=1)

    assert "another process is training this configuration" in output
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=100)
    assert first.returncode == 130


def test_words_may_be_named_as_anything(kws: Kws, make_folder: MakeFolder, tmp_path: Path) -> None:
    """As markup, formulas, keys of reports and numbers; only those with control characters are set aside."""
    words = ("accuracy", "macro avg", "[b]", r"$\frac$", "=1+2", "_bed", "01", "null")
    root = make_folder(words=(*words, "line\nbreak"))
    (root / "01" / "a\n\x1b[31m.wav").write_bytes(b"junk")

    output = train(
        tmp_path, "dataset=folder", f"dataset.path={root}", "split=random", "task=custom", "model=tiny_conv",
        "trainer=quick", "trainer.print_confusion=true", "trainer.tensorboard=true",
    )  # fmt: skip

    run = only_run(tmp_path)
    assert "\x1b" not in output
    metrics = read_metrics(run)
    assert set(metrics["per_class"]) == {"_silence_", "_unknown_", *words}
    assert sum(values["clips"] for values in metrics["per_class"].values()) == metrics["clips"]
    aside = (run / "data" / "set_aside.csv").read_text()
    assert aside.count("the name of its folder holds a control character") == 20
    assert r"01/a\n\x1b[31m.wav" in aside
    # in a process of its own: this one may have started TensorFlow with other threads
    subprocess.run([sys.executable, "-m", "kws_experiments.cli.main", "evaluate", str(run)], cwd=ROOT, check=True)
    assert kws("report", run).status == 0
    table = (run / "report.md").read_text().partition("**By class**")[2].partition("\n\n")[2].partition("\n\n")[0]
    shown = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]
    assert shown == [markdown(label) for label in metrics["labels"]]
    counts = (run / "report.md").read_text().partition("**Examples by label")[2].partition("\n\n")[2]
    assert [line.split(" | ")[0] for line in counts.splitlines()[2:12]] == [f"| {name}" for name in shown]
    (root / "a [" / "b] c").mkdir(parents=True)
    shutil.copy(next((root / "accuracy").iterdir()), root / "a [/b] c" / "=x.wav")
    labelled = kws("label", run, root / "a [/b] c")
    assert "a [/b] c/=x.wav" in labelled.out
