"""What an exported model is worth beside the original: accuracy, agreement clip by clip, size and latency."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kws_data.audio import INT16_SCALE
from kws_data.splits import TRAINING

if TYPE_CHECKING:
    from kws_data.pipeline import ClipSource
    from kws_experiments.export.scorer import Scorer

_GATHERED = 100
_WARM_UP = 5


@dataclass(frozen=True)
class Clips:
    """The clips of one split, without augmentation, as evaluation hears them.

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

    def waveforms(self) -> Any:
        """Each clip by itself: [1, samples] float32."""
        for start in range(0, len(self.ids), _GATHERED):
            ids = self.ids[start : start + _GATHERED]
            batch = self.source.gather(self.split, ids, epoch=0)
            for pcm, length in zip(batch.pcm, batch.lengths, strict=True):
                # A clip shorter than the common length is padded; where clips keep theirs, only the batch is
                samples = pcm if self.source.clip_samples is not None else pcm[:length]
                yield samples[np.newaxis].astype(np.float32) / np.float32(INT16_SCALE)


def calibration_clips(source: ClipSource, count: int, seed: int, clip_samples: int) -> np.ndarray:
    """Training clips that set an int8 model's ranges, the same ones each time: [clips, samples] float32."""
    from kws_experiments.export.scorer import fitted

    ids = source.ids(TRAINING)
    chosen = np.random.default_rng([seed, 0xCA11]).permutation(ids)[:count]
    clips = Clips(source, TRAINING, np.sort(chosen))
    return np.concatenate([fitted(waveform, clip_samples) for waveform in clips.waveforms()])


def measure(scorer: Scorer, clips: Clips, title: str) -> tuple[np.ndarray, float]:
    """Scores of each clip ([clips, labels]), and the median time for one, in ms.

    The time is of the model alone: a front end outside of it is computed before.
    """
    from tqdm import tqdm

    rows, seconds = [], []
    for place, waveform in enumerate(tqdm(clips.waveforms(), title, len(clips.ids), disable=None, leave=False)):
        inputs = scorer.prepare(waveform)
        for _ in range(_WARM_UP if place == 0 else 0):
            scorer.infer(inputs)
        start = time.perf_counter()
        rows.append(scorer.infer(inputs))
        seconds.append(time.perf_counter() - start)
    return np.concatenate(rows), 1000 * float(np.median(seconds))


def compared(original: np.ndarray, exported: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """`accuracy`, `agreement` and `disagreements` (of clips), and `largest_difference` of any score.

    Args:
        original: [clips, labels], the original's scores.
        exported: the exported model's.
        truth: [clips], label indices.
    """
    same = original.argmax(axis=1) == exported.argmax(axis=1)
    return {
        "accuracy": float((exported.argmax(axis=1) == truth).mean()),
        "agreement": float(same.mean()),
        "disagreements": int((~same).sum()),
        "largest_difference": float(np.abs(original - exported).max()),
    }


def clip_by_clip(clips: Clips, labels: list[str], scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row per clip: `clip`, `label`, and for each model of `scores` what it predicted, and its score for that."""
    names = np.array(labels, dtype=object)
    rows = clips.source.examples.loc[clips.ids]
    table = pd.DataFrame({"clip": rows["path"].to_numpy(), "label": names[clips.labels]})
    for model, values in scores.items():
        table[f"{model} predicted"] = names[values.argmax(axis=1)]
        table[f"{model} score"] = values.max(axis=1)
    return table
