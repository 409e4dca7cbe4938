"""The clips to evaluate a finished run on: a split of its own data, or all clips of another data set."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.errors import KwsError, shortened
from kws_data.sources.archives import ARCHIVES
from kws_data.splits import TESTING, TRAINING, VALIDATION
from kws_data.storage.cache import datasets_dir
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.clip_table import read_clip_table
from kws_experiments.runs.finished import FinishedRun

if TYPE_CHECKING:
    from kws_data.pipeline import ClipSource

log = logging.getLogger(__name__)

TEST_SETS = [archive.test_set for archive in ARCHIVES.values() if archive.test_set]


@dataclass(frozen=True)
class Clips:
    """The clips to evaluate.

    Attributes:
        source: fills batches with their samples.
        split: the split of `source` to evaluate.
        noise_splits: the splits to evaluate in noise.
        name: their name in `metrics.json`, as `split`.
        folder: the name of the folder for the results.
        licence: of the data, if known.
        citation: of the data, if known.
        heard_in_training: for another data set, how many of its clips the run was trained on; None for the run's own.
    """

    source: ClipSource
    split: str
    noise_splits: tuple[str, ...]
    name: str
    folder: str
    licence: str | None = None
    citation: str | None = None
    heard_in_training: int | None = None


def find_dataset(dataset: str) -> Path:
    """The folder of `--dataset`: a path, or the name of a canonical test set in the cache.

    Raises:
        KwsError: there is no such folder.
    """
    folder = Path(dataset)
    if folder.is_dir():
        return folder
    if dataset not in TEST_SETS:
        raise KwsError(
            f"--dataset: no such folder: '{dataset}'; give one, or the name of a test set: {', '.join(TEST_SETS)}"
        )
    folder = datasets_dir() / dataset
    if not folder.is_dir():
        raise KwsError(f"--dataset: {dataset} is not here; `kws data download {dataset}` gets it")
    return folder


def labelled(clips: pd.DataFrame, labels: list[str], dataset: Path) -> pd.DataFrame:
    """Add the `label` of each clip, an index into a run's labels; the table's new index holds the example ids.

    Raises:
        KwsError: no folder has the name of a label.
    """
    label_of = {label: index for index, label in enumerate(labels)}
    numbers = clips["word"].map(label_of)
    words = sorted(set(clips["word"]))
    if numbers.isna().all():
        unknown = f"; put clips of unknown words below a folder {UNKNOWN}" if UNKNOWN in label_of else ""
        raise KwsError(
            f"--dataset: '{dataset}' has no clip of the run's labels: {', '.join(labels)}; its folders are"
            f" {shortened(words)}{unknown}"
        )
    if UNKNOWN in label_of:
        numbers = numbers.where(numbers.notna() | (clips["word"] == SILENCE), label_of[UNKNOWN])
    kept = numbers.notna()
    if not kept.all():
        words = sorted(set(clips.loc[~kept, "word"]))
        log.warning(
            "%d clips of words that are not labels of the run are left out: %s", (~kept).sum(), ", ".join(words)
        )
    return clips[kept].assign(label=numbers[kept].astype(np.int64)).reset_index(drop=True)


def clips_in_training(clips_file: Path, examples: pd.DataFrame) -> int:
    """Count the clips that a run was trained on, by their samples, whatever their paths; a warning names some.

    Args:
        clips_file: the run's `data/clips.parquet`; if it cannot be read, a warning says so and the count is 0.
        examples: `path` and `content` of the clips.
    """
    try:
        used = read_clip_table(clips_file)
    except KwsError as error:
        log.warning("%s; cannot check for overlap with training", error)
        return 0
    trained = used.loc[(used["split"] == TRAINING) & (used["content"] != ""), "content"]
    paths = examples.loc[examples["content"].isin(trained), "path"].tolist()
    if paths:
        log.warning(
            "%d of %d clips were in training, so they do not show how the model does on new clips: %s",
            len(paths),
            len(examples),
            shortened(paths, 3),
        )
    return len(paths)


def own_clips(run: FinishedRun, experiment: Experiment, split: str | None) -> Clips:
    """A split of the data that the run was trained on.

    Raises:
        KwsError: the data changed since then, or the split has no clips.
    """
    from kws_experiments.experiment.data import prepare_data

    data = prepare_data(experiment)
    if data.labels != run.labels or data.fingerprint != run.record.get("data_fingerprint"):
        raise KwsError(
            f"'{data.corpus.roots[0]}': the data changed since '{run.folder.path}' was trained, and its splits with"
            " them; --dataset evaluates other clips"
        )
    source = experiment.clip_source(data.corpus, data.examples)
    in_noise = (VALIDATION, TESTING) if split is None else (split,)  # by default as in the evaluation after training
    if split is None:
        split = TESTING if len(source.ids(TESTING)) else VALIDATION
    if not len(source.ids(split)):
        raise KwsError(f"--split: the run has no clip for {split}")
    return Clips(source, split, in_noise, split, split, experiment.dataset.licence, experiment.dataset.citation)


def other_clips(run: FinishedRun, experiment: Experiment, root: Path, name: str, *, noise: bool) -> Clips:
    """All clips of another data set, with the run's labels.

    Raises:
        KwsError: the data set has no clips of the run's labels.
    """
    from kws_experiments.experiment.data import prepare_data

    try:
        corpus = experiment.corpus_for_testing(root, _AllForTesting())
    except KwsError as error:
        raise KwsError(str(error).replace("dataset.path:", "--dataset:", 1)) from error
    for row in corpus.set_aside.itertuples():
        log.warning("set aside: %s: %s", row.path, row.error)
    examples = labelled(corpus.clips, run.labels, root)
    trained_on = clips_in_training(run.folder.clips, examples)
    if noise and corpus.noise.generated:
        log.info("the noise is from the run's own data, its part for testing")
        corpus = replace(corpus, noise=prepare_data(experiment).corpus.noise)
    source = experiment.clip_source(corpus, examples, silence_kind="noise", silence_level_db=None)
    archive = ARCHIVES.get(name)
    licence, citation = (archive.licence, archive.citation) if archive else (None, None)
    return Clips(source, TESTING, (TESTING,), name, root.resolve().name, licence, citation, trained_on)


class _AllForTesting:
    """The split policy of a data set that is only a test set."""

    validation_percentage, testing_percentage = 0.0, 100.0
    whole_speakers = False

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """`testing` for each row."""
        del root
        return pd.Series(TESTING, index=catalog.index)
