"""The search by Optuna: with a launcher that trains nothing, since what a trial reaches follows from its values."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from kws_data.errors import KwsError
from kws_experiments import train as training
from kws_experiments.config.compose import CONF, register_resolvers
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.sweep_record import DONE, FAILED, PRUNED, STOPPED, Job, SweepFolder, sweep_folder
from kws_experiments.sweeps.callback import SweepCallback
from kws_experiments.sweeps.optuna_study import PruningLogger, Search
from kws_experiments.training.loggers import Pruned

optuna = pytest.importorskip("optuna")
RATE = "optimizer.learning_rate"
RANGE = f"{RATE}=tag(log,interval(0.0001,1))"
EVALUATIONS = 4


def quality(rate: float) -> float:
    """From 0 to 1, best at 0.01."""
    return 1 - abs(math.log10(rate) + 2) / 3


class Launcher:
    """Stands for Hydra's launcher, `run_job` and the child process.

    Attributes:
        launched: how many jobs each call had.
        stops: the numbers of trials at which it is killed, after their first evaluation.
        fails: the numbers of trials that fail.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config, self.sweep = config, sweep_folder(config)
        self.launched: list[int] = []
        self.trained: list[str] = []
        self.stops: set[int] = set()
        self.fails: set[int] = set()

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        self.launched.append(len(jobs))
        for overrides in jobs:
            self.run(dict(override.split("=", 1) for override in overrides))
        return [SimpleNamespace(return_value=None) for _ in jobs]

    def run(self, values: dict[str, str]) -> None:
        sweeper = {key: values.pop(key) for key in list(values) if of_hydra(key)}
        trial, rate = int(sweeper["hydra.sweeper.trial"]), float(values[RATE])
        folder = RunFolder(self.sweep.path.parent.parent / f"{rate:.9f}")
        job = Job(trial, [f"{key}={value}" for key, value in values.items()], folder.path, DONE)
        if trial in self.stops:
            raise KeyboardInterrupt
        if trial in self.fails:
            self.sweep.write_job(Job(trial, job.overrides, folder.path, FAILED, error="no memory"))
            return
        status = self.train(folder, rate, trial)
        folder.write_record(status=status)
        filters = int(values.get("model.filters", "1"))
        folder.metrics.write_text(json.dumps({"accuracy": 0.0, "validation_accuracy": quality(rate) * filters**0.1}))
        cost = {"multiply_adds": 1000 * filters, "parameters": filters, "latency_ms": {"median": 1.0}}
        cost |= {"machine": {"processor": ""}, "threads": {"intra_op": 1}}
        folder.cost.write_text(json.dumps(cost))
        self.sweep.write_job(Job(trial, job.overrides, folder.path, status))

    def train(self, folder: RunFolder, rate: float, trial: int) -> str:
        if self.config.hydra.sweeper.pruner is None:
            return DONE
        sweeper = self.config.hydra.sweeper.copy()
        sweeper.trial = trial
        logger = PruningLogger(Search.of(sweeper, self.sweep.path))
        try:
            logger.begin(folder, {})
            self.trained.append(folder.path.name)
            for number in range(EVALUATIONS):
                reached = quality(rate) * (number + 1) / EVALUATIONS
                logger.evaluated({"step": 10 * (number + 1), "val_accuracy": reached}, np.zeros(0))
        except Pruned:
            return PRUNED
        return DONE


@pytest.fixture(autouse=True)
def loud(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="sweep"):
        yield


def of_hydra(override: str) -> bool:
    return override.lstrip("+").startswith("hydra")


