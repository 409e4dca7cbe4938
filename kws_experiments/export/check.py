"""Compare an exported model with the original: accuracy, agreement clip by clip, size and latency."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kws_data.audio import INT16_SCALE
from kws_data.catalog import UNKNOWN
from kws_data.errors import KwsError
from kws_data.splits import TESTING, TRAINING, VALIDATION
from kws_data.storage.atomic import replace_file
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.export.artifact import ORIGINAL, Artifact
from kws_experiments.export.formats.base import find_format
from kws_experiments.export.load import load_export, load_run
from kws_experiments.export.scorer import Scorer
from kws_experiments.runs.folder import RunFolder

if TYPE_CHECKING:
    from kws_data.pipeline import ClipSource

log = logging.getLogger(__name__)

_GATHERED = 100
_WARM_UP = 5


@dataclass(frozen=True)
class Clips:
    """The clips of one split, without augmentation, as evaluation takes them.

    Attributes:
        source: fills them with samples.
        split: which.
        ids: the examples, in order.
    """

    source: ClipSource
    split: str
    ids: np.ndarray

    @classmethod
    def of(cls, source: ClipSource, split: str) -> Clips:
        """All clips of a split."""
        return cls(source, split, source.ids(split))

    @property
    def labels(self) -> np.ndarray:
        """The true labels as indices: [clips]."""
        return self.source.labels[self.ids]

    def waveforms(self) -> Iterator[np.ndarray]:
        """Each clip by itself: [1, samples] float32."""
        for start in range(0, len(self.ids), _GATHERED):
            ids = self.ids[start : start + _GATHERED]
            batch = self.source.gather(self.split, ids, epoch=0)
            for pcm, length in zip(batch.pcm, batch.lengths, strict=True):
                # A clip shorter than the common length is padded; where clips keep theirs, only the batch is
                samples = pcm if self.source.clip_samples is not None else pcm[:length]
                yield samples[np.newaxis].astype(np.float32) / np.float32(INT16_SCALE)


def run_clips(folder: RunFolder, experiment: Experiment, clip_samples: int | None) -> ClipSource:
    """The run's own clips, prepared as the run prepared them, of the length that the export takes.

    Raises:
        KwsError: they are gone, or have other labels.
    """
    from kws_experiments.experiment.data import prepare_data

    try:
        data = prepare_data(experiment)
    except KwsError as error:
        raise KwsError(f"{error} (the run's clips are needed to check the export and for int8; --no-check)") from error
    if data.labels != folder.read_labels():
        raise KwsError(f"'{folder.labels}' names other labels than the run's data: {', '.join(data.labels)}")
    if data.fingerprint != (folder.read_record() or {}).get("data_fingerprint"):
        log.warning("the data changed since the run was trained: the results below are of the clips that are there now")
    silence_samples = min(experiment.nominal_samples, clip_samples or experiment.nominal_samples)
    return experiment.clip_source(
        data.corpus, data.examples, clip_samples=clip_samples, silence_samples=silence_samples
    )


def checked(artifact: Artifact, out: Path, run: Path, source: ClipSource, false_accept_rate: float) -> Artifact:
    """Try each model on the test split, beside the original, and write predictions.parquet.

    Args:
        artifact: the export.
        out: its folder.
        run: the folder of the original.
        source: the run's clips.
        false_accept_rate: for which the thresholds of quantized models are found.

    Returns:
        the artifact with the results of each model; if they are quantized, with thresholds of their own.
    """
    from kws_experiments.evaluation.thresholds import keyword_thresholds

    split = TESTING if len(source.ids(TESTING)) else VALIDATION
    clips = Clips.of(source, split)
    trained, format = load_run(run, artifact.clip_samples), find_format(artifact.format)
    original, latency = measure(trained, clips, ORIGINAL)
    original = format.own_scores(original, trained.labels, artifact.labels)
    places = {label: place for place, label in enumerate(artifact.labels)}
    own_index = np.array([places.get(label, places.get(UNKNOWN)) for label in trained.labels])
    truth = own_index[clips.labels]
    accuracy = compared(original, original, truth)["accuracy"]
    own = {"accuracy": accuracy, "latency_ms": latency, "bytes": RunFolder(run).model.stat().st_size}
    scores, files = {ORIGINAL: original}, []
    for file in artifact.files:
        found, latency = measure(load_export(out, artifact, file), clips, file.file)
        scores[file.file] = found
        result = {"split": split, "clips": len(clips.ids)} | compared(original, found, truth)
        files.append(replace(file, check=result | {"latency_ms": latency, "original": own}))
    with replace_file(out / "predictions.parquet") as temporary:
        clip_by_clip(clips, truth, artifact.labels, scores).to_parquet(temporary, index=False)
    artifact = replace(artifact, files=files)
    if artifact.quantize == "none":
        return artifact
    validation, first = Clips.of(source, VALIDATION), artifact.files[0]
    found, _ = measure(load_export(out, artifact, first), validation, "thresholds")
    return replace(
        artifact,
        thresholds=keyword_thresholds(found, own_index[validation.labels], artifact.labels, false_accept_rate),
        thresholds_from=f"the scores of {first.file} on the validation clips",
    )


def calibration_clips(source: ClipSource, count: int, seed: int) -> np.ndarray:
    """Training clips of one length that set the ranges of an int8 model, the same each time: [clips, samples]."""
    ids = source.ids(TRAINING)
    chosen = np.random.default_rng([seed, 0xCA11]).permutation(ids)[:count]
    clips = Clips(source, TRAINING, np.sort(chosen))
    return np.concatenate(list(clips.waveforms()))


def measure(scorer: Scorer, clips: Clips, title: str) -> tuple[np.ndarray, float]:
    """Scores of each clip ([clips, labels]), and the median time for one, in ms.

    The time is of the model alone: a front end outside of it is computed before.
    """
    from tqdm import tqdm

    rows, seconds = [], []
    for index, waveform in enumerate(tqdm(clips.waveforms(), title, len(clips.ids), disable=None, leave=False)):
        inputs = scorer.prepare(waveform)
        for _ in range(_WARM_UP if index == 0 else 0):
            scorer.infer(inputs)
        start = time.perf_counter()
        rows.append(scorer.infer(inputs))
        seconds.append(time.perf_counter() - start)
    return np.concatenate(rows), 1000 * float(np.median(seconds))


def compared(original: np.ndarray, exported: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """`accuracy`, `agreement` and `disagreements` (of clips), and `largest_difference` of any score.

    Args:
        original: [clips, labels], the scores of the original.
        exported: those of the exported model.
        truth: [clips], label indices.
    """
    same = original.argmax(axis=1) == exported.argmax(axis=1)
    return {
        "accuracy": float((exported.argmax(axis=1) == truth).mean()),
        "agreement": float(same.mean()),
        "disagreements": int((~same).sum()),
        "largest_difference": float(np.abs(original - exported).max()),
    }


def clip_by_clip(clips: Clips, truth: np.ndarray, labels: list[str], scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row per clip: `clip`, `label`, and for each model of `scores` its prediction and the score of that."""
    names = np.array(labels, dtype=object)
    rows = clips.source.examples.loc[clips.ids]
    table = pd.DataFrame({"clip": rows["path"].to_numpy(), "label": names[truth]})
    for model, values in scores.items():
        table[f"{model} predicted"] = names[values.argmax(axis=1)]
        table[f"{model} score"] = values.max(axis=1)
    return table
