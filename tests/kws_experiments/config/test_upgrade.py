"""Configurations of earlier versions: the table of changes, and a run's folder that version 0.1.0 wrote."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kws_experiments.config import upgrade
from kws_experiments.config.compose import compose, fingerprint
from kws_experiments.config.upgrade import AddedKey, RemovedKey, RenamedTarget, oldest_form, upgraded
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.find import find_runs
from kws_experiments.runs.finished import FinishedRun
from tests.conftest import ROOT

OLD_RUN = ROOT / "tests" / "data" / "run_of_0.1.0"
CONFIG = OLD_RUN / "run" / "config.yaml"
FINGERPRINT = json.loads((OLD_RUN / "run" / "run.json").read_text())["fingerprint"]


@pytest.fixture
def old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run's folder, in a working folder that holds its clips where its configuration has them."""
    shutil.copytree(OLD_RUN, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work" / "run"


def test_the_command_of_an_old_run_finds_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.loads((OLD_RUN / "run" / "run.json").read_text())
    monkeypatch.setattr("kws_experiments.config.compose.available_cpus", lambda: 2)  # of the machine it was trained on
    assert fingerprint(compose(record["command"]["overrides"])) == FINGERPRINT


def test_an_old_configuration_is_one_of_today() -> None:
    stored = yaml.safe_load(CONFIG.read_text())
    before = copy.deepcopy(stored)
    config = upgraded(stored)
    assert stored == before
    targets = [part["_target_"] for part in (config["dataset"], config["trainer"], config["schedule"])]
    assert targets == [
        "kws_data.sources.datasets.Folder",
        "kws_experiments.experiment.settings.TrainerSettings",
        "kws_experiments.experiment.schedules.Constant",
    ]
    before = (config["clip_from"], config["dataset"]["layout"], config["audio"]["levels"], config["audio"]["muted"])
    assert before == ("start", "words", "clip", "keep")  # of 0.1.0, which had no such keys
    assert fingerprint(stored) == FINGERPRINT
    assert upgraded(config) == config


def test_every_config_of_today_survives_the_way_back_and_forth() -> None:
    for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
        config = compose([f"experiment={path.stem}"])
        again = upgraded(oldest_form(config))
        assert again | {key: config[key] for key in ("clip_from", "audio", "dataset", "tune")} == config
        assert oldest_form(oldest_form(config)) == oldest_form(config)


TREES = st.recursive(
    st.one_of(st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["_target_", "a", "b"]), inner, max_size=3),
    ),
)


@given(st.dictionaries(st.sampled_from(["a", "b"]), TREES), st.sampled_from(["old", "lately.Thing", "new"]))
def test_changes_are_undone_in_any_tree(config: dict[str, Any], target: str) -> None:
    config["c"] = [{"_target_": target}]
    changes = (RenamedTarget("old", "new"), RemovedKey("a.gone", 1), AddedKey("b.added", 2), RenamedTarget("x.", "y."))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upgrade, "CHANGES", changes)
        today = upgraded(config)
        assert upgraded(oldest_form(today)) == today
        assert today["c"] == [{"_target_": "new" if target == "old" else target}]
        if isinstance(today.get("a"), dict):
            assert "gone" not in today["a"]
            assert oldest_form(today)["a"]["gone"] == 1


def test_an_added_key_counts_only_where_it_does_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "CHANGES", (AddedKey("task.new", 0),))
    config = compose([])
    assert fingerprint(config | {"task": config["task"] | {"new": 0}}) == fingerprint(config)
    assert fingerprint(config | {"task": config["task"] | {"new": 1}}) != fingerprint(config)


def test_a_key_is_added_only_to_the_class_that_has_it() -> None:
    mine = {"dataset": {"_target_": "mine.Clips"}, "split": {"_target_": "kws_data.splits.HashSplit"}}
    assert {key: upgraded(mine)[key] for key in mine} == mine
    old = {
        "dataset": {"_target_": "kws_data.datasets.Folder", "path": "x"},
        "split": {"_target_": "kws_data.splits.ListSplit"},
    }
    assert upgraded(old)["dataset"]["layout"] == "words"
    assert upgraded(old)["split"]["unmatched_percentage"] == 100  # as before, lists may name what isn't there


