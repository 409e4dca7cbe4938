"""What files from elsewhere may name."""

from __future__ import annotations

import copy
import inspect
import json
import zipfile
from pathlib import Path
from typing import Any

import audiomentations
import keras
import pytest
from audiomentations.core.composition import BaseCompose
from audiomentations.core.transforms_interface import BaseTransform

from kws_data.errors import KwsError
from kws_experiments.config.allowed import refused_in_config, refused_in_model
from kws_experiments.config.compose import CONF, compose
from kws_experiments.reports.model_table import choose
from tests.conftest import ROOT

STAGE = "augment.waveform.audiomentations"


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return compose(["dataset=folder", "dataset.path=clips", "+augment/waveform=audiomentations", "logger=mlflow"])


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    node = config
    *parents, last = key.split(".")
    for parent in parents:
        node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
    node[last] = value
    return config


@pytest.mark.parametrize("recipe", [file.stem for file in sorted((CONF / "experiment").glob("*.yaml"))])
def test_every_recipe_is_allowed(recipe: str) -> None:
    assert refused_in_config(compose([f"experiment={recipe}", "logger=mlflow", "augment=strong"])) is None


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("optimizer._target_", "keras.optimizers.Lion"),
        ("optimizer.learning_rate", {"_target_": "keras.optimizers.schedules.CosineDecay"}),
        ("model.kernel_regularizer", {"_target_": "keras.regularizers.L2", "l2": 0.1}),
        (f"{STAGE}.transform.transforms.1._target_", "audiomentations.OneOf"),
    ],
)
def test_keras_and_audiomentations_are_allowed_where_they_belong(config: dict[str, Any], key: str, target: Any) -> None:
    assert refused_in_config(changed(config, key, target)) is None


def test_what_audiomentations_offers_are_transforms_that_take_no_function_from_yaml() -> None:
    """A capital at the beginning is all that is asked of a name there."""
    for name in dir(audiomentations):
        if name[0].isupper() and inspect.isclass(found := getattr(audiomentations, name)) and name != "Lambda":
            assert issubclass(found, BaseTransform | BaseCompose)


PLACES = [
    "dataset", "task", "split", "features", "model", "optimizer", "schedule", "trainer", "loggers.mlflow",
    "augment.waveform.time_shift", STAGE, f"{STAGE}.transform", f"{STAGE}.transform.transforms.2",
    # no place of its own
    "threads", "noise.dirs", "dataset.path", "task.words", "trainer.steps", "model.filters", "augment.clipping",
    "augment.features.mine", "evaluation.snr_db", "name", "start_from", "hydra.callbacks.mine",
    f"{STAGE}.transform.transforms.2.p", "loggers.mlflow.tracking_uri", "features.window_ms",
]  # fmt: skip
NAMES = [
    "os.system", "builtins.eval", "pandas.read_pickle", "joblib.load", "numpy.load", "hydra.utils.instantiate",
    "hydra.utils.get_method", "importlib.import_module", "kws_data.sources.extract.subprocess.run",
    "kws_data.audio.soundfile.read", "kws_data.storage.atomic.remove", "kws_experiments.sweeps.child.main",
    "keras.layers.Lambda", "keras.layers.TFSMLayer", "keras.layers.TorchModuleWrapper", "keras.layers.JaxLayer",
    "keras.models.load_model", "keras.utils.get_file", "keras.src.layers.Lambda", "audiomentations.Lambda",
    "audiomentations.core.utils.os.system", "audiomentations", "evil.model", "", None, ["os.system"], {"_target_": "x"},
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES, ids=str)
def test_nothing_else_is(config: dict[str, Any], place: str, name: Any) -> None:
    *parents, last = place.split(".")
    node: Any = config
    for parent in parents:
        node = node[int(parent)] if isinstance(node, list) else node.get(parent, {})
    before = node[int(last)] if isinstance(node, list) else node.get(last)
    hostile = {**before, "_target_": name} if isinstance(before, dict) else {"_target_": name}
    if isinstance(node, list):
        config = changed(config, ".".join(parents), [hostile if item is before else item for item in node])
    else:
        config = changed(config, place, hostile)

    assert str(refused_in_config(config)).startswith(f"{place} names ")


