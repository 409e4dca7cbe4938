"""The data of a run: prepared as its experiment describes, and recorded in its folder."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.corpus import MUTED, Corpus
from kws_data.errors import KwsError
from kws_data.sources.datasets import Folder
from kws_data.splits import SPLITS, TRAINING, VALIDATION
from kws_data.text import to_csv
from kws_experiments.experiment.cautions import cautions, clips_by_split, unread_lists
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.clip_table import clip_table, write_clip_table
from kws_experiments.runs.folder import RunFolder, write_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """The data that a run is trained and evaluated on.

    Attributes:
        corpus: clips and noise.
        examples: of the task, in all splits; one row per example.
        labels: class names.
    """

    corpus: Corpus
    examples: pd.DataFrame
    labels: list[str]

    @property
    def fingerprint(self) -> str:
        """12 hex digits that identify these clips (by content) in these splits with these labels."""
        rows = self.examples[["split", "label", "path", "offset", "length", "content"]]
        digest = hashlib.sha256(json.dumps(self.labels).encode())
        digest.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
        return digest.hexdigest()[:12]


def prepare_data(experiment: Experiment, root: Path | None = None) -> Data:
    """Locate, catalog, split and decode the data, and draw the task's examples from it.

    Args:
        experiment: the run's.
        root: the data set's folder; None means where the data set locates it.

    Raises:
        KwsError: the data are missing or unusable, or a split has no clip of the task's words.
    """
    corpus = experiment.corpus(root)
    labels = experiment.task.labels(corpus)
    examples = experiment.task.examples(corpus, experiment.data_seed)
    counts = examples["split"].value_counts()
    words = set(labels) - {SILENCE, UNKNOWN}
    wanted = examples[examples["word"].isin(words)]
    for split in (TRAINING, VALIDATION):
        if not (wanted["split"] == split).any():
            raise KwsError(
                f"split: no clip of the task's words is for {split} ({len(corpus.clips)} clips in '{corpus.roots[0]}');"
                " choose another split= or other percentages"
            )
    if isinstance(experiment.dataset, Folder) and (unread := unread_lists(corpus.roots[0], experiment.split)):
        log.info("%s", unread)
    for line in cautions(examples, labels, experiment.split):
        log.warning("%s", line)
    log.info(
        "data: '%s'; %d classes; examples: %s",
        corpus.roots[0],
        len(labels),
        ", ".join(f"{counts.get(split, 0)} {split}" for split in SPLITS),
    )
    return Data(corpus, examples, labels)


def write_data_tables(folder: RunFolder, data: Data) -> None:
    """Write the run's clips and labels, their counts, and the files set aside with their reasons."""
    from kws_data.describe import summary

    corpus, examples, labels = data.corpus, data.examples, data.labels
    write_text(folder.labels, "\n".join(labels) + "\n")
    write_clip_table(folder.clips, clip_table(corpus, examples, labels))
    write_text(folder.data / "catalog_summary.csv", to_csv(summary(corpus.clips, corpus.sample_rate)))
    table = clips_by_split(examples["label"].map(dict(enumerate(labels))), examples["split"], labels)
    write_text(folder.data / "label_counts.csv", to_csv(table.reset_index()))
    aside = corpus.set_aside.assign(root=[str(corpus.roots[source]) for source in corpus.set_aside["source"]])
    write_text(folder.data / "set_aside.csv", to_csv(aside[["root", "path", "split", "error"]]))
    if len(aside):
        twins = int(aside["error"].str.startswith("same audio").sum())
        muted = int(aside["error"].str.startswith(MUTED).sum())
        log.warning(
            "%d files are set aside (%d unreadable, %d muted, %d training clips whose audio is also held out): see %s",
            len(aside), len(aside) - twins - muted, muted, twins, folder.data / "set_aside.csv",
        )  # fmt: skip


def balancing_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Factors on the losses that give every class the same total weight.

    Args:
        labels: [clips], of the training clips.
        num_labels: number of classes; a class without clips gets 1.

    Returns:
        [num_labels], with a mean of 1 over the clips.
    """
    counts = np.bincount(labels, minlength=num_labels)
    return np.where(counts, len(labels) / np.maximum(1, counts * np.count_nonzero(counts)), 1.0)
