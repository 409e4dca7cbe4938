"""Whole runs, as a user starts them: `python train.py …` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from kws_data.sources.words import CORE_WORDS
from kws_experiments.runs.saved_model import load_model
from tests.conftest import ROOT, SAMPLE_RATE, MakeFolder, tone

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


def only_run(folder: Path) -> Path:
    (record,) = folder.glob("runs/*/*/run.json")
    return record.parent


def test_trains_on_real_clips_and_keeps_everything(real_data: Path, tmp_path: Path) -> None:
    command = ["dataset=folder", f"dataset.path={real_data}", "split=lists", "trainer=quick", "features=log_mel_20ms"]
    output = train(tmp_path, *command)

    run = only_run(tmp_path)
    assert output.strip().splitlines()[-1] == str(run)
    assert "95 % interval" in output
    predictions, metrics = pd.read_parquet(run / "predictions.parquet"), json.loads((run / "metrics.json").read_text())
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

    # The saved model hears what training heard: waveforms in, the same predictions out.
    model = load_model(run)
    some = clips.head(32)
    waveforms = np.zeros((len(some), SAMPLE_RATE), np.float32)
    for row, clip in zip(waveforms, some["clip"], strict=True):
        samples, _ = soundfile.read(real_data / clip, dtype="float32")
        row[: len(samples)] = samples
    logits = model.predict(waveforms, verbose=0)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, some[[f"score_{label}" for label in labels]], atol=1e-5)

    # The same command finds its folder, and leaves it alone.
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.suffix in (".parquet", ".keras", ".csv")}
    again = train(tmp_path, *command)
    assert "trained already" in again
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_learns_what_can_be_learnt(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(words=("yes", "no", "up"), speakers=60)

    train(tmp_path, "dataset=folder", f"dataset.path={root}", *SMALL, "task.words=[yes,no]", "trainer.epochs=40",
          "optimizer.learning_rate=0.01", "split=speaker")  # fmt: skip

    assert json.loads((only_run(tmp_path) / "metrics.json").read_text())["accuracy"] > 0.8


@pytest.mark.parametrize("clip_ms", ["1000", "null"])
def test_interrupted_run_goes_on_as_the_unbroken_one(make_folder: MakeFolder, tmp_path: Path, clip_ms: str) -> None:
    command = ["dataset=folder", f"dataset.path={make_folder()}", *SMALL, "task.words=[yes,no]", f"clip_ms={clip_ms}"]
    command += ["trainer.epochs=60", "trainer.checkpoint_every=1000", "trainer.eval_every=7"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    train(whole, *command)

    stops = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(broken, *command)
        seen = len(list(broken.glob("runs/*/*/history.csv")))
        history = next(iter(broken.glob("runs/*/*/history.csv")), None)
        rows = 0 if history is None else len(history.read_text().splitlines())
        assert process.stdout is not None
        for line in process.stdout:
            if "validation: loss" in line and (rows := rows + 1) > seen:
                break
        process.send_signal(number)
        process.communicate(timeout=100)
        stops += process.returncode == 130
    assert stops == 2, "the runs ended before they could be interrupted"
    output = train(broken, *command)

    assert "resuming at step" in output
    ours, theirs = only_run(broken), only_run(whole)
    assert (ours / "predictions.parquet").read_bytes() == (theirs / "predictions.parquet").read_bytes()
    columns = ["step", "loss", "accuracy", "val_loss", "val_accuracy"]
    pd.testing.assert_frame_equal(
        pd.read_csv(ours / "history.csv")[columns], pd.read_csv(theirs / "history.csv")[columns], check_exact=True
    )
    if clip_ms == "null":  # the saved model takes lengths, and what it says of a clip doesn't depend on its padding
        model = load_model(ours)
        waveform = np.zeros((2, SAMPLE_RATE), np.float32)
        waveform[:, :9000] = tone(300)[:9000]
        alone = model.predict({"waveform": waveform[:1, :9000], "lengths": np.array([9000])}, verbose=0)
        padded = model.predict({"waveform": waveform, "lengths": np.array([9000, SAMPLE_RATE])}, verbose=0)
        np.testing.assert_allclose(alone[0], padded[0], atol=1e-4)
    with np.load(ours / "checkpoint" / "best.npz") as a, np.load(theirs / "checkpoint" / "best.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


def test_force_starts_over_in_a_new_folder(make_folder: MakeFolder, tmp_path: Path) -> None:
    command = ["dataset=folder", f"dataset.path={make_folder()}", *SMALL, "task.words=[yes,no]", "trainer.epochs=1"]
    train(tmp_path, *command)
    train(tmp_path, *command, "force=true")

    first, second = sorted(record.parent for record in tmp_path.glob("runs/*/*/run.json"))
    assert second.name == f"{first.name}-2"
    assert (first / "predictions.parquet").read_bytes() == (second / "predictions.parquet").read_bytes()


def test_changed_data_do_not_continue_an_old_run(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    command = ["dataset=folder", f"dataset.path={root}", *SMALL, "task.words=[yes,no]", "trainer.epochs=2000"]
    process = start(tmp_path, *command)
    assert process.stdout is not None
    next(line for line in process.stdout if "validation: loss" in line)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100)
    time.sleep(0.01)
    soundfile.write(next((root / "yes").iterdir()), tone(999), SAMPLE_RATE)

    output = train(tmp_path, *command, status=1)

    assert "the data changed since this run began" in output
    assert "Traceback" not in output


def test_bad_files_are_listed_and_the_run_goes_on(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    (root / "yes" / "broken_nohash_0.wav").write_bytes(b"RIFF")
    (root / "yes" / "notes.txt").write_text("not audio")

    output = train(tmp_path, "dataset=folder", f"dataset.path={root}", *SMALL, "task.words=[yes,no]", "trainer=quick")

    aside = pd.read_csv(only_run(tmp_path) / "data" / "set_aside.csv")
    assert sorted(aside["path"]) == ["yes/broken_nohash_0.wav", "yes/notes.txt"]
    assert "2 files are set aside" in output


def test_unknown_folders_are_reported(make_folder: MakeFolder, tmp_path: Path) -> None:
    root, other = make_folder(), tmp_path / "boo"
    other.mkdir()
    soundfile.write(other / "long.wav", np.random.default_rng(0).normal(0, 0.1, 8000 * 40), 8000)

    output = train(tmp_path, "dataset=folder", f"dataset.path={root}", *SMALL, "task.words=[yes,no]", "trainer=quick",
                   f"task.unknown_dirs=[{other}]")  # fmt: skip

    metrics = json.loads((only_run(tmp_path) / "metrics.json").read_text())
    assert metrics["unknown_folders"]["boo"]["clips"] == 4  # the last tenth of 40 seconds
    assert metrics["audio"]["roots"] == {"": str(root), "boo": str(other)}
    predictions = pd.read_parquet(only_run(tmp_path) / "predictions.parquet")
    places = predictions.loc[predictions["folder"] == "boo", ["clip", "offset", "length"]].sort_values("offset")
    assert places.to_numpy().tolist() == [["long.wav", second * SAMPLE_RATE, SAMPLE_RATE] for second in range(36, 40)]
    assert "boo" in output


def test_30_words_of_the_r_tutorial_train_a_step_on_synthetic_data(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")

    output = train(
        tmp_path, "experiment=r_30words", "dataset=synthetic", "dataset.clips_per_word=10", "dataset.voices=10",
        "trainer.epochs=null", "trainer.steps=1",
    )  # fmt: skip

    metrics = json.loads((only_run(tmp_path) / "metrics.json").read_text())
    assert len(metrics["labels"]) == 30
    assert metrics["split"] == "validation"
    assert "no clip for testing" in output


def test_multirun_trains_each_choice(make_folder: MakeFolder, tmp_path: Path) -> None:
    train(tmp_path, "-m", "dataset=folder", f"dataset.path={make_folder()}", *SMALL, "task.words=[yes,no]",
          "trainer.epochs=1", "seed=1,2")  # fmt: skip

    seeds = {yaml.safe_load(path.read_text())["seed"] for path in tmp_path.glob("runs/train/*/config.yaml")}
    assert seeds == {1, 2}


def test_configs_and_models_of_ones_own(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_net.py").write_text(
        "import keras\n"
        "def my_net(input_shape, num_labels, units):\n"
        "    layers = [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(units)]\n"
        "    return keras.Sequential([*layers, keras.layers.Dense(num_labels)])\n"
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "my_net.yaml").write_text("_target_: my_net.my_net\nunits: 4\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    small = [override for override in SMALL if not override.startswith("model.")]

    train(tmp_path, "--config-dir", str(tmp_path / "conf"), "model=my_net", "dataset=folder",
          f"dataset.path={make_folder()}", *small, "task.words=[yes,no]", "trainer=quick")  # fmt: skip

    assert (only_run(tmp_path) / "model.keras").is_file()


def test_augmentation_inside_the_training_step_gives_the_same_training(make_folder: MakeFolder, tmp_path: Path) -> None:
    command = ["dataset=folder", f"dataset.path={make_folder()}", *SMALL, "task.words=[yes,no]", "augment=strong"]
    command += ["trainer.epochs=null", "trainer.steps=4", "trainer.eval_every=1"]

    train(tmp_path, *command, "name=host")
    train(tmp_path, *command, "name=device", "pipeline.on_device=true")

    columns = ["loss", "val_loss"]
    host, device = (
        pd.read_csv(next(tmp_path.glob(f"runs/{name}/*/history.csv")))[columns] for name in ("host", "device")
    )
    np.testing.assert_allclose(host, device, rtol=1e-3)


def test_noise_of_ones_own_and_accuracy_against_noise(make_folder: MakeFolder, tmp_path: Path) -> None:
    root, noises = make_folder(noise=False), tmp_path / "noises"
    (noises / "deep").mkdir(parents=True)
    generator = np.random.default_rng(0)
    soundfile.write(noises / "deep" / "hiss.flac", generator.normal(0, 0.1, 44100 * 12), 44100)
    soundfile.write(noises / "nothing.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)

    output = train(tmp_path, "dataset=folder", f"dataset.path={root}", *SMALL, "task.words=[yes,no]", "trainer=quick",
                   f"noise.dirs=[{noises}]", "evaluation.snr_db=[20,0]", "report=true")  # fmt: skip

    run = only_run(tmp_path)
    rows = json.loads((run / "metrics.json").read_text())["accuracy_at_snr"]
    assert [(row["split"], row["snr_db"]) for row in rows] == [
        ("validation", 20), ("validation", 0), ("testing", 20), ("testing", 0)
    ]  # fmt: skip
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert (run / "figures" / "accuracy_against_noise.png").is_file()
    assert "generated noise" not in output
    aside = pd.read_csv(run / "data" / "set_aside.csv")
    assert aside[["path", "error"]].to_numpy().tolist() == [["nothing.wav", "noise without a sound"]]


def test_audiomentations_in_workers_train_as_in_this_process(make_folder: MakeFolder, tmp_path: Path) -> None:
    command = ["dataset=folder", f"dataset.path={make_folder()}", *SMALL, "task.words=[yes,no]", "trainer=quick"]
    command += ["+augment/waveform=audiomentations"]

    for workers in (0, 2):
        train(tmp_path, *command, f"name=workers{workers}", f"augment.waveform.audiomentations.num_workers={workers}")

    one, two = (next(tmp_path.glob(f"runs/workers{workers}/*/predictions.parquet")) for workers in (0, 2))
    assert one.read_bytes() == two.read_bytes()


def test_a_diverging_run_says_so_and_keeps_its_last_good_state(make_folder: MakeFolder, tmp_path: Path) -> None:
    command = ["dataset=folder", f"dataset.path={make_folder()}", *SMALL, "task.words=[yes,no]", "trainer.epochs=20"]
    command += ["optimizer=sgd", "optimizer.learning_rate=1e15", "trainer.checkpoint_every=1"]

    for _ in range(2):  # started again it comes to the same end
        output = train(tmp_path, *command, status=1)

        run = only_run(tmp_path)
        told = output.strip().splitlines()[-1]
        assert "Traceback" not in output
        found = re.search(
            r"training diverged: .* in step (\d+), at learning rate 1e\+15; the batch's (\d+) clips", told
        )
        assert found is not None, told
        assert f"{run.name}/diverged.csv', and the checkpoint from before is kept" in told
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
        f"trainer.class_balance={'weights' if precision == 'mixed_float16' else 'sampling'}",
        "trainer.tensorboard=true", "trainer.eval_every=10", "evaluation.false_accept_rate=0.1",
    )  # fmt: skip

    run = only_run(tmp_path)
    assert output.count("Confusion matrix: a row per label") > 2
    assert list((run / "tensorboard").rglob("events*"))
    kept = json.loads((run / "thresholds.json").read_text())
    assert list(kept["thresholds"]) == ["yes", "no", "up"]
    metrics = json.loads((run / "metrics.json").read_text())
    predictions = pd.read_parquet(run / "predictions.parquet")
    for word, threshold in kept["thresholds"].items():
        heard = predictions[f"score_{word}"] >= threshold
        told = metrics["at_thresholds"][word]
        assert told["false_accept_rate"] == pytest.approx(heard[predictions["label"] != word].mean())
        assert told["false_reject_rate"] == pytest.approx((~heard[predictions["label"] == word]).mean())
    rates = pd.read_csv(run / "history.csv")["learning_rate"]
    assert rates.iloc[0] < rates.max() > rates.iloc[-1]
    model = load_model(run)  # a network in half precision between a front end and logits in whole
    clip = predictions[predictions["word"] == "yes"].iloc[0]
    samples, _ = soundfile.read(real_data / clip["clip"], dtype="float32")
    logits = model.predict(np.pad(samples, (0, SAMPLE_RATE - len(samples)))[None], verbose=0)[0]
    assert logits.dtype == np.float32
    scores = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(scores, clip[[f"score_{label}" for label in metrics["labels"]]].astype(float), atol=0.01)


def test_mistakes_on_the_command_line_are_one_line(tmp_path: Path) -> None:
    for mistake, told in {
        "model=luck": "Could not find 'model/luck'",
        "modle=conv": "Could not override 'modle'",
        "dataset=folder": "give it as dataset.path=",
        "trainer.epochs=": "trainer.epochs must be a whole number",
        "schedule=piecewise optimizer.learning_rate=0.5": "schedule.rates=[0.001, 0.0001]; change those",
    }.items():
        output = train(tmp_path, *mistake.split(), status=1)
        assert told in output
        assert len(output.strip().splitlines()) == 1, output


def test_two_processes_do_not_train_one_configuration_at_once(make_folder: MakeFolder, tmp_path: Path) -> None:
    command = ["dataset=folder", f"dataset.path={make_folder()}", *SMALL, "task.words=[yes,no]", "trainer.epochs=3000"]
    first = start(tmp_path, *command)
    assert first.stdout is not None
    next(line for line in first.stdout if "validation: loss" in line)

    output = train(tmp_path, *command, status=1)

    assert "another process is training this configuration" in output
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=100)
    assert first.returncode == 130