def test_one_key_s_choice_is_not_another_s(config: dict[str, Any]) -> None:
    for key, target in (
        ("dataset", "kws_models.conv.conv"),
        ("model", "kws_data.sources.datasets.Folder"),
        ("loggers.mine", "kws_data.sources.datasets.Synthetic"),
        ("model", "audiomentations.Gain"),
    ):
        assert refused_in_config(changed(config, f"{key}._target_", target)) == f"{key} names {target}"


@pytest.mark.parametrize(
    "text", ["${oc.env:HOME}", 'x${oc.create:"{_target_: os.system}"}', "${run_dir:}", "${dataset.path}"]
)
def test_interpolations_are_refused(config: dict[str, Any], text: str) -> None:
    for key in ("dataset.path", "model", f"{STAGE}.transform.transforms.0.p"):
        assert refused_in_config(changed(config, key, text)) == f"{key} holds an interpolation, {text}"


def test_the_model_of_an_old_run_is_allowed() -> None:
    assert refused_in_model(ROOT / "tests" / "data" / "run_of_0.1.0" / "run" / "model.keras") is None


@pytest.mark.parametrize(
    "name",
    [
        "bc_resnet_1", "cnn4", "conv", "ds_cnn_s", "low_latency_svdf", "matchboxnet_3x1x64", "mhatt_rnn", "res8",
        "simple_audio", "tc_resnet8", "tiny_conv",
    ],
)  # fmt: skip
@pytest.mark.parametrize("length", ["clip_ms=1000", "clip_ms=null"])
def test_every_family_s_model_is_allowed(name: str, length: str, tmp_path: Path) -> None:
    experiment = choose(name, [length], None).experiment
    try:
        described = keras.saving.serialize_keras_object(experiment.build_network(12))
    except KwsError:
        if length != "clip_ms=null":
            raise
        pytest.skip("it takes clips of one length only")
    write_model(tmp_path / "model.keras", described)
    assert refused_in_model(tmp_path / "model.keras") is None


def write_model(path: Path, config: Any) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))


@pytest.mark.parametrize(
    ("described", "named"),
    [
        ({"module": "keras.layers", "class_name": "Lambda", "config": {}}, "keras.layers.Lambda"),
        ({"module": "keras.src.layers.core.lambda_layer", "class_name": "Lambda"}, "lambda_layer.Lambda"),
        ({"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "x"}}, "keras.layers.TFSMLayer"),
        ({"module": "keras.layers", "class_name": "TorchModuleWrapper"}, "TorchModuleWrapper"),
        ({"module": "keras.utils", "class_name": "get_file"}, "keras.utils.get_file"),
        ({"module": "builtins", "class_name": "eval"}, "builtins.eval"),
        ({"module": "builtins", "class_name": "function", "config": "Lambda"}, "keras.activations.Lambda"),
        ({"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}, "os.function"),
        ({"module": "evil", "class_name": "Net", "registered_name": "evil>Net"}, "evil.Net"),
        ({"module": "kws_models.layers", "class_name": "Net", "registered_name": "evil>Net"}, "kws_models.layers.Net"),
        ({"module": "kws_models.layers", "class_name": "tf", "registered_name": "tf"}, "kws_models.layers.tf"),
        ({"module": "keras.layers", "class_name": "Dense", "registered_name": "evil>Dense"}, "keras.layers.Dense"),
        ({"module": None, "class_name": "__lambda__", "config": {"value": "x"}}, "None.__lambda__"),
        ({"class_name": "Lambda", "config": {}}, "None.Lambda"),
        ({"module": "keras_hub.layers", "class_name": "X"}, "keras_hub.layers.X"),
        ({"module": ["os"], "class_name": "system"}, "['os'].system"),
    ],
)
def test_other_classes_in_a_model_are_refused_at_any_depth(tmp_path: Path, described: Any, named: str) -> None:
    outer = {"module": "keras.layers", "class_name": "Bidirectional", "config": {"layer": [{"deep": described}]}}
    for content in (described, outer, {"compile_config": outer}):
        write_model(tmp_path / "model.keras", content)
        assert str(refused_in_model(tmp_path / "model.keras")).endswith(named)
        assert str(refused_in_config({"model": {"activation": content}})).endswith(named)
