"""`kws runs` and the same as a DataFrame: what is listed of runs that are done, unfinished and damaged."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from kws_data.errors import KwsError
from kws_experiments.runs.find import DAMAGED, NOT_BEGUN, find_runs, find_sweeps_below
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.listening import Listening
from kws_experiments.runs.sweep_record import SweepFolder
from tests.kws_experiments.conftest import Kws


def make_run(path: Path, accuracy: float | None, model: str = "conv", **config: Any) -> Path:
    folder = RunFolder(path)
    target = {"_target_": f"kws_models.{model}.{model}", "units": {"conv": 1, "res8": 2}[model]}
    folder.write_record(status="training" if accuracy is None else "done", fingerprint=path.name)
    folder.write_config(
        {"name": path.parent.name, "model": target, "seed": 0, "rate": 1e-3, "words": ["a", "b"], **config}
    )
    if accuracy is not None:
        metrics = {"accuracy": accuracy, "validation_accuracy": accuracy, "clips": 10, "parameters": 5}
        folder.metrics.write_text(json.dumps(metrics))
        folder.training.history.write_text("step,seconds\n1,2.5\n2,7.5\n")
    (path / ".hydra").mkdir()
    choices = {"model": model, "experiment": None, "hydra/launcher": "basic", "augment/waveform@augment": "gain"}
    (path / ".hydra" / "hydra.yaml").write_text(yaml.dump({"hydra": {"runtime": {"choices": choices}}}))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    make_run(root / "train" / "aaa", 0.5)
    make_run(root / "train" / "bbb", 0.75, model="res8", seed=1)
    make_run(root / "train" / "ccc", None, seed=2)
    make_run(root / "other" / "ddd", 0.25, words=["a", "c"])
    return root


def test_a_pruned_run_is_listed_without_results(runs: Path) -> None:
    RunFolder(runs / "train" / "ccc").write_record(status="pruned")
    row = find_runs(runs).set_index("run").loc["ccc"]
    assert row["status"] == "pruned"
    assert row[["accuracy", "validation_accuracy", "error"]].isna().all()


def test_what_was_trained_again_belongs_to_its_run(runs: Path) -> None:
    again = make_run(RunFolder(runs / "train" / "aaa").reproductions / "1", 0.5)
    make_run(runs / "reproductions" / "eee", 0.5)  # a name like any other
    assert find_runs(runs)["run"].tolist() == ["ddd", "eee", "aaa", "bbb", "ccc"]
    assert find_runs(again.parent)["run"].tolist() == ["1"]


def test_a_tuned_run_is_listed_with_what_it_misses(runs: Path, kws: Kws) -> None:
    assert "missed" not in kws("runs", runs).out
    medium = {"thresholds": {}, "measured": {"miss_rate": 0.125}}
    Listening({"clips": {"thresholds": {}}, "medium": medium}).write(runs / "train" / "aaa")
    Listening({"clips": {"thresholds": {}}}).write(runs / "train" / "bbb")
    missed = find_runs(runs).set_index("run")["missed"]
    assert missed.loc["aaa"] == 0.125
    assert missed.drop("aaa").isna().all()
    assert "12.5%" in kws("runs", runs).out


def test_runs_are_a_table_of_what_differs(runs: Path) -> None:
    table = find_runs(runs)

    assert list(table["run"]) == ["ddd", "aaa", "bbb", "ccc"]
    assert list(table["name"]) == ["other", "train", "train", "train"]
    assert list(table.columns) == [
        "path", "name", "run", "status", "started", "seconds",
        "model", "model._target_", "model.units", "seed", "words",
        "accuracy", "validation_accuracy", "clips", "parameters", "missed", "error",
    ]  # fmt: skip
    ours = table.set_index("run")
    assert ours.loc["bbb", ["model", "seed", "accuracy", "seconds"]].tolist() == ["res8", 1, 0.75, 7.5]
    assert ours.loc["ddd", "words"] == ["a", "c"]
    assert ours.loc["ccc", "status"] == "training"
    assert pd.isna(ours.loc["ccc", "accuracy"])
    assert table.groupby("model")["accuracy"].mean().to_dict() == {"conv": 0.375, "res8": 0.75}
    assert "rate" in find_runs(runs, all_keys=True)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"model": "conv"}, ["ddd", "aaa", "ccc"]),
        ({"model": "conv", "seed": [0, 1]}, ["ddd", "aaa"]),
        ({"seed": "1"}, ["bbb"]),
        ({"rate": "0.001"}, ["ddd", "aaa", "bbb", "ccc"]),
        ({"rate": "1e-3"}, ["ddd", "aaa", "bbb", "ccc"]),
        ({"words": ["[a, c]"]}, ["ddd"]),
        ({"words": ["['a','c']"]}, ["ddd"]),
        ({"seed": 7}, []),
    ],
)
def test_runs_are_filtered_by_choice_and_key(runs: Path, where: dict[str, Any], found: list[str]) -> None:
    assert list(find_runs(runs, where)["run"]) == found


def test_damaged_and_unfinished_folders_are_listed_with_their_reason(runs: Path) -> None:
    (runs / "train" / "not_valid" / ".hydra").mkdir(parents=True)  # of a job that could not be composed: no run
    (runs / "train" / "eee" / ".hydra").mkdir(parents=True)
    for name, file, text in (
        ("record", "run.json", '{"schema_version": 1'),
        ("version", "run.json", '{"schema_version": 99, "status": "done"}'),
        ("list", "run.json", "[1]"),
        ("metrics", "metrics.json", '{"accuracy": 0.'),
        ("config", "config.yaml", "model: [1,"),
        ("deep", "config.yaml", "model: " + "[" * 700 + "]" * 700),
        ("history", "history.csv", "step\n1\n"),
        ("hydra", ".hydra/hydra.yaml", "hydra: {}"),
    ):
        (make_run(runs / "broken" / name, 0.5) / file).write_text(text)

    table = find_runs(runs).set_index("run")

    assert "not_valid" not in table.index
    assert table.loc["eee", "status"] == NOT_BEGUN
    broken = table[table["name"] == "broken"]
    assert len(broken) == 8
    assert set(broken["status"]) == {DAMAGED}
    assert broken["error"].str.contains("damaged|schema version 99").all()
    assert not broken["error"].str.contains("\n").any()
    assert (table.loc[["aaa", "bbb", "ddd"], "status"] == "done").all()


GARBAGE = ["", "{", "[1]", "null", '"done"', "\x00\xff", '{"schema_version": 2}']
GARBAGE += [json.dumps({"schema_version": 2, "status": status}) for status in ("nothing", 3, None, ["done"], {"a": 1})]


@pytest.mark.parametrize("content", [*GARBAGE, None])
def test_a_run_json_of_whatever_content_is_listed_with_its_path(runs: Path, kws: Kws, content: str | None) -> None:
    record = runs / "train" / "bbb" / "run.json"
    record.unlink()
    if content is None:
        record.mkdir()
    else:
        record.write_text(content, encoding="latin-1")

    listed = kws("runs", runs)
    assert listed.status == 0
    assert f"'{record}' is missing or damaged" in listed.out or "schema version" in listed.out
    assert find_runs(runs).set_index("run").loc["bbb", "status"] == DAMAGED


def test_a_folder_that_may_not_be_read_is_listed(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exists = Path.exists

    def denied(path: Path, **options: Any) -> bool:  # as in a folder without permission, which root has everywhere
        if path.name == "run.json" and path.parent.name == "bbb":
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", denied)
    row = find_runs(runs).set_index("run").loc["bbb"]
    assert (row["status"], "no permission to read it" in row["error"]) == (DAMAGED, True)


@pytest.mark.parametrize(
    "metrics",
    [
        '{"clips": 1' + 30 * "0" + "}",
        '{"accuracy": 1' + 400 * "0" + "}",
        '{"accuracy": "high"}',
        '{"accuracy": [1]}',
        '{"accuracy": true}',
    ],
)
def test_metrics_of_a_wrong_type_are_damage(runs: Path, kws: Kws, metrics: str) -> None:
    (runs / "train" / "bbb" / "metrics.json").write_text(metrics)
    assert "bbb/metrics.json' is missing or damaged" in kws("runs", runs, "--sort", "accuracy").out


@pytest.mark.parametrize("words", ["[yes,no]", '["yes","no"]', "[yes, 'no']"])
def test_words_that_yaml_takes_for_true_and_false_are_found(runs: Path, kws: Kws, words: str) -> None:
    config = runs / "train" / "bbb" / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"task": {"words": ["yes", "no"]}}))
    assert find_runs(runs, {"task.words": [words]})["run"].tolist() == ["bbb"]
    assert kws("runs", runs, "--where", f"task.words={words}", "--columns", "run", "--csv").out == "run\nbbb\n"


def test_numbers_of_hundreds_of_digits_are_listed(runs: Path) -> None:
    config = runs / "train" / "bbb" / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"seed": 10**400}))
    listed = find_runs(runs).set_index("run")
    assert listed.loc["bbb", "seed"] == f"{10**400:#x}"
    assert find_runs(runs, {"seed": [1, 10**400]})["run"].tolist() == ["bbb"]
    assert find_runs(runs, {"seed": ["1" + 5000 * "0", 3000 * "["]}).empty
    assert len(listed) == 4


@pytest.mark.parametrize("file", ["run.json", "config.yaml", "metrics.json"])
def test_a_pipe_in_the_place_of_a_file_blocks_nothing(runs: Path, file: str) -> None:
    (runs / "train" / "bbb" / file).unlink()
    os.mkfifo(runs / "train" / "bbb" / file)
    assert find_runs(runs).set_index("run").loc["bbb", "status"] == DAMAGED


def test_columns_of_names_and_numbers_are_sorted(runs: Path, kws: Kws) -> None:
    config = runs / "train" / "bbb" / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"name": 7}))
    table = pd.read_csv(io.StringIO(kws("runs", runs, "--csv", "--sort", "name", "--columns", "run,name").out))
    assert table.loc[0, "run"] == "bbb"


def test_an_empty_folder_has_no_runs(tmp_path: Path) -> None:
    assert len(find_runs(tmp_path)) == len(find_sweeps_below(tmp_path)) == 0
    with pytest.raises(KwsError, match="no folder"):
        find_runs(tmp_path / "nowhere")


def test_kws_runs_lists_sorts_and_filters(kws: Kws, runs: Path) -> None:
    sweep = SweepFolder(runs / "train" / "sweeps" / "0123")
    sweep.begin(command="python train.py", overrides=[], swept=["optimizer.learning_rate", "seed"], planned=6)
    (runs / "broken").mkdir()
    (make_run(runs / "broken" / "fff", 0.1) / "run.json").write_text("{")

    listed = kws("runs", runs)
    assert listed.status == 0
    assert "75.0%" in listed.out
    assert "learning_rate seed" in listed.out
    assert "fff/run.json' is missing or damaged" in listed.out
    assert "_target_" not in listed.out  # the choice says it

    table = pd.read_csv(io.StringIO(kws("runs", runs, "--csv", "--sort", "accuracy").out))
    assert list(table["run"])[:3] == ["bbb", "aaa", "ddd"]
    table = pd.read_csv(
        io.StringIO(kws("runs", runs, "--csv", "--sort", "seed", "--reverse", "--where", "model=conv").out)
    )
    assert list(table["run"]) == ["ccc", "ddd", "aaa"]
    assert kws("runs", runs, "--where", "seed=1", "--columns", "run,rate", "--csv").out == "run,rate\nbbb,0.001\n"
    assert kws("runs", runs, "--where", "seed=77").out == f"no run in '{runs}' has seed=77\n"
    sweeps = pd.read_csv(io.StringIO(kws("runs", runs, "--sweeps", "--csv").out))
    assert sweeps.loc[0, ["status", "planned", "done"]].tolist() == ["stopped", 6, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: no folder 'nowhere'"),
        (["--where", "sed=1"], "error: no run has a key 'sed'; did you mean seed?"),
        (["--where", "seed"], "error: --where must be KEY=VALUE, got 'seed'"),
        (["--sort", "acuracy"], "error: --sort: no column 'acuracy'; did you mean accuracy"),
        (["--columns", "run,modle"], "error: --columns: no column 'modle'; did you mean model"),
    ],
)
def test_mistakes_are_one_line(
    kws: Kws, runs: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(runs.parent)

    assert kws("runs", *arguments).error().startswith(message)


@pytest.mark.parametrize(
    "values", [{"swept": 5}, {"swept": [5]}, {"planned": "many"}, {"started": None}, {"overrides": {}, "status": []}]
)
def test_a_sweep_of_wrong_types_is_listed(runs: Path, kws: Kws, values: dict[str, Any]) -> None:
    sweep = SweepFolder(runs / "train" / "sweeps" / "0123")
    sweep.begin(**{"command": "python train.py", "overrides": [], "swept": [], "planned": 6} | values)
    if "started" in values:
        sweep.record.write_text(json.dumps(json.loads(sweep.record.read_text()) | values))

    assert find_sweeps_below(runs)["status"].tolist() == [DAMAGED]
    assert kws("runs", runs).status == 0


def test_reading_a_sweep_that_was_killed_leaves_no_lock(runs: Path) -> None:
    sweep = SweepFolder(runs / "train" / "sweeps" / "0123")
    sweep.begin(command="python train.py", overrides=[], swept=[], planned=6)
    assert find_sweeps_below(runs)["status"].tolist() == ["stopped"]
    assert not list(runs.rglob("*.lock"))
    with sweep.lock():
        assert find_sweeps_below(runs)["status"].tolist() == ["running"]
