"""One run, top to bottom: configuration → data → model → training → evaluation → what is left in its folder."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kws_data.corpus import Corpus, build_corpus
from kws_data.errors import KwsError
from kws_data.splits import SPLITS, TESTING, TRAINING, VALIDATION
from kws_data.task import Task
from kws_experiments import tensorflow_setup
from kws_experiments.config import fingerprint, instantiate
from kws_experiments.folder import RunFolder, write_text
from kws_experiments.saved_model import save_model

if TYPE_CHECKING:
    import keras

    from kws_data.features.base import FeatureLayer
    from kws_data.pipeline import ClipSource
    from kws_experiments.training import TrainerSettings

log = logging.getLogger(__name__)


def run(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Train and evaluate what a resolved configuration describes, in the folder `path`.

    A folder with an unfinished run is resumed; a finished one is left as it is.

    Returns:
        the metrics of the test split (of the validation split where there is no test split).

    Raises:
        KwsError: the configuration or the data are not right; the message is one line.
        KeyboardInterrupt: the state was saved; the same call goes on.
    """
    folder = RunFolder(path)
    record = folder.read_record()
    if record is not None and record["status"] == "done":
        log.info("this configuration is trained already: %s (force=true starts over in a new folder)", path)
        return json.loads(folder.metrics.read_text())
    threads = config["threads"]
    tensorflow_setup.start(deterministic=config["deterministic"], seed=config["seed"], **threads)
    parts = build_parts(config)

    corpus, examples, labels = prepare_data(config, parts)
    data_fingerprint = examples_fingerprint(examples, labels)
    if record is not None and record["data_fingerprint"] != data_fingerprint:
        raise KwsError(f"'{path}': the data changed since this run began; start over with force=true")
    folder.write_config(config)
    folder.write_record(status="training", fingerprint=fingerprint(config), data_fingerprint=data_fingerprint)
    write_data_tables(folder, corpus, examples, labels)

    from kws_data.pipeline import ClipSource

    source = ClipSource(
        corpus,
        examples,
        clip_samples=parts.clip_samples,
        silence_samples=parts.nominal_samples,
        silence_kind=parts.task.silence_kind,
        data_seed=config["data_seed"],
        seed=config["seed"],
    )
    tensorflow_setup.seed_everything(config["seed"])  # initial weights depend on nothing built before
    network = parts.build_network(config, len(labels))
    history = train_network(folder, config, parts, source, network)
    result = evaluate_network(folder, parts, source, network, labels)
    draw_figures(folder, parts, source, history, result, labels)
    save_model(folder.model, parts.features, network, parts.clip_samples)
    folder.write_record(status="done", data_licence=parts.dataset.licence, data_citation=parts.dataset.citation)
    folder.training.state.unlink()
    return result


@dataclass(frozen=True)
class Parts:
    """The objects that a configuration describes, before any data is read."""

    dataset: Any
    task: Task
    split: Any
    stages: list[Any]
    features: FeatureLayer
    optimizer: keras.optimizers.Optimizer
    settings: TrainerSettings
    sample_rate: int
    clip_samples: int | None
    nominal_samples: int

    def feature_shape(self) -> tuple[int | None, int]:
        """(frames, bins) of a clip; frames is None where clips keep their lengths."""
        frames, bins = self.features.output_shape_for(self.nominal_samples)
        return (None if self.clip_samples is None else frames), bins

    def build_network(self, config: dict[str, Any], num_labels: int) -> keras.Model:
        """The model for these features: features → logits.

        Raises:
            KwsError: it can't take features of this shape.
        """
        return instantiate(config, "model", input_shape=self.feature_shape(), num_labels=num_labels)


