"""`kws add-word`: what is refused at once, and a whole run on small data."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from kws_data.errors import KwsError
from kws_experiments.add_word import AddWordSettings, add_word, show
from kws_experiments.config.compose import compose
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.experiment.further import with_word
from kws_experiments.runs.listening import Listening
from kws_experiments.runs.saved_model import load_model
from tests.conftest import ROOT, SAMPLE_RATE, MakeFolder, tone
from tests.kws_experiments.conftest import Kws
from tests.kws_experiments.evaluation.test_evaluate_run import finished_folder
from tests.kws_experiments.test_train import SMALL, only_run, train

WAV_HEADER_OF_3_GB = struct.pack(
    "<4sI8sIHHIIHH4sI", b"RIFF", 3_000_000_036, b"WAVEfmt ", 16, 1, 1, 16000, 32000, 2, 16, b"data", 3_000_000_000
)


def kws_process(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kws_experiments.cli.main", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)


def a_run(folder: Path, *overrides: str) -> Path:
    run = finished_folder(folder / "run", *overrides)
    run.data.mkdir()
    (run.data / "catalog_summary.csv").write_text("word,split\nyes,training\nno,training\n")
    return run.path


def clips_of(folder: Path, names: list[str], frequency: float = 2500) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, tone(frequency + 20 * number, level=0.2 + 0.05 * number), SAMPLE_RATE)
    return folder


def test_the_configuration_is_the_others_with_one_word_more(tmp_path: Path) -> None:
    mine = {"path": str(tmp_path), "few": True}
    before = compose(["experiment=listening", "dataset=synthetic"])
    after = with_word(before, ["yes", "marvin"], [mine], start_from="runs/x/1", steps=100)
    experiment = Experiment(after)
    experiment.check_without_tensorflow()
    experiment.check_folders()
    assert experiment.task.words == ["yes", "marvin"]
    assert experiment.task.few_folders == [tmp_path.name]
    assert experiment.pretraining is None
    assert experiment.start_from == "runs/x/1"
    assert experiment.settings.total_steps(7) == 100
    assert experiment.learning_rate == pytest.approx(0.2 * 0.005)
    assert (experiment.settings.distillation, experiment.settings.word_loss) == (0.5, 0)
    assert experiment.tuning is not None
    again = with_word(after, ["yes", "marvin", "nox"], [], start_from="runs/add_word/1", steps=100)
    assert Experiment(again).task.few_folders == [tmp_path.name]
    own_rates = before | {"schedule": compose(["schedule=piecewise"])["schedule"]}
    assert with_word(own_rates, [], [], start_from="", steps=9)["optimizer"]["learning_rate"] == pytest.approx(0.0002)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["yes"], "has the word 'yes' already; its words are yes, no"),
        (["../up"], "cannot be the name of a folder"),
        (["marvin", "nowhere.wav"], "no such file or folder: 'nowhere.wav'"),
        (["marvin", "."], "no audio file in ."),
        (["marvin", "--synthetic-clips", "0"], "no clip of 'marvin' is given, and --synthetic-clips 0 makes none"),
    ],
)
def test_mistakes_are_one_line(
    kws: Kws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    run = a_run(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert message in kws("add-word", run, *arguments).error()
    assert not list((tmp_path / "here").iterdir())


def test_without_clips_and_engine_nothing_is_trained(kws: Kws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.chdir(tmp_path)
    run = a_run(tmp_path)
    line = kws("add-word", run, "marvin").error()
    assert "no clip of 'marvin' is given, and none can be made: speech synthesis needs the package" in line
    assert not (tmp_path / "runs").exists()


def test_clips_that_cannot_be_used_are_listed_and_the_others_kept(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also a file whose name is no UTF-8, twice the same clip, names that meet, and a huge file, which is not read."""
    trained: dict[str, Any] = {}
    module = types.ModuleType("kws_experiments.train")
    module.train = lambda config, path, data: trained.update(config)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kws_experiments.train", module)
    monkeypatch.chdir(tmp_path)
    run = a_run(tmp_path, "dataset=folder", f"dataset.path={make_folder()}", "audio.max_seconds=60")
    mine = clips_of(tmp_path / "mine", ["1.wav", "a/2.wav", "b/2.wav", "c/2_2.wav", "5.wav"])
    (mine / "5.wav").rename(mine / os.fsdecode(b"caf\xe9.wav"))
    shutil.copyfile(mine / "1.wav", mine / "twin.wav")
    (mine / "broken.wav").write_bytes(b"RIFF")
    with (mine / "huge.wav").open("wb") as file:
        file.write(WAV_HEADER_OF_3_GB)
        file.truncate(3_000_000_044)
    tracemalloc.start()
    add_word(run, "shazam", [mine], AddWordSettings(steps=10, synthetic_clips=0))
    assert tracemalloc.get_traced_memory()[1] < 100_000_000
    tracemalloc.stop()
    (entry,) = trained["task"]["word_dirs"]
    names = {path.name: path.read_bytes() for path in Path(entry["path"], "shazam").iterdir()}
    assert len(set(names.values())) == 5  # with é, which is set aside when the folder is read
    for said in (
        "broken.wav: cut short",
        r"caf\xe9.wav: its name is not",
        "twin.wav: the same as",
        "huge.wav: lasts longer than",
    ):
        assert said in caplog.text

    with pytest.raises(KwsError, match=r"none of the 1 clips of 'nox' can be used; the last: .*broken"):
        add_word(run, "nox", [mine / "broken.wav"], AddWordSettings(steps=10, synthetic_clips=0))


