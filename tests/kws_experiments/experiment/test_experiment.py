"""The objects of a configuration are checked before any data is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import pytest

from kws_data.errors import KwsError
from kws_experiments.config.compose import compose
from kws_experiments.experiment.experiment import Experiment
from kws_models.inputs import feature_inputs

Shape = tuple[int | None, int]


def not_a_model(input_shape: Shape, num_labels: int) -> Any:
    del input_shape
    return num_labels


def another_number_of_logits(input_shape: Shape, num_labels: int) -> keras.Model:
    return _network(input_shape, keras.layers.Dense(num_labels + 5))


def softmax_inside(input_shape: Shape, num_labels: int) -> keras.Model:
    return _network(input_shape, keras.layers.Dense(num_labels, activation="softmax", name="scores"))


def softmax_after(input_shape: Shape, num_labels: int) -> keras.Model:
    return _network(input_shape, keras.layers.Dense(num_labels), keras.layers.Softmax(name="scores"))


def ignores_lengths(input_shape: Shape, num_labels: int) -> keras.Model:
    inputs = keras.Input(input_shape)
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Conv1D(4, 3)(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_labels)(x))


def valid(input_shape: Shape, num_labels: int) -> keras.Model:
    inputs, features, _ = feature_inputs(input_shape)
    x = keras.layers.GlobalAveragePooling1D()(features)
    return keras.Model(inputs, keras.layers.Dense(num_labels)(x))


def _network(input_shape: Shape, *layers: keras.layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), *layers])


def build(model: str, *overrides: str) -> None:
    config = compose(["dataset=folder", "dataset.path=/", *overrides])
    Experiment(config | {"model": {"_target_": f"{__name__}.{model}"}}).check()


@pytest.mark.parametrize(
    ("model", "overrides", "message"),
    [
        ("not_a_model", [], "must be a keras.Model(inputs, logits), and is of type int"),
        ("another_number_of_logits", [], "gives (None, 7) when asked for 2 labels, and must give (None, 2)"),
        ("softmax_inside", [], "ends in a softmax ('scores'), and must give logits"),
        ("softmax_after", [], "ends in a softmax ('scores'), and must give logits"),
        ("ignores_lengths", ["clip_ms=null"], "takes no num_frames"),
    ],
)
def test_an_invalid_custom_model_is_one_line(model: str, overrides: list[str], message: str) -> None:
    with pytest.raises(KwsError) as caught:
        build(model, *overrides)
    assert str(caught.value).startswith(f"model: the result of {__name__}.{model} ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_one_length_does_not_fit_clips_of_any_length() -> None:
    with pytest.raises(KwsError, match=r"^model: [^\n]* \(with clip_ms=null its input_shape is \(None, 40\)\)$"):
        build("softmax_inside", "clip_ms=null")


@pytest.mark.parametrize("model", [("valid",), ("valid", "clip_ms=null"), ("ignores_lengths",)])
def test_a_valid_custom_model_is_accepted(model: tuple[str, ...]) -> None:
    build(*model)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with folders `clips`, `other` and `hiss`, each with one inside."""
    for name in ("clips/a", "other/a", "hiss/a"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.unknown_dirs=[clips/a]", "task.unknown_dirs, task.word_dirs: '{}/clips/a' is inside '{}/clips'"),
        ("task.word_dirs=[other,other/a]", "task.unknown_dirs, task.word_dirs: '{}/other/a' is inside '{}/other'"),
        ("noise.dirs=[hiss,{path: hiss/a}]", "noise.dirs: '{}/hiss/a' is inside '{}/hiss'"),
        ("dataset.path=none", "dataset.path: no folder 'none'; give one that holds a folder of clips for each word"),
        ("task.unknown_dirs=[other,none]", "task.unknown_dirs: no folder '{}/none'"),
        ("task.word_dirs=[{path: none, few: true}]", "task.word_dirs: no folder 'none'"),
        ("noise.dirs=[{path: none}]", "noise.dirs: no folder 'none'"),
        ("+pretrain.dataset.path=none", "pretrain.dataset.path: no folder 'none'; give one that holds"),
    ],
)
def test_missing_folders_and_those_within_each_other_are_refused_before_tensorflow_starts(
    folders: Path, override: str, message: str
) -> None:
    with pytest.raises(KwsError, match=f"^{re.escape(message.format(folders, folders))}"):
        Experiment(compose(["dataset=folder", "dataset.path=clips", override])).check_folders()


@pytest.mark.parametrize("dataset", ["v0.02", "synthetic"])
def test_data_sets_that_are_downloaded_or_made_need_not_be_there_yet(dataset: str) -> None:
    Experiment(compose([f"dataset={dataset}"])).check_folders()
