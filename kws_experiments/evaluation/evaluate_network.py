"""Evaluate a trained network: write predictions, metrics, thresholds and a picture to the run's folder."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from scipy.special import softmax

from kws_data.splits import TESTING, TRAINING, VALIDATION
from kws_experiments.evaluation import worst_clips
from kws_experiments.evaluation.files import EvaluationFiles
from kws_experiments.evaluation.metrics import evaluate, with_interval
from kws_experiments.evaluation.predict import Predictor
from kws_experiments.evaluation.thresholds import keyword_thresholds
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.listening import CLIPS, Listening

if TYPE_CHECKING:
    import keras

    from kws_data.corpus import Corpus
    from kws_data.pipeline import ClipSource

log = logging.getLogger(__name__)


def evaluate_network(
    folder: RunFolder, experiment: Experiment, source: ClipSource, network: keras.Model, labels: list[str]
) -> dict[str, Any]:
    """Predict the test split (validation if there is none), and write thresholds, metrics and tables.

    Returns:
        the metrics.
    """
    split = TESTING if len(source.ids(TESTING)) else VALIDATION
    if split == VALIDATION:
        log.warning("the split leaves no clip for testing: the results below are of the validation clips")
    predictor = Predictor(source, experiment.features, network, labels, experiment.pipeline_threads)
    thresholds, validation_accuracy = find_thresholds(folder, predictor, experiment.false_accept_rate)
    metrics, tables = evaluate(predictor.predictions(split), labels, thresholds)
    noise = predictor.in_noise((VALIDATION, TESTING), experiment.snrs_db)
    result = {
        "split": split,
        "parameters": network.count_params(),
        **metrics,
        "validation_accuracy": validation_accuracy,
        "accuracy_at_snr": with_interval(noise),
        **data_facts(source.corpus, experiment.dataset.licence, experiment.dataset.citation),
    }
    worst_clips.keep(folder.path, source, experiment.features, split, tables["confidently_wrong"])
    EvaluationFiles(folder.path).write(result, {**tables, "noise": noise})
    return result


def data_facts(corpus: Corpus, licence: str | None, citation: str | None) -> dict[str, Any]:
    """The data behind the metrics, for `metrics.json`: folders of the clips' audio, files set aside, licence."""
    folders = corpus.clips[["folder", "source"]].drop_duplicates()
    roots = {folder: str(corpus.roots[source]) for folder, source in folders.itertuples(index=False)}
    return {
        "audio": {"sample_rate": corpus.sample_rate, "roots": roots},
        "set_aside": len(corpus.set_aside),
        "data_licence": licence,
        "data_citation": citation,
    }


def find_thresholds(
    folder: RunFolder, predictor: Predictor, false_accept_rate: float
) -> tuple[dict[str, float], float]:
    """Write each keyword's threshold for a false accept rate on validation.

    Returns:
        the thresholds, and the accuracy on validation.
    """
    logits, truth, _ = predictor.logits(VALIDATION)
    thresholds = keyword_thresholds(softmax(logits, axis=1), truth, predictor.labels, false_accept_rate)
    content = {
        "score": "softmax", "split": VALIDATION, "false_accept_rate": false_accept_rate, "thresholds": thresholds,
    }  # fmt: skip
    Listening({CLIPS: content}).write(folder.path)
    return thresholds, float((logits.argmax(1) == truth).mean())


def draw_training_batch(folder: RunFolder, experiment: Experiment, source: ClipSource, labels: list[str]) -> None:
    """Draw the first training batch as the model gets it; the report draws all other pictures."""
    from kws_data.pipeline import batches, training_plan
    from kws_experiments.plots.clips import clips
    from kws_experiments.plots.style import save

    folder.figures.mkdir(exist_ok=True)
    plan = training_plan(source, batch_size=16)
    batch = next(iter(batches(source, TRAINING, plan, augmentation=experiment.augmentation, steps=1, threads=1)))
    waveforms = batch["inputs"]
    titles = [labels[label] for label in source.labels_of(batch["labels"].numpy())]
    picture = clips(waveforms.numpy(), experiment.features(waveforms).numpy(), titles, experiment.sample_rate)
    save(picture, folder.figures / "training_batch.png")