@pytest.mark.parametrize("tuned", [True, False])
def test_a_run_is_to_be_tuned_unless_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str], tuned: bool) -> None:
    word = {"clips": 3, "validation": None, "validation_is_synthetic": True}
    found = {"schema_version": 1, "false_accept_rate": 0.01, "words": {"nox": word}}
    (tmp_path / "new_words.json").write_text(json.dumps(found))
    levels = {"medium": {"thresholds": {"nox": 0.5}}} if tuned else {}
    Listening({"clips": {"thresholds": {"nox": 0.5}}} | levels).write(tmp_path)
    show(tmp_path)
    out = capsys.readouterr().out
    assert ("next: kws tune" in out) == (not tuned)
    assert "next: kws stream" in out


@pytest.mark.parametrize(
    ("lost", "gained", "said"),
    [
        (1, 0, ""),
        (3, 1, "the other words lost more than half a point, which can be chance"),
        (12, 2, "the other words lost more than half a point"),
        (2, 12, ""),
    ],
)
def test_what_the_other_words_lost_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    lost: int, gained: int, said: str,
) -> None:  # fmt: skip
    before = 0.9
    others = {"clips": 250, "before": before, "after": before + (gained - lost) / 250, "lost": lost, "gained": gained}
    word = {"clips": 0, "validation": None, "validation_is_synthetic": True}
    found = {"schema_version": 1, "false_accept_rate": 0.01, "words": {"nox": word}, "others": others}
    (tmp_path / "new_words.json").write_text(json.dumps(found))
    Listening({"clips": {"thresholds": {"nox": 0.5}}}).write(tmp_path)
    show(tmp_path)
    assert f"on 250 validation clips: 90.0% right before, {others['after']:.1%} now" in capsys.readouterr().out
    assert caplog.messages == ([said] if said else [])


@pytest.mark.slow
@pytest.mark.both_stacks
def test_a_word_is_added_and_the_run_is_one_like_any_other(make_folder: MakeFolder, tmp_path: Path) -> None:
    """From clips of two speakers and the engine's; reported, reproduced bit for bit, tuned, and added to again."""
    pytest.importorskip("espeakng_loader")
    root = make_folder(speakers=40)
    data = ["dataset=folder", f"dataset.path={root}"]
    train(tmp_path, *data, *SMALL, "task.words=[yes,no]", "trainer.epochs=2", "name=a")
    run = only_run(tmp_path)
    names = [f"{who}_nohash_{number}.wav" for who in ("anna", "ben") for number in range(2)]
    mine = clips_of(tmp_path / "mine", names)
    (mine / "broken.wav").write_bytes(b"RIFF")

    added = kws_process(tmp_path, "add-word", run, "shazam", mine, "--steps", 20, "--synthetic-clips", 10)

    assert added.returncode == 0, added.stderr
    (new,) = tmp_path.glob("runs/add_word/*/run.json")
    new = new.parent
    assert f"set aside: {mine / 'broken.wav'}: " in added.stderr
    assert f"kws tune {new.relative_to(tmp_path)}" in added.stdout
    assert (new / "labels.txt").read_text().split() == ["_silence_", "_unknown_", "yes", "no", "shazam"]
    found = json.loads((new / "new_words.json").read_text())
    assert set(found["words"]) == {"shazam"}
    word = found["words"]["shazam"]
    assert word["clips"] == word["by_clip"]["clips"] == word["by_speaker"]["clips"] == 4
    low, high = word["by_clip"]["miss_rate_95"]
    assert 0 <= low <= word["by_clip"]["miss_rate"] <= high <= 1
    assert word["validation_is_synthetic"] is True
    assert f"{word['by_clip']['missed']} of 4 (each clip left out in turn)" in added.stdout
    clips = pd.read_parquet(new / "data" / "clips.parquet")
    others = found["others"]
    assert others["clips"] == ((clips["split"] == "validation") & (clips["label"] != "shazam")).sum()
    change = (others["gained"] - others["lost"]) / others["clips"]
    assert others["after"] == pytest.approx(others["before"] + change)
    reported = kws_process(tmp_path, "report", new)
    assert reported.returncode == 0, reported.stderr
    assert "each speaker left out in turn" in (new / "report.md").read_text()

    samples = soundfile.read(mine / "anna_nohash_0.wav", dtype="float32")[0][None]
    logits = load_model(new)(samples).numpy()[0]
    assert np.isfinite(logits).all()
    repeated = kws_process(tmp_path, "reproduce", new)
    assert repeated.returncode == 0, repeated.stdout + repeated.stderr
    tuned = kws_process(tmp_path, "tune", new, "--minutes", "0.5")
    assert tuned.returncode == 0, tuned.stderr
    assert "shazam" in json.loads((new / "listening.json").read_text())["sensitivities"]["medium"]["thresholds"]

    clips_of(tmp_path / "more", ["1.wav"], 3500)
    again = kws_process(tmp_path, "add-word", new, "nox", tmp_path / "more", "--steps", 10, "--synthetic-clips", 0)
    assert again.returncode == 0, again.stderr
    assert "1 clips of 'nox' are very few" in again.stderr
    (second,) = set(tmp_path.glob("runs/add_word/*/run.json")) - {new / "run.json"}
    config = yaml.safe_load((second.parent / "config.yaml").read_text())
    assert config["task"]["words"] == ["yes", "no", "shazam", "nox"]
    assert set(json.loads((second.parent / "new_words.json").read_text())["words"]) == {"shazam", "nox"}
