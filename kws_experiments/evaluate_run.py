"""A trained run on other clips (`kws evaluate`): a canonical test set, say, or recordings of one's own."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.errors import KwsError
from kws_data.splits import TESTING
from kws_experiments import tensorflow_setup
from kws_experiments.folder import RunFolder, write_text

log = logging.getLogger(__name__)


class _AllForTesting:
    """The split policy of a data set that is nothing but a test set."""

    validation_percentage, testing_percentage = 0.0, 100.0
    whole_speakers = False

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """`testing` for each row."""
        del root
        return pd.Series(TESTING, index=catalog.index)


def evaluate_run(run: Path, dataset: Path) -> tuple[dict[str, Any], Path]:
    """Predict every clip of a folder of word folders, and write metrics and predictions below the run's folder.

    A folder named as one of the run's labels holds clips of it (`_silence_` and `_unknown_` as well); all other words
    are unknown ones, or left out where the run has no unknown class.

    Returns:
        the metrics, as of the run's own test split, and the folder with them.

    Raises:
        KwsError: `run` is no finished run, or `dataset` has no clip of its labels.
    """
    folder = RunFolder(run)
    config, labels = folder.read_config(), folder.read_labels()
    record = folder.read_record()
    if record is None or record["status"] != "done":
        raise KwsError(f"'{run}' holds no finished run: the same training command finishes it")
    if not dataset.expanduser().is_dir():
        raise KwsError(f"--dataset: no such folder: '{dataset}'")
    tensorflow_setup.start(deterministic=config["deterministic"], seed=config["seed"], **config["threads"])

    from scipy.special import softmax

    from kws_data.atomic import replace_file
    from kws_data.corpus import build_corpus
    from kws_data.features.base import FeatureLayer
    from kws_data.pipeline import ClipSource, evaluation_batches
    from kws_experiments import evaluation
    from kws_experiments.saved_model import load_model, network_of
    from kws_experiments.thresholds import rates_at_thresholds
    from kws_experiments.training import inference, predict

    clip_ms, sample_rate = config["clip_ms"], config["sample_rate"]
    nominal_samples = round((1000 if clip_ms is None else clip_ms) * sample_rate / 1000)
    corpus = build_corpus(
        dataset,
        _AllForTesting(),
        sample_rate=sample_rate,
        clip_samples=nominal_samples,
        data_seed=config["data_seed"],
        speaker_pattern=config["dataset"].get("speaker_pattern"),
    )
    source = ClipSource(
        corpus,
        labelled(corpus.clips, labels, dataset),
        clip_samples=None if clip_ms is None else nominal_samples,
        silence_samples=nominal_samples,
        silence_kind="noise",
        data_seed=config["data_seed"],
        seed=config["seed"],
    )
    model = load_model(run)
    features = next(layer for layer in model.layers if isinstance(layer, FeatureLayer))
    stream = evaluation_batches(source, TESTING, features, threads=config["pipeline"]["threads"])
    logits, truth, ids = predict(inference(network_of(model), stream), stream)

    predictions = evaluation.predictions_table(source.examples, labels, logits, ids)
    result = {"split": str(dataset)} | evaluation.metrics(predictions, labels)
    thresholds = folder.read_thresholds()
    result["at_thresholds"] = rates_at_thresholds(softmax(logits, axis=1), truth, labels, thresholds)
    result["set_aside"] = len(corpus.set_aside)
    out = folder.evaluations / dataset.expanduser().resolve().name
    out.mkdir(parents=True, exist_ok=True)
    with replace_file(out / "predictions.parquet") as temporary:
        predictions.to_parquet(temporary, index=False)
    write_text(out / "metrics.json", json.dumps(result, indent=2) + "\n")
    for row in corpus.set_aside.itertuples():
        log.warning("set aside: %s: %s", row.path, row.error)
    return result, out


def labelled(clips: pd.DataFrame, labels: list[str], dataset: Path) -> pd.DataFrame:
    """The clips with their `label` among a run's; a fresh index, which are the example ids.

    Raises:
        KwsError: none is left.
    """
    label_of = {label: index for index, label in enumerate(labels)}
    numbers = clips["word"].map(label_of)
    if UNKNOWN in label_of:
        numbers = numbers.where(numbers.notna() | (clips["word"] == SILENCE), label_of[UNKNOWN])
    kept = numbers.notna()
    if not kept.any():
        raise KwsError(f"--dataset: '{dataset}' has no clip of the run's labels: {', '.join(labels)}")
    if not kept.all():
        words = sorted(set(clips.loc[~kept, "word"]))
        log.warning("%d clips of words that are no label of the run are left out: %s", (~kept).sum(), ", ".join(words))
    return clips[kept].assign(label=numbers[kept].astype(np.int64)).reset_index(drop=True)
