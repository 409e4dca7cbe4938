"""What a trained network is worth: predictions, metrics, thresholds and pictures in the run's folder."""

from __future__ import annotations

import itertools
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from kws_data.atomic import replace_file
from kws_data.splits import TESTING, TRAINING, VALIDATION
from kws_experiments import evaluation
from kws_experiments.folder import RunFolder, write_text
from kws_experiments.parts import Parts
from kws_experiments.thresholds import keyword_thresholds, rates_at_thresholds

if TYPE_CHECKING:
    import keras

    from kws_data.pipeline import ClipSource

log = logging.getLogger(__name__)


def evaluate_network(
    folder: RunFolder,
    config: dict[str, Any],
    parts: Parts,
    source: ClipSource,
    network: keras.Model,
    labels: list[str],
) -> dict[str, Any]:
    """Predict the test split (validation where there is none), and write predictions and metrics."""
    from kws_data.pipeline import evaluation_batches
    from kws_experiments.training import inference, predict

    threads = config["pipeline"]["threads"]
    split = TESTING if len(source.ids(TESTING)) else VALIDATION
    if split == VALIDATION:
        log.warning("the split leaves no clip for testing: the figures below are of the validation clips")
    stream = evaluation_batches(source, split, parts.features, threads=threads)
    infer = inference(network, stream)
    logits, truth, ids = predict(infer, stream)
    predictions = evaluation.predictions_table(source.examples, labels, logits, ids)
    with replace_file(folder.predictions) as temporary:
        predictions.to_parquet(temporary, index=False)
    result = {"split": split, "parameters": network.count_params()} | evaluation.metrics(predictions, labels)
    result |= {"data_licence": parts.dataset.licence, "data_citation": parts.dataset.citation}
    thresholds, result["validation_accuracy"] = find_thresholds(folder, config, parts, source, infer, labels)
    result["at_thresholds"] = rates_at_thresholds(softmax(logits, axis=1), truth, labels, thresholds)
    result["accuracy_at_snr"] = accuracy_at_snr(config, parts, source, infer)
    write_text(folder.metrics, json.dumps(result, indent=2) + "\n")
    return result


def find_thresholds(
    folder: RunFolder, config: dict[str, Any], parts: Parts, source: ClipSource, infer: Any, labels: list[str]
) -> tuple[dict[str, float], float]:
    """Each keyword's threshold for `evaluation.false_accept_rate` on validation, and the accuracy there.

    The thresholds are written beside the model.
    """
    from kws_data.pipeline import evaluation_batches
    from kws_experiments.training import predict

    stream = evaluation_batches(source, VALIDATION, parts.features, threads=config["pipeline"]["threads"])
    logits, truth, _ = predict(infer, stream)
    rate = config["evaluation"]["false_accept_rate"]
    thresholds = keyword_thresholds(softmax(logits, axis=1), truth, labels, rate)
    content = {"score": "softmax", "split": VALIDATION, "false_accept_rate": rate, "thresholds": thresholds}
    write_text(folder.thresholds, json.dumps(content, indent=2) + "\n")
    return thresholds, float((logits.argmax(1) == truth).mean())


def accuracy_at_snr(config: dict[str, Any], parts: Parts, source: ClipSource, infer: Any) -> list[dict[str, Any]]:
    """Accuracy of validation and testing with noise at each of `evaluation.snr_db`, over all clips but silence rows.

    The noise is of the split's own part of the recordings, and the same from run to run.
    """
    from kws_data.augment.augmentation import Augmentation
    from kws_data.augment.background_noise import BackgroundNoise
    from kws_data.pipeline import evaluation_batches
    from kws_experiments.training import predict

    if config["evaluation"]["snr_db"] and source.corpus.noise.generated:
        log.warning("evaluation.snr_db is passed over: there are no noise recordings (noise.dirs adds some)")
        return []
    rows = []
    splits = [split for split in (VALIDATION, TESTING) if len(source.context(split).words)]
    for split, snr_db in itertools.product(splits, config["evaluation"]["snr_db"]):
        noise = Augmentation({"background_noise": BackgroundNoise(None, 1.0, (snr_db, snr_db))}, clipping="leave")
        stream = evaluation_batches(
            source, split, parts.features, augmentation=noise, threads=config["pipeline"]["threads"]
        )
        logits, truth, ids = predict(infer, stream)
        spoken = np.isin(ids, source.context(split).words)
        rows.append({"split": split, "snr_db": snr_db, "accuracy": float((logits.argmax(1) == truth)[spoken].mean())})
        log.info("%s at %g dB SNR: %.1f %%", split, snr_db, 100 * rows[-1]["accuracy"])
    return rows


def draw_figures(
    folder: RunFolder,
    parts: Parts,
    source: ClipSource,
    history: pd.DataFrame,
    result: dict[str, Any],
    labels: list[str],
) -> None:
    """Training curves, confusion matrix, and the first training batch as the model sees it."""
    from kws_data.pipeline import batches, training_plan
    from kws_experiments import figures
    from kws_experiments.training import best_row

    folder.figures.mkdir(exist_ok=True)
    best = best_row(history.to_dict("records"), parts.settings.monitor)
    figures.save(figures.training_curves(history, best), folder.figures / "training_curves.png")
    title = f"{result['split']}: {result['accuracy']:.1%} of {result['clips']} clips"
    matrix = figures.confusion(np.array(result["confusion_matrix"]), labels, title)
    figures.save(matrix, folder.figures / "confusion_matrix.png")
    if result["accuracy_at_snr"]:
        figures.save(figures.accuracy_against_noise(result), folder.figures / "accuracy_against_noise.png")
    plan = training_plan(source, batch_size=16)
    heard = next(iter(batches(source, TRAINING, plan, augmentation=parts.augmentation, steps=1, threads=1)))
    waveforms = heard["inputs"]
    titles = [labels[label] for label in heard["labels"].numpy()]
    picture = figures.clips(waveforms.numpy(), parts.features(waveforms).numpy(), titles, parts.sample_rate)
    figures.save(picture, folder.figures / "training_batch.png")