def composed(folder: Path, *overrides: str) -> DictConfig:
    """As Hydra composes a sweep."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = [f"hydra.sweep.dir={folder}", "hydra/sweeper=optuna", *filter(of_hydra, overrides)]
        config = compose("train", settings, return_hydra_config=True)
    config.hydra.overrides.task = [override for override in overrides if not of_hydra(override)]
    return config


def search(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str, stops: set[int] | None = None,
    fails: set[int] | None = None,
) -> Launcher:  # fmt: skip
    """Start a search, as Hydra does, and let it end."""
    config = composed(folder, *overrides)
    launcher = Launcher(config)
    launcher.stops, launcher.fails = stops or set(), fails or set()
    monkeypatch.setattr(Plugins, "instantiate_launcher", lambda self, **kwargs: launcher)
    sweeper = Plugins.instance().instantiate_sweeper(
        hydra_context=None, task_function=None, config=config  # type: ignore[arg-type]
    )  # fmt: skip
    sweeper.sweep(list(config.hydra.overrides.task))
    return launcher


def study_of(launcher: Launcher) -> Any:
    return Search.of(launcher.config.hydra.sweeper, launcher.sweep.path).open()


def rates(launcher: Launcher) -> list[float]:
    return [trial.params[RATE] for trial in study_of(launcher).trials]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_the_same_search_draws_the_same_and_finds_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sampler: str
) -> None:
    chosen = [f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=25", RANGE, "seed=int(interval(0,9))"]
    one = search(tmp_path / "one", monkeypatch, *chosen)
    two = search(tmp_path / "two", monkeypatch, *chosen)
    other = search(tmp_path / "other", monkeypatch, *chosen, "hydra.sweeper.sampler.seed=1")

    assert rates(one) == rates(two) != rates(other)
    assert len(set(rates(one))) == 25
    best = study_of(one).best_trial
    assert best.value == pytest.approx(quality(best.params[RATE]), abs=1e-4)
    assert best.value > 0.9
    assert f"best: job {best.number}, validation_accuracy {best.value:.9g}" in caplog.text
    assert [job.number for job in one.sweep.read_jobs()] == list(range(25))


@pytest.mark.parametrize("storage", ["null", "sqlite:///{}/study.db"])
def test_a_search_goes_on_and_counts_earlier_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    chosen = [RANGE, f"hydra.sweeper.storage={storage.format(tmp_path)}"]
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, monkeypatch, *chosen, "hydra.sweeper.n_trials=4", stops={2}, fails={1})
    again = search(tmp_path, monkeypatch, *chosen, "hydra.sweeper.n_trials=4")
    assert again.launched == [1, 1, 1]
    more = search(tmp_path, monkeypatch, *chosen, "hydra.sweeper.n_trials=6")
    assert more.launched == [1, 1]
    assert search(tmp_path, monkeypatch, *chosen, "hydra.sweeper.n_trials=6").launched == []

    trials = study_of(more).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "FAIL", *(5 * ["COMPLETE"])]
    drawn = rates(more)
    assert drawn[3:5] == drawn[1:3]  # what failed, and what was stopped, once more
    assert len(set(drawn)) == 6
    assert [job.status for job in more.sweep.read_jobs()] == 6 * [DONE]  # of two for the same run, the later


def test_several_trials_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = search(tmp_path, monkeypatch, RANGE, "hydra.sweeper.n_trials=10", "hydra.sweeper.n_jobs=4")
    assert launcher.launched == [4, 4, 2]
    assert [job.number for job in launcher.sweep.read_jobs()] == list(range(10))


@pytest.mark.parametrize("storage", ["null", "sqlite:///{}/study.db"])
def test_trials_are_pruned_and_stay_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str) -> None:
    chosen = [RANGE, "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=3"]
    chosen += [f"hydra.sweeper.storage={storage.format(tmp_path)}", "hydra.sweeper.pruner.n_warmup_steps=1"]
    launcher = search(tmp_path, monkeypatch, *chosen, "hydra.sweeper.n_trials=15")

    trials, jobs = study_of(launcher).trials, launcher.sweep.read_jobs()
    pruned = [trial.number for trial in trials if trial.state.name == "PRUNED"]
    assert pruned
    assert min(pruned) >= 3
    assert [job.number for job in jobs if job.status == PRUNED] == pruned
    assert all(len(trials[number].intermediate_values) == 2 for number in pruned)  # not before the second evaluation
    assert trials[pruned[0]].intermediate_values[0] == pytest.approx(quality(trials[pruned[0]].params[RATE]) / 4)
    best = max(range(15), key=lambda number: quality(trials[number].params[RATE]))
    assert trials[best].state.name == "COMPLETE"
    assert search(tmp_path, monkeypatch, *chosen, "hydra.sweeper.n_trials=15").launched == []


def test_accuracy_against_multiply_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    launcher = search(
        tmp_path, monkeypatch, RANGE, "model.filters=1,2,4", "hydra.sweeper.n_trials=12",
        "hydra.sweeper.objectives=[validation_accuracy,multiply_adds]",
    )  # fmt: skip

    study = study_of(launcher)
    assert study.metric_names == ["validation_accuracy", "multiply_adds"]
    for trial in study.trials:
        assert trial.values[1] == 1000 * int(trial.params["model.filters"])
    assert f"{len(study.best_trials)} trials of which none is better in all of" in caplog.text
    with pytest.raises(KwsError, match=r"objectives=\['validation_accuracy'\]: the search in .* has \["):
        search(tmp_path, monkeypatch, RANGE, "model.filters=1,2,4")


def test_a_run_without_its_cost_is_a_failed_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    launcher = search(
        tmp_path, monkeypatch, RANGE, "hydra.sweeper.n_trials=1",
        "hydra.sweeper.objectives=[int8_bytes]",  # which this launcher doesn't write
    )  # fmt: skip
    assert [trial.state.name for trial in study_of(launcher).trials] == ["FAIL"]
    assert "has no int8_bytes, which the search optimises" in caplog.text
    assert "no trial is done, so that there is no best one" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["hydra/sweeper/pruner=median", "hydra.sweeper.objectives=[validation_accuracy,multiply_adds]"],
            "hydra.sweeper: Optuna prunes by one objective only: leave out hydra/sweeper/pruner,"
            " or objectives=['validation_accuracy', 'multiply_adds'] for [validation_accuracy]",
        ),
        (["hydra.sweeper.objectives=[]"], "hydra.sweeper.objectives must list one or more of validation_accuracy,"),
        (["hydra.sweeper.objectives=[accuracy]"], "hydra.sweeper.objectives must list one or more of"),
        (["hydra.sweeper.objectives=5"], "hydra.sweeper.objectives must list one or more of"),
        (["hydra.sweeper.objectives=parameters"], "hydra.sweeper.objectives must list one or more of"),
        (["hydra.sweeper.objectives=[[parameters]]"], "hydra.sweeper.objectives must list one or more of"),
        (["hydra.sweeper.objectives=[parameters,parameters]"], "hydra.sweeper.objectives must list one or more of"),
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be a whole number at least 1, got"),
        (["hydra.sweeper.n_jobs=1.5"], "hydra.sweeper.n_jobs must be a whole number at least 1, got"),
        (["hydra.sweeper.storage=5"], "hydra.sweeper.storage must be"),
        (["hydra.sweeper.study_name=[a]"], "hydra.sweeper.study_name must be"),
        (
            ["hydra.sweeper.pruner=median"],
            "hydra.sweeper.pruner must be settings, as hydra/sweeper/pruner=median gives",
        ),
        (["hydra.sweeper.sampler=tpe"], "hydra.sweeper.sampler must be settings, as hydra/sweeper/sampler=tpe gives"),
        (["hydra.sweeper.sampler=null"], "hydra.sweeper.sampler must be settings, as hydra/sweeper/sampler=tpe gives"),
        (["hydra.sweeper.sampler.seed=a"], "hydra.sweeper.sampler.seed must be a whole number at least 0, got 'a'"),
        (["hydra.sweeper.params=null"], "hydra.sweeper.params must be ranges by key, got None"),
        (["+hydra.sweeper.direction=maximize"], "hydra.sweeper has no key 'direction'"),
    ],
)
def test_wrong_settings_are_one_line_before_there_is_a_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    config = composed(tmp_path, *overrides)
    config.hydra.runtime.choices = {"hydra/launcher": "basic", "hydra/sweeper": "optuna"}
    with pytest.raises(SystemExit, match="1"):
        SweepCallback().on_multirun_start(config)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not sweep_folder(config).record.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hydra.sweeper.sampler.seeed=1"], "hydra.sweeper.sampler"),
        (["+hydra.sweeper.sampler.popsize=1"], "hydra.sweeper.sampler"),
        (["hydra.sweeper.storage=nodatabase://me:secret@there/x"], "hydra.sweeper.storage can't be opened: "),
        (["hydra.sweeper.storage=sqlite:////proc/none/x.db"], "hydra.sweeper.storage can't be opened: "),
        (["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=-1"], "hydra.sweeper.pruner"),
    ],
)
def test_wrong_parts_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    overrides = [text if "seeed" not in text else f"+{text}" for text in overrides]
    with pytest.raises(KwsError) as caught:
        search(tmp_path, monkeypatch, RANGE, *overrides)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_choice_that_changes_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [RANGE, "hydra.sweeper.n_trials=2"]
    search(tmp_path, monkeypatch, *chosen, "+hydra.sweeper.params.seed='1,2'", "hydra.sweeper.n_trials=1")
    with pytest.raises(KwsError, match=r"hydra\.sweeper\.params do not go on"):
        search(tmp_path, monkeypatch, *chosen, "+hydra.sweeper.params.seed='1,2,3'")


def test_a_search_of_the_old_sweeper_is_left_alone(tmp_path: Path) -> None:
    config = composed(tmp_path)
    record = sweep_folder(config).path
    record.mkdir(parents=True)
    (record / "optuna.db").write_bytes(b"SQLite format 3\0")

    with pytest.raises(KwsError) as caught:
        Search.of(config.hydra.sweeper, record)

    assert str(caught.value) == (
        f"'{record / 'optuna.db'}' is a search of an older version, by Optuna 2, which can't be continued: rename or"
        f" remove '{record}', and the same command begins a new search"
    )


def test_without_optuna_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(KwsError, match=r"^sweep=optuna needs the extra 'optuna': pip install -e '\.\[optuna\]'$"):
        Search.of(config.hydra.sweeper, tmp_path)


@pytest.mark.parametrize("text", ["not a journal\nat all\n", '{"op_code": 99}\n', "[]\n", "5\n", "\xff\0\n\n", "{}\n"])
def test_a_damaged_journal_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    journal = tmp_path / "study.journal"
    journal.write_bytes(text.encode("latin-1"))
    with pytest.raises(KwsError) as caught:
        search(tmp_path, monkeypatch, RANGE, f"hydra.sweeper.storage={journal}")
    assert str(caught.value).startswith(f"hydra.sweeper.storage '{journal}' can't be opened: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_journal_cut_short_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cut: int
) -> None:
    journal = search(tmp_path, monkeypatch, RANGE, "hydra.sweeper.n_trials=3").sweep.path / "study.journal"
    journal.write_bytes(journal.read_bytes()[:-cut])

    launcher = search(tmp_path, monkeypatch, RANGE, "hydra.sweeper.n_trials=3")

    assert "ends in a line cut short, which is dropped" in caplog.text
    assert sum(trial.state.name == "COMPLETE" for trial in study_of(launcher).trials) == 3
    assert len(set(rates(launcher))) == 3


def pruning_search(folder: Path, finished: int) -> tuple[DictConfig, Path]:
    """A study with finished trials that were perfect at each evaluation, and a running one: its sweeper, the record."""
    config = composed(folder, "hydra/sweeper/pruner=median", f"hydra.sweeper.trial={finished}")
    record = sweep_folder(config).path
    study = Search.of(config.hydra.sweeper, record).open()
    for _ in range(finished):
        trial = study.ask()
        for evaluation in range(3):
            trial.report(1.0, evaluation)
        study.tell(trial, 1.0)
    study.ask()
    return config, record


def test_a_trial_reports_its_earlier_evaluations_once(tmp_path: Path) -> None:
    config, record = pruning_search(tmp_path, finished=5)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    pd.DataFrame({"step": [10, 20], "val_accuracy": [1.0, 0.5]}).to_csv(folder.training.history, index=False)

    for _ in range(2):  # as when a cluster queues its job again
        logger = PruningLogger(Search.of(config.hydra.sweeper, record))
        logger.begin(folder, {})  # as good as the others at the first evaluation, and a trial's best counts
        logger.evaluated({"step": 20, "val_accuracy": 0.5}, np.zeros(0))  # what was not saved is done again
    logger.evaluated({"step": 30, "val_accuracy": 0.4}, np.zeros(0))

    trial = Search.of(config.hydra.sweeper, record).open().trials[5]
    assert trial.intermediate_values == {0: 1.0, 1: 0.5, 2: 0.4}


def test_a_run_that_was_pruned_is_pruned_at_once_as_another_trial(tmp_path: Path) -> None:
    config, record = pruning_search(tmp_path, finished=5)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    pd.DataFrame({"step": [10], "val_accuracy": [0.3]}).to_csv(folder.training.history, index=False)
    logger = PruningLogger(Search.of(config.hydra.sweeper, record))
    with pytest.raises(Pruned, match=r"^pruned by its search after step 10: accuracy on validation 30\.0%$"):
        logger.begin(folder, {})


def test_a_search_that_is_away_ends_no_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, record = pruning_search(tmp_path, finished=5)
    logger = PruningLogger(Search.of(config.hydra.sweeper, record))
    shutil.rmtree(record)
    logger.evaluated({"step": 10, "val_accuracy": 0.1}, np.zeros(0))
    assert "the search can't be asked whether to go on" in caplog.text


def test_a_pruned_run_is_recorded_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_record(status="training")
    folder.training.state.parent.mkdir()
    folder.training.state.write_bytes(b"state")

    def prune(*args: Any) -> None:
        raise Pruned("worse")

    monkeypatch.setattr(training, "_train", prune)
    monkeypatch.setattr(training, "Experiment", lambda config: None)
    with pytest.raises(Pruned):
        training.train({}, folder.path)

    record = folder.read_record()
    assert record is not None
    assert record["status"] == PRUNED
    assert not folder.training.state.exists()
    sweep = SweepFolder(tmp_path / "sweeps" / "one")
    for written, read in ((DONE, PRUNED), (PRUNED, PRUNED), (FAILED, FAILED), (STOPPED, STOPPED)):
        sweep.write_job(Job(0, [], folder.path, written))
        assert sweep.read_job(0).status == read
