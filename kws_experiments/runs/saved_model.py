"""The trained model on disk: waveform → logits, with the very feature layer that training used inside."""

from __future__ import annotations

import hashlib
import importlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kws_data.errors import KwsError
from kws_data.storage.atomic import replace_file
from kws_experiments.config.allowed import refused_in_model
from kws_experiments.runs.files import GIVE_RUN, whole
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.trust import require_trust

if TYPE_CHECKING:
    import keras

    from kws_data.features.base import FeatureLayer


def save_model(path: Path, features: FeatureLayer, network: keras.Model, clip_samples: int | None) -> keras.Model:
    """Write one Keras file that takes waveforms [batch, samples] float32 in [-1, 1].

    Where clips keep their lengths it takes a dict of `waveform` and `lengths` ([batch] int32, samples).

    Returns:
        the model that was written.
    """
    import keras

    from kws_data.features.base import NumFrames

    waveform = keras.Input((clip_samples,), name="waveform")
    if clip_samples is None:
        lengths = keras.Input((), dtype="int32", name="lengths")
        num_frames = NumFrames(features.frame_length, features.frame_step)(lengths)
        logits = network({"features": features(waveform), "num_frames": num_frames})
        model = keras.Model({"waveform": waveform, "lengths": lengths}, logits)
    else:
        model = keras.Model(waveform, network(features(waveform)))
    with replace_file(path) as temporary:
        model.save(temporary)
    return model


def load_model(run: Path) -> keras.Model:
    """The model of a run's folder, as `save_model` wrote it.

    Raises:
        KwsError: `run` is no folder of a finished run, its model is damaged, or it is from elsewhere and names code of
            its own.
    """
    folder = RunFolder(run)
    if not folder.model.is_file():
        raise KwsError(f"'{run}' holds no model.keras: give the folder of a finished run")
    config = folder.read_config()
    with whole(folder.model, GIVE_RUN):
        require_trust(run, folder.model, refused_in_model(folder.model))
    import keras

    try:
        for key in ("features", "model"):  # importing a layer's module makes it known to Keras
            importlib.import_module(config.get(key, {}).get("_target_", "").rpartition(".")[0])
        return keras.models.load_model(folder.model, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, EOFError, ImportError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise KwsError(f"'{folder.model}' can't be loaded: {reason[:200] or type(error).__name__}") from error


def network_of(model: keras.Model) -> keras.Model:
    """The part of a saved model that takes features."""
    import keras

    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def features_of(model: keras.Model) -> FeatureLayer:
    """The part of a saved model that computes features."""
    from kws_data.features.base import FeatureLayer

    return next(layer for layer in model.layers if isinstance(layer, FeatureLayer))


def weights_digest(weights: Sequence[keras.Variable]) -> str:
    """SHA-256 of weights, bit by bit; names don't count, since Keras numbers layers as it goes."""
    digest = hashlib.sha256()
    for weight in weights:
        array = np.asarray(weight)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def named_weights(model: keras.Model) -> list[tuple[str, np.ndarray]]:
    """The weights of a saved model, in the order in which they compute, the features' statistics first."""
    weights = [*features_of(model).weights, *network_of(model).weights]
    return [(weight.path, np.asarray(weight)) for weight in weights]
