"""Start a training from another run's weights instead of random ones."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kws_data.errors import KwsError
from kws_experiments.runs import checkpoint
from kws_experiments.runs.folder import RunFolder, no_run
from kws_experiments.runs.saved_model import features_of, load_model, network_of

if TYPE_CHECKING:
    import keras

    from kws_data.features.base import FeatureLayer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """The run that a training starts from, finished or not.

    Attributes:
        folder: its folder.
        file: the file with its weights.
        labels: its class names.
        features: the configuration of its features.
    """

    folder: RunFolder
    file: Path
    labels: list[str]
    features: dict[str, Any]


def find_origin(value: Any) -> Origin:
    """The run that the key `start_from` names: by its folder, or by `model.keras` or `checkpoint/best.npz` in it.

    Raises:
        KwsError: there is no such run.
    """
    if not isinstance(value, str):
        raise KwsError(f"start_from must be the folder of a run, or a checkpoint in one, got {value!r}")
    folder, file = _locate(Path(value).expanduser())
    try:
        config, labels = folder.read_config(), folder.read_labels()
    except KwsError as error:
        raise KwsError(f"start_from: {error}") from error
    features = config.get("features")
    if not isinstance(features, dict) or not isinstance(config.get("model"), dict):
        raise KwsError(f"start_from: '{folder.config}' is not a run's configuration: give the folder of a run")
    return Origin(folder, file, labels, features)


def _locate(path: Path) -> tuple[RunFolder, Path]:
    """The run's folder and the file with its weights."""
    if path.is_dir():
        folder = RunFolder(path)
        for file in (folder.model, folder.training.best):
            if file.is_file():
                return folder, file
        if folder.training.state.is_file():
            raise KwsError(
                f"start_from: '{path}' was stopped before its first evaluation, and has no weights to start from yet;"
                " its own command resumes it"
            )
        raise KwsError(f"start_from: {no_run(path)}")
    if not path.is_file():
        raise KwsError(f"start_from: {no_run(path)}")
    for folder in (RunFolder(path.parent), RunFolder(path.parent.parent)):
        if path in (folder.model, folder.training.best):
            return folder, path
    raise KwsError(f"start_from: '{path}' is neither a run's folder, nor its model.keras or checkpoint/best.npz")


class Taken(NamedTuple):
    """What a training has of another run.

    Attributes:
        sha256: of the file with its weights.
        statistics: whether it has the statistics of its features, too.
        outputs: the labels whose weights in the head it has.
    """

    sha256: str
    statistics: bool
    outputs: list[str]


def start_from(
    origin: Origin,
    network: keras.Model,
    features: FeatureLayer,
    labels: list[str],
    config: dict[str, Any],
    *,
    keep_outputs: bool = False,
) -> Taken:
    """Set the weights of `network`, and the statistics of `features`, to those of another run.

    If the other run has the same labels, in any order, its head is used too; otherwise the head (the last layer with
    weights) keeps its initial weights, unless `keep_outputs`.

    Args:
        origin: the other run.
        network: features → logits, of the same architecture.
        features: the feature layer, built.
        labels: this run's class names.
        config: the configuration of this run's features.
        keep_outputs: use the weights of each label that both runs have, also where other labels differ.

    Raises:
        KwsError: the file is damaged, or is of another network.
    """
    if origin.features != config:
        log.warning("start_from: '%s' was trained on other features (%s)", origin.file, origin.features["_target_"])
    try:
        arrays, statistics = _read(origin)
    except KwsError as error:
        raise KwsError(f"start_from: {error}") from error
    same = [label for label in labels if label in origin.labels]
    whole = len(same) == len(labels) == len(origin.labels)
    kept = [(labels.index(label), origin.labels.index(label)) for label in same if whole or keep_outputs]
    _assign(network, arrays, kept, origin.file)
    head = "its head" if whole else f"its outputs of {len(kept)} labels" if kept else "a new head"
    log.info("starting from '%s', with %s", origin.file, head)
    has_statistics = bool(features.weights and statistics)
    if has_statistics:
        for variable, array in zip(features.weights, statistics, strict=True):
            if array.shape != tuple(variable.shape):
                raise KwsError(f"start_from: '{origin.file}' has statistics of other features; features must be equal")
            variable.assign(array)
    digest = hashlib.sha256(origin.file.read_bytes()).hexdigest()
    return Taken(digest, has_statistics, [labels[here] for here, _ in kept])


def _read(origin: Origin) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The other run's weights, and the statistics of its features."""
    if origin.file.suffix == ".npz":
        arrays = checkpoint.read_arrays(origin.file)
        initial = origin.folder.training.initial
        return arrays, checkpoint.read_arrays(initial)[len(arrays) :] if initial.is_file() else []
    model = load_model(origin.folder.path)
    weights, statistics = network_of(model).weights, features_of(model).weights
    return [np.asarray(weight) for weight in weights], [np.asarray(weight) for weight in statistics]


def _assign(network: keras.Model, arrays: list[np.ndarray], kept: list[tuple[int, int]], file: Path) -> None:
    """Set the network's weights, those of its head for the labels in `kept` alone: (index here, index there)."""
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
            " model must be the same as in that run"
        )
    for weight, array in zip(network.weights, arrays, strict=True):
        if id(weight) in in_head:
            if not kept:
                continue
            here, there = zip(*kept, strict=True)
            values = np.array(weight)
            if array.shape[:-1] == values.shape[:-1]:
                values[..., here] = array[..., there]
                array = values
        if array.shape != tuple(weight.shape):
            raise KwsError(
                f"start_from: '{file}' holds another network: {weight.path} is {list(array.shape)} there,"
                f" {list(weight.shape)} here; model and features must be the same as in that run"
            )
        weight.assign(array)
