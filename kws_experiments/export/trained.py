"""A trained run as converters take it: the front end and the network apart, in single precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.saved_model import load_model, network_of

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from kws_data.features.base import FeatureLayer


@dataclass(frozen=True)
class Trained:
    """What a run has learned.

    Attributes:
        features: the front end, with the statistics that it was adapted to.
        network: features → logits.
        labels: class names.
        keeps_lengths: whether the network also takes the clips' lengths (`clip_ms=null`).
    """

    features: FeatureLayer
    network: keras.Model
    labels: list[str]
    keeps_lengths: bool

    def logits(self, features: tf.Tensor) -> tf.Tensor:
        """[batch, frames, bins] without padding → [batch, labels]."""
        import tensorflow as tf

        if not self.keeps_lengths:
            return self.network(features, training=False)
        num_frames = tf.fill(tf.shape(features)[:1], tf.shape(features)[1])
        return self.network({"features": features, "num_frames": num_frames}, training=False)


def load_trained(run: Path, *, unrolled: bool) -> Trained:
    """The front end and the network of a finished run.

    The network is built anew from the run's configuration where the one in `model.keras` computes in half precision,
    or has a loop that is to be unrolled; its weights are the same.

    Args:
        run: its folder.
        unrolled: write recurrent layers out frame by frame, where the model can (its parameter `unroll`).

    Raises:
        KwsError: `run` is no finished run, or damaged.
    """
    from kws_data.features.base import FeatureLayer

    folder = RunFolder(run)
    experiment, labels = Experiment(folder.read_config()), folder.read_labels()
    model = load_model(run)
    features = next(layer for layer in model.layers if isinstance(layer, FeatureLayer))
    network = network_of(model)
    changes: dict[str, Any] = {}
    if unrolled and experiment.part("model").get("unroll") is False and experiment.clip_samples is not None:
        changes["unroll"] = True
    if changes or experiment.settings.precision != "float32":
        rebuilt = experiment.build_network(len(labels), precision="float32", **changes)
        rebuilt.set_weights(network.get_weights())
        network = rebuilt
    return Trained(features, network, labels, isinstance(network.input, dict))
