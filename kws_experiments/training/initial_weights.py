"""The weights that a training starts with, and the statistics of the training clips that normalisation needs."""

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
    """Load the weights of another run if `start_from` names one, and adapt normalisation to the training clips.

    The result is saved in the run's folder, so that a resumed training neither reads the clips again nor needs the
    other run.

    Args:
        folder: the run's.
        experiment: the run's; its features are adapted too.
        source: the clips.
        network: features → logits; changed in place.
        labels: class names.

    Raises:
        KwsError: the run in `start_from` has another network, or the saved weights are damaged.
    """
    features = experiment.features
    if not features.built:
        features.build()
    weights = [*network.weights, *features.weights]
    saved = folder.training.initial
    if saved.is_file():
        checkpoint.load_weights(saved, weights)
        _finalize_normalization(network)
        return
    has_statistics = False
    if experiment.start_from is not None:
        origin = find_origin(experiment.start_from)
        digest, has_statistics = start_from(
            origin, network, features, labels, experiment.part("features"),
            keep_outputs=bool(experiment.task.word_folders),
        )  # fmt: skip
        _finalize_normalization(network)
        folder.write_record(started_from_sha256=digest)
    _adapt(experiment, source, network, adapt_features=features.normalise and not has_statistics)
    checkpoint.save_weights(saved, weights)


def _finalize_normalization(network: keras.Model) -> None:
    """Make `Normalization` layers use the mean and variance in their weights."""
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def _adapt(experiment: Experiment, source: ClipSource, network: keras.Model, *, adapt_features: bool) -> None:
    """Compute the statistics of the training clips: of the features if asked for, and of the network's layers."""
    from kws_data.pipeline import evaluation_batches
    from kws_models.layers import adapt_normalization, unadapted_normalization

    threads = experiment.pipeline_threads
    if adapt_features:
        plain = evaluation_batches(source, TRAINING, None, threads=threads)
        experiment.features.adapt((batch["inputs"], batch["lengths"]) for batch in plain)
    if unadapted_normalization(network):
        plain = evaluation_batches(source, TRAINING, experiment.features, threads=threads)
        adapt_normalization(network, (batch["inputs"] for batch in plain))
