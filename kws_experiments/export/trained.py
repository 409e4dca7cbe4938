"""A trained run as converters take it: the front end and the network apart, in single precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kws_experiments.experiment.experiment import Experiment
from kws_experiments.export.front_end import described
from kws_experiments.export.scorer import Facts, run_facts
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
        facts: labels, sample rate, the length of a clip, thresholds.
        front_end: see `front_end.described`.
    """

    features: FeatureLayer
    network: keras.Model
    facts: Facts
    front_end: dict[str, Any]

    def logits(self, features: tf.Tensor) -> tf.Tensor:
        """[batch, frames, bins] without padding → [batch, labels]."""
        import tensorflow as tf

        if not isinstance(self.network.input, dict):
            return self.network(features, training=False)
        num_frames = tf.fill(tf.shape(features)[:1], tf.shape(features)[1])  # clips that keep their lengths
        return self.network({"features": features, "num_frames": num_frames}, training=False)

    def scores(self, features: tf.Tensor) -> tf.Tensor:
        """[batch, frames, bins] without padding → softmax [batch, labels]."""
        import tensorflow as tf

        return tf.nn.softmax(self.logits(features))


def load_trained(run: Path, clip_samples: int | None, *, unrolled: bool) -> Trained:
    """The front end and the network of a finished run.

    The network is built again from the run's configuration where the one in `model.keras` computes in half precision,
    or has a loop that is to be unrolled; its weights are the same.

    Args:
        run: its folder.
        clip_samples: samples of an exported clip; None: any number.
        unrolled: write recurrent layers out frame by frame, where the model can (its parameter `unroll`).

    Raises:
        KwsError: `run` is no finished run, or damaged.
    """
    from kws_data.features.base import FeatureLayer

    experiment, facts = Experiment(RunFolder(run).read_config()), run_facts(run, clip_samples)
    model = load_model(run)
    features = next(layer for layer in model.layers if isinstance(layer, FeatureLayer))
    network = network_of(model)
    changes: dict[str, Any] = {}
    if unrolled and experiment.part("model").get("unroll") is False and experiment.clip_samples is not None:
        changes["unroll"] = True
    if changes or experiment.settings.precision != "float32":
        rebuilt = experiment.build_network(len(facts.labels), precision="float32", **changes)
        rebuilt.set_weights(network.get_weights())
        network = rebuilt
    return Trained(features, network, facts, described(features, experiment.part("features"), facts.clip_samples))


def frozen(function: Callable[[Any], Any], shape: list[int | None], name: str, **options: Any) -> Any:
    """A graph of a function of one float32 tensor, its variables made constants.

    Args:
        function: of one tensor.
        shape: of its input.
        name: of its input.
        options: of `convert_variables_to_constants_v2`.
    """
    import tensorflow as tf

    return frozen_graph(function, [tf.TensorSpec(shape, tf.float32, name=name)], **options)


def frozen_graph(function: Callable[..., Any], inputs: Sequence[tf.TensorSpec], **options: Any) -> Any:
    """`frozen` of a function of several tensors."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(tf.function(function).get_concrete_function(*inputs), **options)