def test_a_run_that_was_tuned_before_had_no_word_twice() -> None:
    old = {"tune": {"_target_": "kws_experiments.experiment.settings.TuneSettings", "minutes": 15}}
    assert upgraded(old)["tune"] == old["tune"] | {"repeat_percentage": 0, "speech": None, "speech_minutes": 15}
    today = compose(["tune=streams"])
    assert upgraded(today) == today
    assert not {"repeat_percentage", "speech", "speech_minutes"} & oldest_form(today)["tune"].keys()


def test_how_many_lines_may_match_nothing_is_no_other_training() -> None:
    lists = ["dataset=folder", "dataset.path=x", "split=lists"]
    assert fingerprint(compose([*lists, "split.unmatched_percentage=50"])) == fingerprint(compose(lists))


def test_a_removed_key_that_asked_for_something_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert upgrade.without_effect({"trainer": {"strategy": "none"}}) == upgrade.without_effect({}) == []
    config = compose(["+trainer.strategy=mirrored"])
    assert "strategy" not in config["trainer"]
    assert "trainer.strategy=mirrored has no effect any more" in caplog.text


def test_an_old_run_is_listed_and_opened(old_run: Path) -> None:
    runs = find_runs(old_run.parent, where={"trainer.steps": 20})
    assert list(runs["status"]) == ["done"]
    assert runs["accuracy"].item() == pytest.approx(0.8)
    run = FinishedRun.open(old_run)
    assert run.labels == ["_silence_", "_unknown_", "yes", "no"]
    assert run.config == upgraded(yaml.safe_load(CONFIG.read_text()))


def kws(*arguments: str) -> str:
    """What the command prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "kws_experiments.cli.main", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_old_run_is_reported(old_run: Path) -> None:
    kws("report", "run")
    assert "80.0" in (old_run / "report.md").read_text()
    assert "80.0%" in kws("runs", ".")


def test_the_clips_of_an_old_run_are_read_as_it_was_trained_on_them(old_run: Path) -> None:
    """Long clips from their start, muted ones too, and a folder `test` is a word."""
    clips, noise = old_run.parent / "clips", np.random.default_rng(0)
    (clips / "test").mkdir()
    soundfile.write(clips / "test" / "muted.wav", np.zeros(16000), 16000)
    for word in ("yes", "test"):
        late = np.concatenate([np.zeros(16000), noise.uniform(-0.5, 0.5, 16000)])
        soundfile.write(clips / word / "late.wav", late, 16000)
    (clips / "yes").rename(clips / "train")  # and so all would be splits
    (clips / "no").rename(clips / "valid")
    shutil.rmtree(clips / "up")
    config = yaml.safe_load(CONFIG.read_text())
    config["task"]["words"] = ["train", "valid"]
    corpus = Experiment(upgraded(config)).corpus()
    assert corpus.set_aside.empty
    rows = corpus.clips.set_index("path")
    assert rows.loc[["train/late.wav", "test/late.wav"], "start"].tolist() == [0, 0]
    assert rows.loc["test/muted.wav", "word"] == "test"


@pytest.mark.slow
def test_an_old_run_is_evaluated_exported_and_labels(old_run: Path) -> None:
    kws("evaluate", "run")
    before, now = (pd.read_parquet(path / "predictions.parquet") for path in (old_run, old_run / "evaluations/testing"))
    assert list(before["predicted"]) == list(now["predicted"])
    kws("export", "run", "--format", "tflite")
    assert json.loads((old_run / "exports" / "tflite-none" / "export.json").read_text())["run"]["name"] == "old"
    assert kws("label", "run", "clips/yes", "--csv").count("yes/") == 12
