"""The weights that a training begins with, and what of a network and its features follows from the training clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kws_data.splits import TRAINING
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs import checkpoint
from kws_experiments.runs.folder import RunFolder
from kws_experiments.training.start_from import find_origin, start_from

if TYPE_CHECKING:
    import keras

    from kws_data.pipeline import ClipSource


def set_initial_weights(
    folder: RunFolder, experiment: Experiment, source: ClipSource, network: keras.Model, labels: list[str]
) -> None:
    """Another run's weights where `start_from` asks for them, and normalisation adapted to training clips.

    Kept in the run's folder: when resumed, it neither goes through the clips again, nor depends on whether the other
    run is still there as it was.

    Raises:
        KwsError: `start_from` names no network of this kind, or the kept weights are damaged.
    """
    features = experiment.features
    if not features.built:
        features.build()
    weights = [*network.weights, *features.weights]
    kept = folder.training.initial
    if kept.is_file():
        checkpoint.load_weights(kept, weights)
        _finalize_normalization(network)
        return
    carried = False
    if experiment.start_from is not None:
        origin = find_origin(experiment.start_from)
        digest, carried = start_from(origin, network, features, labels, experiment.part("features"))
        _finalize_normalization(network)
        folder.write_record(started_from_sha256=digest)
    _adapt(experiment, source, network, adapt_features=features.normalise and not carried)
    checkpoint.save_weights(kept, weights)


def _finalize_normalization(network: keras.Model) -> None:
    """Make `Normalization` layers compute with the mean and variance that their weights hold."""
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def _adapt(experiment: Experiment, source: ClipSource, network: keras.Model, *, adapt_features: bool) -> None:
    from kws_data.pipeline import evaluation_batches
    from kws_models.layers import adapt_normalization, unadapted_normalization

    threads = experiment.pipeline_threads
    if adapt_features:
        plain = evaluation_batches(source, TRAINING, None, threads=threads)
        experiment.features.adapt((batch["inputs"], batch["lengths"]) for batch in plain)
    if unadapted_normalization(network):
        plain = evaluation_batches(source, TRAINING, experiment.features, threads=threads)
        adapt_normalization(network, (batch["inputs"] for batch in plain))
