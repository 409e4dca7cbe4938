from __future__ import annotations

from typing import Any

import pytest

from kws_data.errors import KwsError
from kws_experiments.config.allowed import refused_in_config
from kws_experiments.config.compose import compose, fingerprint, run_folder
from kws_experiments.experiment.experiment import Experiment

WORDS = ["experiment=small_data", "pretrain=words"]


def test_it_is_the_run_with_other_data_and_nothing_after_it() -> None:
    run = compose([*WORDS, "seed=5", "tune=streams", "model.batch_norm_momentum=0.9", "logger=mlflow"])
    experiment = Experiment(run)
    before = experiment.pretraining
    assert before is not None
    assert before.config["model"] == run["model"]
    assert before.config["features"] == run["features"]
    assert before.config["optimizer"] == run["optimizer"]
    assert before.settings.ema_momentum == experiment.settings.ema_momentum
    assert (before.seed, before.settings.epochs, before.task.unknown) == (0, 10, False)
    assert len(before.part("dataset.words")) == len(set(before.part("dataset.words"))) == 322
    assert (before.tuning, before.report, before.config["loggers"], before.pretraining) == (None, False, {}, None)
    assert experiment.tuning is not None


def test_what_has_its_own_class_is_replaced_and_the_rest_is_changed() -> None:
    dataset = {"_target_": "kws_data.sources.datasets.Folder", "path": "/nowhere"}
    config = compose(["experiment=small_data"])
    changes: dict[str, Any] = {
        "dataset": dataset,
        "trainer": {"epochs": 2},
        "augment": {"waveform": {}, "features": {}},
    }
    before = Experiment(config | {"pretrain": changes}).pretraining
    assert before is not None
    assert before.config["dataset"] == dataset
    assert before.config["trainer"] == config["trainer"] | {"epochs": 2}
    assert before.config["augment"] == changes["augment"]
    assert before.config["schedule"] == config["schedule"]


def test_runs_that_differ_in_what_it_does_not_use_share_it() -> None:
    def folder(*overrides: str) -> str:
        before = Experiment(compose([*WORDS, *overrides])).pretraining
        assert before is not None
        return run_folder(before.config)

    assert folder("seed=1", "augment=in_context", "trainer.epochs=3", "schedule.warmup=0") == folder()
    assert folder().startswith("runs/pretrain/")
    assert folder("model.batch_norm_momentum=0.9") != folder()
    assert folder("pretrain.trainer.epochs=3") != folder()


def test_a_run_with_it_is_another_run() -> None:
    assert fingerprint(compose(WORDS)) != fingerprint(compose(WORDS[:1]))
    assert fingerprint(compose([*WORDS, "tune=streams"])) == fingerprint(compose(WORDS))  # tuning changes no weights


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+pretrain.colour=red"], "pretrain.colour: must be a key of the configuration"),
        (["+pretrain.start_from=x"], "pretrain.start_from: must be a key of the configuration"),
        (
            ["dataset=folder", "dataset.path='/a/\\${seed}'"],
            "dataset.path: '/a/${seed}' holds ${, which is read as the name of another key",
        ),
        (["pretrain.task.words=['\\${oc.env:HOME}']"], "pretrain.task.words: '['${oc.env:HOME}']' holds ${, which is"),
        (["start_from=runs/x"], "start_from: the weights come from pretrain"),
        (["pretrain.trainer.epochs=0"], "pretrain.trainer.epochs must be a whole number"),
        (["pretrain=words", "pretrain.dataset.voices=0"], "pretrain.dataset.voices must be"),
        (["tune=streams", "tune.minutes=0"], "tune.minutes must be"),
        (["tune=streams", "tune.false_accepts_per_hour=[1,2]"], "tune.false_accepts_per_hour must be three rates"),
    ],
)
def test_wrong_values_are_one_line_before_any_data(overrides: list[str], message: str) -> None:
    with pytest.raises(KwsError) as refused:
        Experiment(compose([*WORDS, *overrides])).check_without_tensorflow()
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_pretrain_must_hold_changes() -> None:
    with pytest.raises(KwsError, match="pretrain must be null, or hold changes to the configuration, got 3"):
        Experiment(compose(WORDS) | {"pretrain": 3}).check_without_tensorflow()


def test_foreign_configurations_may_name_no_more_there_than_elsewhere() -> None:
    config = compose(WORDS)
    assert refused_in_config(config) is None
    config["pretrain"]["dataset"]["_target_"] = "os.system"
    refused = refused_in_config(config)
    assert refused is not None
    assert "pretrain.dataset names os.system" in refused


def test_a_recipes_pre_training_can_be_taken_away() -> None:
    assert compose(["experiment=listening"])["pretrain"]
    assert compose(["experiment=listening", "~pretrain"])["pretrain"] is None