def build_parts(config: dict[str, Any]) -> Parts:
    """Check and build everything that needs no data, so that a wrong value is found before any is read.

    Raises:
        KwsError: naming the key.
    """
    clip_ms, sample_rate = config["clip_ms"], config["sample_rate"]
    if not isinstance(sample_rate, int) or sample_rate < 1000:
        raise KwsError(f"sample_rate must be a whole number of Hz, at least 1000, got {sample_rate}")
    if clip_ms is not None and (not isinstance(clip_ms, int | float) or clip_ms < 10):
        raise KwsError(
            f"clip_ms must be at least 10 milliseconds, or null for clips of their own lengths, got {clip_ms}"
        )
    nominal_samples = round((1000 if clip_ms is None else clip_ms) * sample_rate / 1000)
    schedule_rate = instantiate(config, "schedule", learning_rate=config["optimizer"]["learning_rate"])
    parts = Parts(
        dataset=instantiate(config, "dataset"),
        task=instantiate(config, "task"),
        split=instantiate(config, "split"),
        stages=[instantiate(config, f"augment.waveform.{name}") for name in config["augment"]["waveform"]],
        features=instantiate(config, "features"),
        optimizer=instantiate(config, "optimizer", learning_rate=schedule_rate),
        settings=instantiate(config, "trainer"),
        sample_rate=sample_rate,
        clip_samples=None if clip_ms is None else nominal_samples,
        nominal_samples=nominal_samples,
    )
    if parts.task.words is not None:
        parts.build_network(config, len(parts.task.words) + parts.task.silence + parts.task.unknown)
    return parts


def prepare_data(config: dict[str, Any], parts: Parts) -> tuple[Corpus, pd.DataFrame, list[str]]:
    """Locate, catalog, split and decode the data, and draw the task's examples from it.

    Returns:
        the corpus, the examples of all splits, and the class names.
    """
    corpus = build_corpus(
        parts.dataset.locate(),
        parts.split,
        sample_rate=parts.sample_rate,
        clip_samples=parts.nominal_samples,
        data_seed=config["data_seed"],
        unknown_folders=parts.task.unknown_folders,
        speaker_pattern=parts.dataset.speaker_pattern,
    )
    labels = parts.task.labels(corpus)
    examples = parts.task.examples(corpus, config["data_seed"])
    counts = examples["split"].value_counts()
    for split in (TRAINING, VALIDATION):
        if not counts.get(split, 0):
            raise KwsError(
                f"split: no clip of the task's words is for {split} ({len(corpus.clips)} clips in '{corpus.roots[0]}');"
                " choose another split= or other percentages"
            )
    log.info(
        "data: '%s'; %d classes; examples: %s",
        corpus.roots[0],
        len(labels),
        ", ".join(f"{counts.get(split, 0)} {split}" for split in SPLITS),
    )
    return corpus, examples, labels


def examples_fingerprint(examples: pd.DataFrame, labels: list[str]) -> str:
    """12 hex digits that name exactly these clips (by content) in these splits with these labels."""
    rows = examples[["split", "label", "path", "offset", "length", "content"]]
    digest = hashlib.sha256(json.dumps(labels).encode())
    digest.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    return digest.hexdigest()[:12]


def write_data_tables(folder: RunFolder, corpus: Corpus, examples: pd.DataFrame, labels: list[str]) -> None:
    """Write what the run is trained on: counts, and the files set aside with their reasons."""
    from kws_data.describe import summary

    write_text(folder.labels, "\n".join(labels) + "\n")
    write_text(folder.data / "catalog_summary.csv", summary(corpus.clips, corpus.sample_rate).to_csv(index=False))
    counts = examples.assign(label=[labels[label] for label in examples["label"]])
    table = pd.crosstab(counts["label"], counts["split"]).reindex(index=labels, columns=list(SPLITS), fill_value=0)
    write_text(folder.data / "label_counts.csv", table.to_csv())
    aside = corpus.set_aside.assign(root=[str(corpus.roots[source]) for source in corpus.set_aside["source"]])
    write_text(folder.data / "set_aside.csv", aside[["root", "path", "split", "error"]].to_csv(index=False))
    if len(aside):
        twins = int(aside["error"].str.startswith("same audio").sum())
        log.warning(
            "%d files are set aside (%d unreadable, %d training clips whose audio is also held out): see %s",
            len(aside), len(aside) - twins, twins, folder.data / "set_aside.csv",
        )  # fmt: skip


