"""The data of a run: prepared from its configuration, and told of in its folder."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.corpus import Corpus, build_corpus
from kws_data.errors import KwsError
from kws_data.sources.datasets import Folder
from kws_data.splits import SPLITS, TRAINING, VALIDATION, ListSplit
from kws_experiments.experiment.experiment import DataParts, Parts
from kws_experiments.runs.clip_table import clip_table, write_clip_table
from kws_experiments.runs.folder import RunFolder, write_text

if TYPE_CHECKING:
    from kws_data.pipeline import ClipSource

log = logging.getLogger(__name__)

PreparedData: TypeAlias = tuple[Corpus, pd.DataFrame, list[str]]


def prepare_data(config: dict[str, Any], parts: DataParts, root: Path | None = None) -> PreparedData:
    """Locate, catalog, split and decode the data, and draw the task's examples from it.

    Args:
        config: a resolved configuration.
        parts: what it describes.
        root: where the data set stands; None asks the data set.

    Returns:
        the corpus, the examples of all splits, and the class names.
    """
    corpus = build_corpus(
        parts.dataset.locate() if root is None else root,
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
        silence_level_db=parts.task.silence_level_db,
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
    write_clip_table(folder.clips, clip_table(corpus, examples, labels))
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


def balancing_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Factors on the losses with which every class weighs the same: [num_labels], their mean over the clips 1.

    Args:
        labels: [clips], of the training clips.
        num_labels: classes; one without a clip gets 1.
    """
    counts = np.bincount(labels, minlength=num_labels)
    return np.where(counts, len(labels) / np.maximum(1, counts * np.count_nonzero(counts)), 1.0)
