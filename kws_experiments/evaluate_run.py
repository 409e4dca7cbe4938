"""A trained run evaluated again (`kws evaluate`): on its own splits, a canonical test set, or any folder of clips."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kws_data.archives import ARCHIVES
from kws_data.cache import datasets_dir
from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.corpus import Corpus, build_corpus
from kws_data.errors import KwsError
from kws_data.splits import SPLITS, TESTING, VALIDATION
from kws_experiments import tensorflow_setup, worst_clips
from kws_experiments.evaluation import evaluate, with_interval
from kws_experiments.evaluation_files import EvaluationFiles
from kws_experiments.finished_run import FinishedRun

if TYPE_CHECKING:
    from kws_data.pipeline import ClipSource

log = logging.getLogger(__name__)

TEST_SETS = [archive.test_set for archive in ARCHIVES.values() if archive.test_set]


class _AllForTesting:
    """The split policy of a data set that is nothing but a test set."""

    validation_percentage, testing_percentage = 0.0, 100.0
    whole_speakers = False

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """`testing` for each row."""
        del root
        return pd.Series(TESTING, index=catalog.index)


@dataclass(frozen=True)
class _Clips:
    """What is evaluated on.

    Attributes:
        source: the clips.
        split: which of them.
        name: what `metrics.json` calls them, as `split`.
        folder: the name of the folder for the results.
        licence: of the data, if known.
        citation: likewise.
    """

    source: ClipSource
    split: str
    name: str
    folder: str
    licence: str | None = None
    citation: str | None = None


def evaluate_run(
    run: Path,
    dataset: str | None = None,
    *,
    split: str | None = None,
    snrs_db: Sequence[float] = (),
    out: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """Predict clips with a finished run's model, and write metrics and tables below the run's folder.

    Args:
        run: its folder.
        dataset: a folder of word folders, or the name of a downloaded test set; None takes the run's own data. A folder
            named as one of the run's labels holds clips of it (`_silence_` and `_unknown_` as well); all other words
            are unknown ones, or left out where the run has no unknown class.
        split: of the run's own data; None is testing, or validation where the run has no test clips.
        snrs_db: evaluate in noise at these ratios too; the noise is of the data set's own recordings (their last
            tenth, which no training hears), else the run's.
        out: where to write; None is a folder below `RUN/evaluations/`.

    Returns:
        the metrics, as of `evaluation`, and the folder with them.

    Raises:
        KwsError: `run` is no finished run, its own data changed, or `dataset` has no clip of its labels.
    """
    opened = FinishedRun.open(run)
    config = opened.config
    if dataset is not None and split is not None:
        raise KwsError("--split is of the run's own data: all clips of --dataset are evaluated; leave one of them out")
    if split not in (None, *SPLITS):
        raise KwsError(f"--split must be one of {', '.join(SPLITS)}, got '{split}'")
    root = None if dataset is None else find_dataset(dataset)
    tensorflow_setup.start(deterministic=config["deterministic"], seed=config["seed"], **config["threads"])

    from kws_data.features.base import FeatureLayer
    from kws_data.pipeline import told_plainly
    from kws_experiments.predicting import Predictor
    from kws_experiments.results import told_of_data
    from kws_experiments.saved_model import load_model, network_of

    model = load_model(run)
    network = network_of(model)
    if network.output_shape[-1] != len(opened.labels):
        raise KwsError(
            f"'{opened.folder.labels}' names {len(opened.labels)} labels, and the model has {network.output_shape[-1]}"
        )
    clips = _own_clips(opened, split) if root is None else _other_clips(opened, root, str(dataset), noise=bool(snrs_db))
    features = next(layer for layer in model.layers if isinstance(layer, FeatureLayer))
    predictor = Predictor(clips.source, features, network, opened.labels, config["pipeline"]["threads"])
    with told_plainly():
        figures, tables = evaluate(predictor.predictions(clips.split), opened.labels, opened.thresholds)
        noise = predictor.in_noise([clips.split], snrs_db).assign(split=clips.name)
    corpus = clips.source.corpus
    result = {
        "split": clips.name,
        "parameters": network.count_params(),
        **figures,
        "accuracy_at_snr": with_interval(noise),
        **told_of_data(corpus, clips.licence, clips.citation),
    }
    files = EvaluationFiles(out or _folder_for(opened, clips, corpus))
    worst_clips.keep(files.path, clips.source, features, clips.split, tables["confidently_wrong"])
    files.write(result, {**tables, "noise": noise})
    return result, files.path


def find_dataset(dataset: str) -> Path:
    """The folder that `--dataset` means: a path, or the name of a canonical test set in the cache.

    Raises:
        KwsError: there is none.
    """
    folder = Path(dataset).expanduser()
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
    """The clips with their `label` among a run's; a fresh index, which are the example ids.

    Raises:
        KwsError: no folder is named as a label.
    """
    label_of = {label: index for index, label in enumerate(labels)}
    numbers = clips["word"].map(label_of)
    words = sorted(set(clips["word"]))
    if numbers.isna().all():
        unknown = f"; clips that are to count as unknown go below a folder {UNKNOWN}" if UNKNOWN in label_of else ""
        raise KwsError(
            f"--dataset: '{dataset}' has no clip of the run's labels: {', '.join(labels)}; its folders are"
            f" {_shortened(words)}{unknown}"
        )
    if UNKNOWN in label_of:
        numbers = numbers.where(numbers.notna() | (clips["word"] == SILENCE), label_of[UNKNOWN])
    kept = numbers.notna()
    if not kept.all():
        words = sorted(set(clips.loc[~kept, "word"]))
        log.warning("%d clips of words that are no label of the run are left out: %s", (~kept).sum(), ", ".join(words))
    return clips[kept].assign(label=numbers[kept].astype(np.int64)).reset_index(drop=True)


def _own_clips(run: FinishedRun, split: str | None) -> _Clips:
    """A split of the data that the run was trained on, if they are still the same."""
    from kws_experiments.parts import build_parts
    from kws_experiments.run_data import clip_source, examples_fingerprint, prepare_data

    parts = build_parts(run.config)
    parts.augmentation.close()
    corpus, examples, labels = prepare_data(run.config, parts)
    if labels != run.labels or examples_fingerprint(examples, labels) != run.record.get("data_fingerprint"):
        raise KwsError(
            f"'{corpus.roots[0]}': the data changed since '{run.folder.path}' was trained, and with them its splits;"
            " --dataset evaluates other clips"
        )
    source = clip_source(run.config, parts, corpus, examples)
    if split is None:
        split = TESTING if len(source.ids(TESTING)) else VALIDATION
    if not len(source.ids(split)):
        raise KwsError(f"--split: the run has no clip for {split}")
    return _Clips(source, split, split, split, parts.dataset.licence, parts.dataset.citation)


def _other_clips(run: FinishedRun, root: Path, name: str, *, noise: bool) -> _Clips:
    """All clips of another data set, labelled as the run would."""
    from kws_data.pipeline import ClipSource

    config = run.config
    clip_ms, sample_rate = config["clip_ms"], config["sample_rate"]
    nominal_samples = round((1000 if clip_ms is None else clip_ms) * sample_rate / 1000)
    corpus = build_corpus(
        root,
        _AllForTesting(),
        sample_rate=sample_rate,
        clip_samples=nominal_samples,
        data_seed=config["data_seed"],
        speaker_pattern=config["dataset"].get("speaker_pattern"),
    )
    for row in corpus.set_aside.itertuples():
        log.warning("set aside: %s: %s", row.path, row.error)
    examples = labelled(corpus.clips, run.labels, root)
    if noise and corpus.noise.generated:
        corpus = _with_noise_of(run, corpus)
    source = ClipSource(
        corpus,
        examples,
        clip_samples=None if clip_ms is None else nominal_samples,
        silence_samples=nominal_samples,
        silence_kind="noise",
        data_seed=config["data_seed"],
        seed=config["seed"],
    )
    archive = ARCHIVES.get(name)
    licence, citation = (archive.licence, archive.citation) if archive else (None, None)
    return _Clips(source, TESTING, name, root.resolve().name, licence, citation)


def _with_noise_of(run: FinishedRun, corpus: Corpus) -> Corpus:
    """The corpus with the noise of the run's own data, whose test part no training heard."""
    from kws_experiments.parts import build_parts
    from kws_experiments.run_data import prepare_data

    log.info("the noise is that of the run's own data, its part for testing")
    parts = build_parts(run.config)
    parts.augmentation.close()
    return replace(corpus, noise=prepare_data(run.config, parts)[0].noise)


def _folder_for(run: FinishedRun, clips: _Clips, corpus: Corpus) -> Path:
    """Below `evaluations/`; other clips of the same folder name have one of their own."""
    folder = run.folder.evaluations / re.sub(r"[^\w.-]", "_", clips.folder)
    root = str(corpus.roots[0])
    files = EvaluationFiles(folder)
    if files.metrics.is_file():
        there = files.read_metrics()
        if there.get("audio", {}).get("roots", {}).get("") != root or (there["split"] in SPLITS) != (
            clips.name in SPLITS
        ):
            return folder.with_name(f"{folder.name}-{hashlib.sha256(root.encode()).hexdigest()[:8]}")
    return folder


def _shortened(words: Sequence[str], most: int = 10) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
