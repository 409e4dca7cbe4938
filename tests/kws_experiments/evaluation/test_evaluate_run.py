"""`kws evaluate`: a trained run on its own splits and on other clips."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from typer.testing import CliRunner

from kws_data.audio import read_pcm
from kws_data.errors import KwsError
from kws_data.storage.cache import datasets_dir
from kws_experiments.cli.main import app
from kws_experiments.cli.runs import ratios
from kws_experiments.config.compose import compose, fingerprint
from kws_experiments.evaluation.clips import Clips, clips_in_training, find_dataset, labelled
from kws_experiments.evaluation.evaluate_run import _folder_for, evaluate_run
from kws_experiments.evaluation.files import EvaluationFiles
from kws_experiments.plots.evaluations import NAMES
from kws_experiments.runs.clip_table import read_clip_table
from kws_experiments.runs.finished import FinishedRun
from kws_experiments.runs.folder import SCHEMA_VERSION, RunFolder
from kws_experiments.runs.saved_model import load_model
from tests.conftest import ROOT, SAMPLE_RATE, folder_maker
from tests.kws_experiments.test_train import SMALL, only_run, train, two_words

LABELS = ["_silence_", "_unknown_", "yes", "no"]


def clips(*words: str) -> pd.DataFrame:
    return pd.DataFrame({"word": words, "path": [f"{word}/{number}.wav" for number, word in enumerate(words)]})


def test_words_without_a_label_of_their_own_are_unknown() -> None:
    table = labelled(clips("no", "_silence_", "bed", "_unknown_", "yes"), LABELS, Path("x"))
    assert table["label"].tolist() == [3, 0, 1, 1, 2]
    assert table.index.tolist() == [0, 1, 2, 3, 4]


def test_without_an_unknown_class_other_words_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    table = labelled(clips("no", "_silence_", "bed", "yes"), ["yes", "no"], Path("x"))
    assert table["label"].tolist() == [1, 0]
    assert table["word"].tolist() == ["no", "yes"]
    assert "2 clips of words that are not labels of the run are left out: _silence_, bed" in caplog.text


def test_a_folder_without_any_of_the_labels_is_refused() -> None:
    with pytest.raises(KwsError, match=r"--dataset: 'x' has no clip of the run's labels: yes, no; its folders are bed"):
        labelled(clips("bed"), ["yes", "no"], Path("x"))
    # such as a folder of data sets: without this check all its clips would count as unknown words
    with pytest.raises(KwsError, match=r"its folders are train, v1; put clips of unknown words below"):
        labelled(clips("v1", "train"), LABELS, Path("x"))


def test_without_the_runs_table_overlap_cannot_be_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert clips_in_training(tmp_path / "clips.parquet", clips("yes")) == 0
    assert "clips.parquet' is missing or damaged: this run can't be repeated; cannot check" in caplog.text


def test_a_canonical_test_set_is_found_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(KwsError, match=r"test_set_v0\.02 is not here; `kws data download test_set_v0\.02` gets it"):
        find_dataset("test_set_v0.02")
    (datasets_dir() / "test_set_v0.02").mkdir(parents=True)
    assert find_dataset("test_set_v0.02") == datasets_dir() / "test_set_v0.02"
    assert find_dataset(str(tmp_path)) == tmp_path
    with pytest.raises(KwsError, match=r"no such folder: 'elsewhere'; give one, or .*: test_set_v0\.01, test_set_v0"):
        find_dataset("elsewhere")


def test_ratios_are_numbers_in_range() -> None:
    assert ratios("20, 0,-5.5") == [20, 0, -5.5]
    assert ratios(None) is None
    for wrong in ("20,", "loud", "nan", "400", ""):
        with pytest.raises(KwsError, match=r"--noise-snr: '.*' is not a ratio from -60 to 100 dB; write 20,10,5,0,-5"):
            ratios(wrong)


def test_split_is_of_the_runs_own_data(finished: RunFolder) -> None:
    with pytest.raises(KwsError, match="--split is of the run's own data"):
        evaluate_run(finished.path, str(finished.path), split="testing")
    with pytest.raises(KwsError, match="--split must be one of training, validation, testing, got 'all'"):
        evaluate_run(finished.path, split="all")


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    """The folder of a finished run, without its model."""
    return finished_folder(tmp_path / "run")


def finished_folder(path: Path, *overrides: str) -> RunFolder:
    path.mkdir()
    folder, config = RunFolder(path), compose(["task=custom", "task.words=['yes','no']", *overrides])
    folder.write_config(config)
    folder.write_record(status="done", fingerprint=fingerprint(config), data_fingerprint="0")
    folder.labels.write_text("\n".join(LABELS) + "\n")
    folder.thresholds.write_text(json.dumps({"thresholds": {"yes": 0.5, "no": 0.5}}))
    return folder


@pytest.mark.parametrize("choice", ["small_data", "matchboxnet", "simple_audio", "mhatt_rnn"])
def test_a_configuration_is_recognised_from_its_file(tmp_path: Path, choice: str) -> None:
    run = finished_folder(tmp_path / "run", f"experiment={choice}", "task.words=['on','off','no','0x1','1e3']",
                          "optimizer.learning_rate=1e-05", "dataset=folder", "dataset.path='~/a: b'")  # fmt: skip
    assert FinishedRun.open(run.path).config["task"]["words"] == ["on", "off", "no", "0x1", "1e3"]


def test_an_unfinished_damaged_or_changed_run_is_one_line(finished: RunFolder, tmp_path: Path) -> None:
    assert FinishedRun.open(finished.path).labels == LABELS
    config = yaml.safe_load(finished.config.read_text())
    other, part = yaml.safe_dump(config | {"sample_rate": 8000}), yaml.safe_dump(dict(list(config.items())[:5]))
    for file, content, message in (
        (finished.config, other, "config.yaml' is not what this run was trained with"),
        (finished.config, part, "config.yaml' is not what this run was trained with"),
        (finished.config, "[1]", "is missing or damaged"),
        (finished.config, "a: [", "is missing or damaged"),
        (finished.record, "{", "is missing or damaged"),
        (finished.record, '{"schema_version": 99}', f"has schema version 99, not {SCHEMA_VERSION}"),
        (finished.record, f'{{"schema_version": {SCHEMA_VERSION}, "status": "training"}}', "no finished run"),
        (finished.record, f'{{"schema_version": {SCHEMA_VERSION}}}', "is missing or damaged"),
        (finished.thresholds, '{"thresholds": {"yes"', "is missing or damaged"),
        (finished.thresholds, '{"thresholds": {"yes": 0.5}}', "has no threshold of no"),
    ):
        before = file.read_bytes()
        file.write_text(content)
        with pytest.raises(KwsError, match=rf"^[^\n]*{re.escape(message)}[^\n]*$"):
            FinishedRun.open(finished.path)
        file.write_bytes(before)
    finished.labels.unlink()
    with pytest.raises(KwsError, match=r"labels\.txt' is missing or damaged"):
        FinishedRun.open(finished.path)
    with pytest.raises(KwsError, match=r"holds no run: give the folder of a run"):
        evaluate_run(tmp_path)
    changed_back = yaml.safe_dump(config | {"pipeline": config["pipeline"] | {"threads": 77}})
    finished.config.write_text(changed_back)  # a key that does not affect the run's fingerprint
    finished.labels.write_text("\n".join(LABELS) + "\n")
    FinishedRun.open(finished.path)


def test_existing_files_are_not_overwritten(finished: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(KwsError, match=r"--out: '.*run' is not empty; give a new folder"):
        evaluate_run(finished.path, out=finished.path)
    # clips of another root with the same name have their own folder, and find it again
    first, second = (
        Clips(SimpleNamespace(corpus=SimpleNamespace(roots=[root])), "testing", (), root, "clips")  # type: ignore[arg-type]
        for root in ("/a/clips", "/b/clips")
    )
    run = FinishedRun.open(finished.path)
    assert _folder_for(run, first) == _folder_for(run, second) == finished.evaluations / "clips"
    (finished.evaluations / "clips").mkdir(parents=True)
    (finished.evaluations / "clips" / "metrics.json").write_text('{"audio": {"roots": {"": "/a/clips"}}}')
    assert _folder_for(run, first) == finished.evaluations / "clips"
    assert _folder_for(run, second).name.startswith("clips-")
    (finished.evaluations / "clips" / "metrics.json").write_text('{"audio"')
    assert _folder_for(run, second) == finished.evaluations / "clips"


def test_help_shows_every_option() -> None:
    text = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"}).output
    for option in ("--dataset", "--split", "--noise-snr", "--out"):
        assert option in text


def test_levels_of_silence_are_checked() -> None:
    assert compose(["task.silence_level_db=[-90,-6]"])["task"]["silence_level_db"] == [-90, -6]


# ---- whole runs ----


def evaluate(run: Path, *arguments: str, status: int = 0) -> str:
    """`kws evaluate` in its own process, since TensorFlow's threads can be set once per process."""
    command = [sys.executable, "-m", "kws_experiments.cli.main", "evaluate", str(run), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("module_cache")


@pytest.fixture
def same_cache(module_cache: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of the module's run, which already holds the packed clips."""
    monkeypatch.setenv("KWS_DATA", str(module_cache))


@pytest.fixture(scope="module")
def trained(real_data: Path, module_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run on real clips, barely trained, also evaluated in noise."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KWS_DATA", str(module_cache))
        train(folder, "dataset=folder", f"dataset.path={real_data}", "split=lists", *SMALL, "task.words=[yes,no,up]",
              "trainer=quick", "evaluation.snr_db=[10]")  # fmt: skip
        yield only_run(folder)


@pytest.mark.slow
@pytest.mark.usefixtures("same_cache")
def test_on_its_own_test_clips_a_run_repeats_its_own_metrics(trained: Path) -> None:
    output = evaluate(trained)

    own, again = EvaluationFiles(trained), EvaluationFiles(trained / "evaluations" / "testing")
    assert f"\n{again.path}\n" in output
    assert {path.name for path in again.path.parent.iterdir()} == {"testing", ".testing.lock"}
    assert "in noise:" in output
    expected = own.read_metrics()
    assert expected.pop("validation_accuracy") > 0  # of the training alone
    assert again.read_metrics() == expected
    for name in ("predictions", "confidently_wrong", "speakers", "levels", "calibration", "detection", "noise"):
        assert again.table(name).read_bytes() == own.table(name).read_bytes(), name
    metrics = own.read_metrics()
    assert own.metrics.stat().st_size < 200_000
    assert [(row["split"], row["snr_db"]) for row in metrics["accuracy_at_snr"]] == [
        ("validation", 10), ("testing", 10),
    ]  # fmt: skip
    low, high = metrics["accuracy_95_by_speaker"]
    assert low <= metrics["accuracy"] <= high
    assert set(metrics["detection"]["keywords"]) == {"yes", "no", "up"}
    names = {path.stem for path in (again.path / "figures").iterdir()}
    assert names == set(NAMES)


@pytest.mark.slow
def test_a_clips_audio_is_found_again_and_has_the_recorded_level(trained: Path) -> None:
    files = EvaluationFiles(trained)
    roots, predictions = files.read_metrics()["audio"]["roots"], files.read_table("predictions")
    recorded = predictions[predictions["length"] > 0]
    assert (predictions["length"] == 0).sum() == (predictions["label"] == "_silence_").sum() > 0
    for row in recorded.iloc[::40].itertuples():
        pcm = read_pcm(Path(roots[row.folder]) / row.clip, SAMPLE_RATE)[row.offset : row.offset + row.length]
        assert len(pcm) == row.length
        padded = np.zeros(SAMPLE_RATE)
        padded[: len(pcm)] = pcm / 32768
        power = np.square(padded.reshape(-1, 320)).mean(axis=1)
        assert row.level_db == pytest.approx(10 * np.log10(power[power >= power.max() / 1000].mean()), abs=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("same_cache")
def test_a_test_set_in_the_canonical_form(trained: Path, real_data: Path, tmp_path: Path) -> None:
    """The run's own test clips in the layout of a test set: the same predictions; the noise is the run's own."""
    own = EvaluationFiles(trained).read_table("predictions")
    recorded = own[own["length"] > 0].assign(copy=lambda rows: rows["label"] + "/" + rows["clip"].str.replace("/", "_"))
    root = tmp_path / "canonical"
    for row in recorded.itertuples():
        (root / row.copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(real_data / row.clip, root / row.copy)
    (root / "_silence_").mkdir()
    soundfile.write(root / "_silence_" / "1.wav", np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE), SAMPLE_RATE)
    (root / "yes" / "broken_nohash_0.wav").write_bytes(b"")

    printed = evaluate(trained, "--dataset", str(root), "--noise-snr", "20,-5", "--out", str(tmp_path / "result"))

    assert "set aside: yes/broken_nohash_0.wav" in printed
    assert "the noise is from the run's own data" in printed
    assert "were in training" not in printed
    files = EvaluationFiles(tmp_path / "result")
    metrics, predictions = files.read_metrics(), files.read_table("predictions").set_index("clip")
    assert metrics["set_aside"] == 1
    assert metrics["clips"] == len(recorded) + 1
    assert metrics["per_class"]["_silence_"]["clips"] == 1
    scores = [f"score_{label}" for label in metrics["labels"]]
    np.testing.assert_allclose(predictions.loc[recorded["copy"], scores], recorded[scores], atol=1e-5)
    np.testing.assert_allclose(predictions.loc[recorded["copy"], "level_db"], recorded["level_db"])
    assert [row["snr_db"] for row in metrics["accuracy_at_snr"]] == [20, -5]
    assert {row["clips"] for row in metrics["accuracy_at_snr"]} == {len(recorded)}
    assert not (trained / "evaluations" / "canonical").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("same_cache")
def test_copies_of_training_clips_in_another_set_are_reported(trained: Path, real_data: Path, tmp_path: Path) -> None:
    used = read_clip_table(RunFolder(trained).clips)
    words = used[used["word"].isin(["yes", "no"])]
    copies = [*words.loc[words["split"] == "training", "path"][:2], *words.loc[words["split"] == "testing", "path"][:3]]
    for number, path in enumerate(copies):
        copy = tmp_path / "recordings" / Path(path).parent / f"{number}.wav"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(real_data / path, copy)

    printed = evaluate(trained, "--dataset", str(tmp_path / "recordings"), "--out", str(tmp_path / "result"))

    names = ", ".join(f"{Path(copies[number]).parent}/{number}.wav" for number in (0, 1))
    assert "2 of 5 clips were in training" in printed
    assert names in printed
    assert EvaluationFiles(tmp_path / "result").read_metrics()["heard_in_training"] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("same_cache")
def test_changed_data_or_a_cut_model_are_one_line(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"data_fingerprint": "0" * 12}))
    assert "the data changed since" in evaluate(run, status=1).strip().splitlines()[-1]
    model = (run / "model.keras").read_bytes()
    (run / "model.keras").write_bytes(model[: len(model) // 2])
    with pytest.raises(KwsError, match=r"^[^\n]*model\.keras' is missing or damaged[^\n]*$"):
        load_model(run)


@pytest.mark.slow
def test_clips_that_keep_their_lengths(tmp_path: Path) -> None:
    make = folder_maker(tmp_path)
    train(tmp_path, *two_words(make()), "clip_ms=null", "trainer=quick")
    run, longer = only_run(tmp_path), make("longer", words=("yes", "no"), speakers=3, seconds=1.7)

    evaluate(run, "--dataset", str(longer), "--noise-snr", "0")

    files = EvaluationFiles(run / "evaluations" / "longer")
    predictions = files.read_table("predictions")
    assert predictions["length"].tolist() == [27200] * 6
    assert predictions["level_db"].between(-30, -10).all()
    assert len(files.read_table("noise")) == 1
    assert files.read_metrics()["speakers"] == 3
