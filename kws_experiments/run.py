"""One run, top to bottom: configuration → data → model → training → evaluation → what is left in its folder."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import Timeout

from kws_data.atomic import lock_for
from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.corpus import Corpus, build_corpus
from kws_data.datasets import Folder
from kws_data.errors import KwsError
from kws_data.splits import SPLITS, TESTING, TRAINING, VALIDATION, ListSplit
from kws_experiments import tensorflow_setup
from kws_experiments.config import fingerprint
from kws_experiments.folder import RunFolder, write_text
from kws_experiments.parts import Parts, build_parts, check_top_level
from kws_experiments.saved_model import save_model

if TYPE_CHECKING:
    import keras

    from kws_data.pipeline import ClipSource

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
    with _alone(path):
        return _run(config, RunFolder(path))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the run's folder; a second process with the same command is told so at once."""
    lock = lock_for(path, timeout_s=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise KwsError(f"'{path}': another process is training this configuration") from error
    with lock:
        yield


def _run(config: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    path = folder.path
    record = folder.read_record()
    if record is not None and record["status"] == "done":
        log.info("this configuration is trained already; if the data changed since, force=true starts over: %s", path)
        return folder.read_metrics()
    check_top_level(config)
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

    from kws_data.pipeline import told_plainly

    source = clip_source(config, parts, corpus, examples)
    tensorflow_setup.seed_everything(config["seed"])  # initial weights depend on nothing built before
    network = parts.build_network(config, len(labels))
    try:
        with told_plainly():
            history = train_network(folder, config, parts, source, network)
            result = evaluate_network(folder, config, parts, source, network, labels)
            draw_figures(folder, parts, source, history, result, labels)
    finally:
        parts.augmentation.close()
    save_model(folder.model, parts.features, network, parts.clip_samples)
    folder.write_record(status="done", data_licence=parts.dataset.licence, data_citation=parts.dataset.citation)
    folder.training.state.unlink(missing_ok=True)
    return result


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
        noise_folders=parts.noise_folders,
        background_noise_weight=config["noise"]["background_noise_weight"],
        speaker_pattern=parts.dataset.speaker_pattern,
    )
    labels = parts.task.labels(corpus)
    examples = parts.task.examples(corpus, config["data_seed"])
    counts = examples["split"].value_counts()
    words = set(labels) - {SILENCE, UNKNOWN}
    wanted = examples[examples["word"].isin(words)]
    for split in (TRAINING, VALIDATION):
        if not (wanted["split"] == split).any():
            raise KwsError(
                f"split: no clip of the task's words is for {split} ({len(corpus.clips)} clips in '{corpus.roots[0]}');"
                " choose another split= or other percentages"
            )
    if isinstance(parts.dataset, Folder) and not isinstance(parts.split, ListSplit):
        lists = sorted(path.name for path in corpus.roots[0].glob("*_list.txt"))
        if lists:
            log.info("%s of the data set are not read; split=lists does", " and ".join(lists))
    unheard = words - set(wanted.loc[wanted["split"] == TRAINING, "word"])
    if unheard:
        log.warning("no training clip of %s: the model can't learn what it never hears", ", ".join(sorted(unheard)))
    log.info(
        "data: '%s'; %d classes; examples: %s",
        corpus.roots[0],
        len(labels),
        ", ".join(f"{counts.get(split, 0)} {split}" for split in SPLITS),
    )
    return corpus, examples, labels


def clip_source(config: dict[str, Any], parts: Parts, corpus: Corpus, examples: pd.DataFrame) -> ClipSource:
    """What fills the run's batches with samples."""
    from kws_data.pipeline import ClipSource

    return ClipSource(
        corpus,
        examples,
        clip_samples=parts.clip_samples,
        silence_samples=parts.nominal_samples,
        silence_kind=parts.task.silence_kind,
        data_seed=config["data_seed"],
        seed=config["seed"],
    )


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

    from kws_data.front_end import FrontEnd
    from kws_data.pipeline import batches, evaluation_batches, host_batches, training_plan
    from kws_experiments.training import train
    from kws_models.layers import adapt_normalization, unadapted_normalization

    threads = config["pipeline"]["threads"]
    if parts.features.normalise:
        plain = evaluation_batches(source, TRAINING, None, threads=threads)
        parts.features.adapt((batch["inputs"], batch["lengths"]) for batch in plain)
    if unadapted_normalization(network):
        plain = evaluation_batches(source, TRAINING, parts.features, threads=threads)
        adapt_normalization(network, (batch["inputs"] for batch in plain))
    plan = training_plan(source, parts.settings.batch_size)
    total_steps = parts.settings.total_steps(plan.steps_per_epoch)

    def stream(step: int) -> Any:
        arguments = {"augmentation": parts.augmentation, "start_step": step, "steps": total_steps, "threads": threads}
        if config["pipeline"]["on_device"]:
            return host_batches(source, TRAINING, plan, **arguments)
        return batches(source, TRAINING, plan, features=parts.features, **arguments)

    validation = evaluation_batches(source, VALIDATION, parts.features, threads=threads)
    frames, bins = parts.features.output_shape_for(parts.nominal_samples)
    megabytes = len(source.ids(VALIDATION)) * frames * bins * 4 / 1e6
    on_disk = megabytes > config["pipeline"]["cache_memory_mb"]
    network.optimizer = parts.optimizer  # Keras's callbacks look for it there
    callbacks = [keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False)] * parts.settings.tensorboard
    log.info("%s: %d parameters, %d steps", config["model"]["_target_"], network.count_params(), total_steps)
    with tempfile.TemporaryDirectory(dir=folder.path, prefix=".validation-") as scratch:
        return train(
            network,
            parts.optimizer,
            parts.settings,
            stream=stream,
            front_end=FrontEnd(parts.features, parts.augmentation, variable_length=parts.clip_samples is None)
            if config["pipeline"]["on_device"]
            else None,
            validation=validation.cache(f"{scratch}/features") if on_disk else validation.cache(),
            steps_per_epoch=plan.steps_per_epoch,
            total_steps=total_steps,
            files=folder.training,
            callbacks=callbacks,
        )


