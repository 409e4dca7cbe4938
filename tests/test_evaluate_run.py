"""`kws evaluate`: a trained run on other clips."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from kws_data.errors import KwsError
from kws_experiments.config import compose
from kws_experiments.evaluate_run import evaluate_run
from kws_experiments.evaluated_clips import labelled
from tests.conftest import ROOT, SAMPLE_RATE, MakeFolder
from tests.test_run import SMALL, only_run, train

LABELS = ["_silence_", "_unknown_", "yes", "no"]


def clips(*words: str) -> pd.DataFrame:
    return pd.DataFrame({"word": words, "path": [f"{word}/{place}.wav" for place, word in enumerate(words)]})


def test_words_that_the_run_does_not_know_are_unknown_ones() -> None:
    table = labelled(clips("no", "_silence_", "bed", "_unknown_", "yes"), LABELS, Path("x"))
    assert table["label"].tolist() == [3, 0, 1, 1, 2]
    assert table.index.tolist() == [0, 1, 2, 3, 4]


def test_without_an_unknown_class_other_words_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    table = labelled(clips("no", "_silence_", "bed", "yes"), ["yes", "no"], Path("x"))
    assert table["label"].tolist() == [1, 0]
    assert table["word"].tolist() == ["no", "yes"]
    assert "2 clips of words that are no label of the run are left out: _silence_, bed" in caplog.text


def test_a_folder_with_none_of_the_labels_is_refused() -> None:
    with pytest.raises(KwsError, match=r"--dataset: 'x' has no clip of the run's labels: yes, no"):
        labelled(clips("bed"), ["yes", "no"], Path("x"))


def evaluate(run: Path, dataset: Path, status: int = 0) -> str:
    """`kws evaluate` in a process of its own, since TensorFlow's threads are set once in each."""
    command = [sys.executable, "-m", "kws_experiments.cli", "evaluate", str(run), "--dataset", str(dataset)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_on_its_own_test_clips_a_run_gives_its_own_figures(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    train(tmp_path, "dataset=folder", f"dataset.path={root}", *SMALL, "task.words=[yes,no]", "task.silence=false",
          "task.unknown_percentage=1000", "trainer=quick")  # fmt: skip
    run = only_run(tmp_path)
    own = pd.read_parquet(run / "predictions.parquet")
    other = tmp_path / "others"
    for clip in own["clip"]:
        (other / clip).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / clip, other / clip)
    (other / "yes" / "broken_nohash_0.wav").write_bytes(b"")

    printed = evaluate(run, other)

    assert "set aside: yes/broken_nohash_0.wav" in printed
    out = run / "evaluations" / "others"
    result = json.loads((out / "metrics.json").read_text())
    predictions = pd.read_parquet(out / "predictions.parquet").set_index("clip").loc[own["clip"]].reset_index()
    pd.testing.assert_frame_equal(predictions, own, check_exact=False, atol=1e-5)
    metrics = json.loads((run / "metrics.json").read_text())
    assert result["accuracy"] == metrics["accuracy"]
    assert result["set_aside"] == 1
    thresholds = json.loads((run / "thresholds.json").read_text())
    assert set(thresholds["thresholds"]) == {"yes", "no"}

    # silence alone, as the canonical test sets have it
    (tmp_path / "quiet" / "_silence_").mkdir(parents=True)
    samples = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE)
    soundfile.write(tmp_path / "quiet" / "_silence_" / "1.wav", samples, SAMPLE_RATE)
    assert "has no clip of the run's labels: _unknown_, yes, no" in evaluate(run, tmp_path / "quiet", status=1)


def test_what_is_no_finished_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(KwsError, match=f"'{tmp_path}/config.yaml' is missing or damaged: give the folder of a run"):
        evaluate_run(tmp_path, tmp_path)


def test_levels_of_silence_are_checked() -> None:
    assert compose(["task.silence_level_db=[-90,-6]"])["task"]["silence_level_db"] == [-90, -6]
