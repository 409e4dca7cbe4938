"""The trained model on disk: waveform → logits, with the very feature layer that training used inside."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from kws_data.atomic import replace_file
from kws_data.errors import KwsError
from kws_experiments.folder import RunFolder

if TYPE_CHECKING:
    import keras

    from kws_data.features.base import FeatureLayer


def save_model(path: Path, features: FeatureLayer, network: keras.Model, clip_samples: int | None) -> None:
    """Write one Keras file that takes waveforms [batch, samples] float32 in [-1, 1].

    Where clips keep their lengths it takes a dict of `waveform` and `lengths` ([batch] int32, samples).
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


def load_model(run: Path, file: Path | None = None) -> keras.Model:
    """The model of a run's folder, as `save_model` wrote it, or one in another `file` of the same run.

    Raises:
        KwsError: `run` is no folder of a finished run.
    """
    folder = RunFolder(run)
    file = file or folder.model
    if not file.is_file():
        raise KwsError(f"'{run}' holds no model.keras: give the folder of a finished run")
    import keras

    config = folder.read_config()
    for key in ("features", "model"):  # importing a layer's module makes it known to Keras
        importlib.import_module(config[key]["_target_"].rpartition(".")[0])
    return keras.models.load_model(file)


def network_of(model: keras.Model) -> keras.Model:
    """The part of a saved model that takes features."""
    import keras

    return next(layer for layer in model.layers if isinstance(layer, keras.Model))