def evaluate_network(
    folder: RunFolder,
    config: dict[str, Any],
    parts: Parts,
    source: ClipSource,
    network: keras.Model,
    labels: list[str],
) -> dict[str, Any]:
    """Predict the test split (validation where there is none), and write predictions and metrics."""
    from kws_data.atomic import replace_file
    from kws_data.pipeline import evaluation_batches
    from kws_experiments import evaluation
    from kws_experiments.training import inference, predict

    threads = config["pipeline"]["threads"]
    split = TESTING if len(source.ids(TESTING)) else VALIDATION
    if split == VALIDATION:
        log.warning("the split leaves no clip for testing: the figures below are of the validation clips")
    stream = evaluation_batches(source, split, parts.features, threads=threads)
    infer = inference(network, stream)
    logits, _, ids = predict(infer, stream)
    predictions = evaluation.predictions_table(source.examples, labels, logits, ids)
    with replace_file(folder.predictions) as temporary:
        predictions.to_parquet(temporary, index=False)
    result = {"split": split, "parameters": network.count_params()} | evaluation.metrics(predictions, labels)
    result |= {"data_licence": parts.dataset.licence, "data_citation": parts.dataset.citation}
    result["accuracy_at_snr"] = accuracy_at_snr(config, parts, source, infer)
    write_text(folder.metrics, json.dumps(result, indent=2) + "\n")
    return result


def accuracy_at_snr(config: dict[str, Any], parts: Parts, source: ClipSource, infer: Any) -> list[dict[str, Any]]:
    """Accuracy of validation and testing with noise at each of `evaluation.snr_db`, over all clips but silence rows.

    The noise is of the split's own part of the recordings, and the same from run to run.
    """
    import numpy as np

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
    if result["accuracy_at_snr"]:
        figures.save(figures.accuracy_against_noise(result), folder.figures / "accuracy_against_noise.png")
    plan = training_plan(source, batch_size=16)
    heard = next(iter(batches(source, TRAINING, plan, augmentation=parts.augmentation, steps=1, threads=1)))
    waveforms = heard["inputs"]
    titles = [labels[label] for label in heard["labels"].numpy()]
    picture = figures.clips(waveforms.numpy(), parts.features(waveforms).numpy(), titles, parts.sample_rate)
    figures.save(picture, folder.figures / "training_batch.png")