def train_network(
    folder: RunFolder, config: dict[str, Any], parts: Parts, source: ClipSource, network: keras.Model
) -> pd.DataFrame:
    """Adapt what is adapted on training clips, train, and leave the best weights in `network`."""
    import keras

    from kws_data.pipeline import batches, evaluation_plan, training_plan
    from kws_experiments.training import train
    from kws_models.layers import adapt_normalization, unadapted_normalization

    threads = parts.settings.input_threads

    def plain(split: str, features: FeatureLayer | None) -> Any:
        plan = evaluation_plan(source, split)
        return batches(source, split, plan, features=features, steps=plan.steps_per_epoch, threads=threads)

    if parts.features.normalise:
        parts.features.adapt((batch["inputs"], batch["lengths"]) for batch in plain(TRAINING, None))
    if unadapted_normalization(network):
        adapt_normalization(network, (batch["inputs"] for batch in plain(TRAINING, parts.features)))
    plan = training_plan(source, parts.settings.batch_size)
    total_steps = parts.settings.total_steps(plan.steps_per_epoch)
    network.optimizer = parts.optimizer  # Keras's callbacks look for it there
    callbacks = [keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False)] * parts.settings.tensorboard
    log.info("%s: %d parameters, %d steps", config["model"]["_target_"], network.count_params(), total_steps)
    return train(
        network,
        parts.optimizer,
        parts.settings,
        stream=lambda step: batches(
            source, TRAINING, plan, stages=parts.stages, features=parts.features,
            start_step=step, steps=total_steps, threads=threads,
        ),
        validation=plain(VALIDATION, parts.features).cache(),
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=total_steps,
        files=folder.training,
        callbacks=callbacks,
    )  # fmt: skip


def evaluate_network(
    folder: RunFolder, parts: Parts, source: ClipSource, network: keras.Model, labels: list[str]
) -> dict[str, Any]:
    """Predict the test split (validation where there is none), and write predictions and metrics."""
    from kws_data.atomic import replace_file
    from kws_data.pipeline import batches, evaluation_plan
    from kws_experiments import evaluation
    from kws_experiments.training import inference, predict

    split = TESTING if len(source.ids(TESTING)) else VALIDATION
    if split == VALIDATION:
        log.warning("the split leaves no clip for testing: the figures below are of the validation clips")
    plan = evaluation_plan(source, split)
    stream = batches(
        source, split, plan, features=parts.features, steps=plan.steps_per_epoch, threads=parts.settings.input_threads
    )
    logits, _, ids = predict(inference(network, stream), stream)
    predictions = evaluation.predictions_table(source.examples, labels, logits, ids)
    with replace_file(folder.predictions) as temporary:
        predictions.to_parquet(temporary, index=False)
    result = {"split": split, "parameters": network.count_params()} | evaluation.metrics(predictions, labels)
    write_text(folder.metrics, json.dumps(result, indent=2) + "\n")
    return result


def draw_figures(
    folder: RunFolder,
    parts: Parts,
    source: ClipSource,
    history: pd.DataFrame,
    result: dict[str, Any],
    labels: list[str],
) -> None:
    """Training curves, confusion matrix, and the first training batch as the model sees it."""
    import numpy as np

    from kws_data.pipeline import batches, training_plan
    from kws_experiments import figures
    from kws_experiments.training import best_row

    folder.figures.mkdir(exist_ok=True)
    best = best_row(history.to_dict("records"), parts.settings.monitor)
    figures.save(figures.training_curves(history, best), folder.figures / "training_curves.png")
    title = f"{result['split']}: {result['accuracy']:.1%} of {result['clips']} clips"
    matrix = figures.confusion(np.array(result["confusion_matrix"]), labels, title)
    figures.save(matrix, folder.figures / "confusion_matrix.png")
    plan = training_plan(source, batch_size=16)
    heard = next(iter(batches(source, TRAINING, plan, stages=parts.stages, steps=1, threads=1)))
    waveforms = heard["inputs"]
    titles = [labels[label] for label in heard["labels"].numpy()]
    picture = figures.clips(waveforms.numpy(), parts.features(waveforms).numpy(), titles, parts.sample_rate)
    figures.save(picture, folder.figures / "training_batch.png")
