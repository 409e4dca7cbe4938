"""The weights that a training starts with, and the statistics of the training clips that normalisation needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kws_data.errors import KwsError
from kws_data.splits import TRAINING
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs import checkpoint
from kws_experiments.runs.folder import RunFolder
from kws_experiments.training.distillation import Distillation
from kws_experiments.training.start_from import Taken, find_origin, start_from

if TYPE_CHECKING:
    import keras

    from kws_data.pipeline import ClipSource


def set_initial_weights(
    folder: RunFolder, experiment: Experiment, source: ClipSource, network: keras.Model, labels: list[str]
) -> list[str]:
    """Load the weights of another run if `start_from` names one, and adapt normalisation to the training clips.

    The result is saved in the run's folder, so that a resumed training neither reads the clips again nor needs the
    other run.

    Args:
        folder: the run's.
        experiment: the run's; its features are adapted too.
        source: the clips.
        network: features → logits; changed in place.
        labels: class names.

    Returns:
        the labels whose outputs are those of the run in `start_from`.

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
        return (folder.read_record() or {}).get("started_with_outputs", [])
    taken: Taken | None = None
    if experiment.start_from is not None:
        origin = find_origin(experiment.start_from)
        taken = start_from(
            origin, network, features, labels, experiment.part("features"),
            keep_outputs=bool(experiment.task.word_folders or experiment.settings.distillation),
        )  # fmt: skip
        _finalize_normalization(network)
        folder.write_record(started_from_sha256=taken.sha256, started_with_outputs=taken.outputs)
    _adapt(experiment, source, network, adapt_features=features.normalise and not (taken and taken.statistics))
    checkpoint.save_weights(saved, weights)
    return taken.outputs if taken else []


def distillation(
    experiment: Experiment, network: keras.Model, labels: list[str], kept: list[str]
) -> Distillation | None:
    """What keeps the outputs that a training starts with, as `trainer.distillation` asks for it.

    Args:
        experiment: the run's.
        network: features → logits, with its initial weights.
        labels: class names.
        kept: the labels that `set_initial_weights` returned.

    Raises:
        KwsError: there are none.
    """
    share = experiment.settings.distillation
    if not share:
        return None
    if not kept:
        raise KwsError(
            f"trainer.distillation: there is nothing to keep: the run in start_from has none of the labels"
            f" {', '.join(labels)}; give trainer.distillation=0"
        )
    before = experiment.build_network(len(labels))
    before.set_weights(network.get_weights())
    _finalize_normalization(before)
    return Distillation(before, np.isin(labels, kept), share)


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
