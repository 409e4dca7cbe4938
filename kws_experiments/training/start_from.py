"""Start a training from another run's model instead of from random weights."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kws_data.errors import KwsError
from kws_experiments.runs import checkpoint
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.saved_model import load_model, network_of

if TYPE_CHECKING:
    import keras

    from kws_data.features.base import FeatureLayer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """The run that a training starts from, finished or not.

    Attributes:
        folder: its folder.
        file: where its weights are.
        labels: its class names.
        features: the configuration of its features.
    """

    folder: RunFolder
    file: Path
    labels: list[str]
    features: dict[str, Any]


def find_origin(value: Any) -> Origin:
    """What the key `start_from` names: the folder of a run, or `model.keras` or `checkpoint/best.npz` in one.

    Raises:
        KwsError: it names no such thing.
    """
    if not isinstance(value, str):
        raise KwsError(f"start_from must be the folder of a run, or a checkpoint in one, got {value!r}")
    folder, file = _files(Path(value).expanduser())
    try:
        config, labels = folder.read_config(), folder.read_labels()
    except KwsError as error:
        raise KwsError(f"start_from: {error}") from error
    features = config.get("features")
    if not isinstance(features, dict) or not isinstance(config.get("model"), dict):
        raise KwsError(f"start_from: '{folder.config}' is no run's configuration: give the folder of a run")
    return Origin(folder, file, labels, features)


def _files(path: Path) -> tuple[RunFolder, Path]:
    if path.is_dir():
        folder = RunFolder(path)
        for file in (folder.model, folder.training.best):
            if file.is_file():
                return folder, file
        if folder.training.state.is_file():
            raise KwsError(
                f"start_from: '{path}' was stopped before its first evaluation, and has no weights to start from yet;"
                " its own command goes on with it"
            )
        raise KwsError(f"start_from: '{path}' holds neither model.keras nor a checkpoint: give the folder of a run")
    if not path.is_file():
        raise KwsError(f"start_from: no such file or folder: '{path}'")
    for folder in (RunFolder(path.parent), RunFolder(path.parent.parent)):
        if path.name in (folder.model.name, folder.training.best.name) and path in (folder.model, folder.training.best):
            return folder, path
    raise KwsError(f"start_from: '{path}' is neither a run's folder, nor its model.keras or checkpoint/best.npz")


def start_from(
    origin: Origin, network: keras.Model, features: FeatureLayer, labels: list[str], config: dict[str, Any]
) -> tuple[str, bool]:
    """Set the weights of `network`, and the statistics of `features`, to those of another run.

    Where the other run has the same labels, in any order, its head is taken too; otherwise the head stays as
    initialised: the last layer that has weights.

    Args:
        origin: the other run.
        network: features → logits, of the same architecture.
        features: the feature layer, built.
        labels: this run's class names.
        config: the configuration of this run's features.

    Returns:
        the SHA-256 of the file that the weights came from, and whether there were statistics of features.

    Raises:
        KwsError: the file is damaged, or holds another network.
    """
    if origin.features != config:
        log.warning("start_from: '%s' was trained on other features (%s)", origin.file, origin.features["_target_"])
    try:
        arrays, statistics = _read(origin)
    except KwsError as error:
        raise KwsError(f"start_from: {error}") from error
    order = _order(origin.labels, labels)
    _assign(network, arrays, order, origin.file)
    log.info("starting from '%s', %s", origin.file, "with its head" if order else "with a new head")
    carried = bool(features.weights and statistics)
    for variable, array in zip(features.weights, statistics if carried else [], strict=carried):
        if array.shape != tuple(variable.shape):
            raise KwsError(f"start_from: '{origin.file}' has statistics of other features; features must be the same")
        variable.assign(array)
    return hashlib.sha256(origin.file.read_bytes()).hexdigest(), carried


def _read(origin: Origin) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The other run's weights, and the statistics of its features."""
    if origin.file.suffix == ".npz":
        arrays = checkpoint.read_arrays(origin.file)
        initial = origin.folder.training.initial
        return arrays, checkpoint.read_arrays(initial)[len(arrays) :] if initial.is_file() else []
    from kws_data.features.base import FeatureLayer

    model = load_model(origin.folder.path)
    statistics = [weight for layer in model.layers if isinstance(layer, FeatureLayer) for weight in layer.weights]
    return [np.asarray(weight) for weight in network_of(model).weights], [np.asarray(w) for w in statistics]


def _order(labels_before: list[str], labels: list[str]) -> list[int] | None:
    """For each label its place before; None where the sets differ."""
    same = sorted(labels) == sorted(labels_before)
    return [labels_before.index(label) for label in labels] if same else None


def _assign(network: keras.Model, arrays: list[np.ndarray], order: list[int] | None, file: Path) -> None:
    head = [layer for layer in network.layers if layer.weights][-1]
    in_head = {id(weight) for weight in head.weights}
    num_labels = network.output_shape[-1]
    if any(weight.shape[-1:] != (num_labels,) for weight in head.weights):
        raise KwsError(
            f"start_from: can't replace the head of this network: '{head.name}', the last layer with weights, has"
            f" {[tuple(weight.shape) for weight in head.weights]}, not a row or a value for each of {num_labels} labels"
        )
    if len(arrays) != len(network.weights):
        raise KwsError(
            f"start_from: '{file}' holds another network: {len(arrays)} weights there, {len(network.weights)} here;"
            " model must be that of that run"
        )
    for weight, array in zip(network.weights, arrays, strict=True):
        if id(weight) in in_head:
            if order is None:
                continue
            array = array[..., order] if array.shape == tuple(weight.shape) else array
        if array.shape != tuple(weight.shape):
            raise KwsError(
                f"start_from: '{file}' holds another network: {weight.path} is {list(array.shape)} there,"
                f" {list(weight.shape)} here; model and features must be those of that run"
            )
        weight.assign(array)
