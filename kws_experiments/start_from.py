"""Start a training from another run's model instead of from random weights."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kws_data.errors import KwsError
from kws_experiments.folder import RunFolder
from kws_experiments.saved_model import load_model, network_of

if TYPE_CHECKING:
    import keras

    from kws_data.features.base import FeatureLayer

log = logging.getLogger(__name__)


def check_start_from(value: Any) -> None:
    """Check the key `start_from` as far as it goes without TensorFlow.

    Raises:
        KwsError: it names neither a run's folder nor a checkpoint in one.
    """
    if value is not None and not isinstance(value, str):
        raise KwsError(f"start_from must be the folder of a run, or a checkpoint in one, got {value!r}")
    if value is not None:
        _files(value)


def start_from(
    value: str, network: keras.Model, features: FeatureLayer, labels: list[str], config: dict[str, Any]
) -> str:
    """Set the weights of `network`, and the statistics of `features`, to those of another run.

    Where the other run has the same labels, in any order, its head is taken too; otherwise the head stays as
    initialised: the last layer that has weights.

    Args:
        value: the folder of a run (finished or not), or a `.keras` or `best.npz` file in one.
        network: features → logits, of the same architecture.
        features: the feature layer.
        labels: this run's class names.
        config: this run's.

    Returns:
        the SHA-256 of the file that the weights came from.

    Raises:
        KwsError: there is no such file, or it holds another network.
    """
    folder, file = _files(value)
    before = folder.read_config()
    if before["features"] != config["features"]:
        log.warning("start_from: '%s' was trained on other features (%s)", folder.path, before["features"]["_target_"])
    if file.suffix == ".npz":
        arrays = _npz_arrays(file)
    else:
        model = load_model(folder.path, file)
        arrays = [np.asarray(weight) for weight in network_of(model).weights]
        statistics = [np.asarray(weight) for layer in model.layers for weight in layer.weights if _is_features(layer)]
        for variable, array in zip(features.weights, statistics, strict=False):
            variable.assign(array)
    _assign(network, arrays, folder.read_labels(), labels, file)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _is_features(layer: keras.layers.Layer) -> bool:
    from kws_data.features.base import FeatureLayer

    return isinstance(layer, FeatureLayer)


def _files(value: str) -> tuple[RunFolder, Path]:
    """The run's folder, and the file with its weights."""
    path = Path(value).expanduser()
    if path.is_dir():
        folder = RunFolder(path)
        for file in (folder.model, folder.training.best):
            if file.is_file():
                return folder, file
        raise KwsError(f"start_from: '{path}' holds neither model.keras nor a checkpoint: give the folder of a run")
    if not path.is_file():
        raise KwsError(f"start_from: no such file or folder: '{path}'")
    if path.name == "best.npz":
        return RunFolder(path.parent.parent), path
    if path.suffix == ".keras":
        return RunFolder(path.parent), path
    raise KwsError(f"start_from: '{path}' is neither a run's folder, nor its model.keras or checkpoint/best.npz")


def _npz_arrays(file: Path) -> list[np.ndarray]:
    try:
        with np.load(file) as saved:
            return [saved[f"v{place}"] for place in range(len(saved.files))]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise KwsError(f"start_from: '{file}' is no whole checkpoint") from error


def _assign(
    network: keras.Model, arrays: list[np.ndarray], labels_before: list[str], labels: list[str], file: Path
) -> None:
    import keras

    head = [layer for layer in network.layers if layer.weights][-1]
    in_head = {id(weight) for weight in head.weights}
    order = [labels_before.index(label) for label in labels] if set(labels) == set(labels_before) else None
    if len(arrays) != len(network.weights):
        raise KwsError(f"start_from: '{file}' holds another network: {len(arrays)} weights, not {len(network.weights)}")
    for weight, array in zip(network.weights, arrays, strict=True):
        if id(weight) in in_head:
            if order is None:
                continue
            array = array[..., order]
        if array.shape != tuple(weight.shape):
            raise KwsError(
                f"start_from: '{file}' holds another network: {weight.path} is {list(array.shape)} there,"
                f" {list(weight.shape)} here; model and features must be those of that run"
            )
        weight.assign(array)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    kept = "with its head" if order is not None else f"with a new head for {len(labels)} labels"
    log.info("starting from '%s', %s", file, kept)
