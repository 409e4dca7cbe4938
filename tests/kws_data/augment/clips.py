"""Clips, their context, and one stage of each kind, for the tests of augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kws_data.augment.augmentation import Augmentation
from kws_data.augment.background_noise import BackgroundNoise
from kws_data.augment.context import Context
from kws_data.augment.equalizer import Equalizer
from kws_data.augment.feature_stage import FeatureStage
from kws_data.augment.frequency_warp import FrequencyWarp
from kws_data.augment.gain import Gain
from kws_data.augment.impostor import Impostor
from kws_data.augment.mixup import Mixup
from kws_data.augment.polarity import Polarity
from kws_data.augment.reverb import Reverb
from kws_data.augment.spec_augment import SpecAugment
from kws_data.augment.spec_cutout import SpecCutout
from kws_data.augment.speed import Speed
from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.augment.time_mask import TimeMask
from kws_data.augment.time_shift import TimeShift
from kws_data.augment.white_noise import WhiteNoise
from kws_data.draws import Draws
from kws_data.noise import NoiseBank
from kws_data.splits import TRAINING

RATE = 16000
MANY = 4000
UNKNOWN = 1
NOISE = NoiseBank([np.random.default_rng(seed).integers(-3000, 3000, 60_000).astype(np.int16) for seed in range(3)])

# One of each, with settings that change every clip.
STAGES: dict[str, Callable[[], WaveformStage]] = {
    "impostor": lambda: Impostor(1.0),
    "context": lambda: Context(1.0),
    "mixup": lambda: Mixup(alpha=0.5, probability=1.0),
    "time_shift": lambda: TimeShift(100),
    "speed": lambda: Speed((0.8, 1.25)),
    "reverb": lambda: Reverb(RATE, probability=1.0),
    "equalizer": lambda: Equalizer((-9, 3), 5, 1.0),
    "gain": lambda: Gain((-10, -3)),
    "polarity": lambda: Polarity(0.5),
    "background_noise": lambda: BackgroundNoise(0.1, 1.0),
    "background_noise at an SNR": lambda: BackgroundNoise(None, 1.0, (-5, 20)),
    "time_mask": lambda: TimeMask(100, 1.0),
    "white_noise": lambda: WhiteNoise((-60, -40)),
}
FEATURE_STAGES: dict[str, Callable[[], FeatureStage]] = {
    "spec_augment": lambda: SpecAugment(2, 25, 2, 7),
    "spec_cutout": lambda: SpecCutout(3, 20, 8),
    "frequency_warp": lambda: FrequencyWarp((0.8, 1.2)),
}
MOVING_ROWS = np.random.default_rng(5).normal(0, 3000, (40, RATE)).clip(-32768, 32767).astype(np.int16)
WORDS = MOVING_ROWS * ((np.arange(RATE) >= 4000) & (np.arange(RATE) < 11_000)).astype(np.int16)  # with silence around


def batch_of(rows: Any, ids: Any = None, silence: Any = None) -> ClipBatch:
    """Clips of any lengths, padded with zeros to the longest."""
    lengths = np.array([len(row) for row in rows], np.int32)
    pcm = np.zeros((len(rows), lengths.max()), np.int16)
    for place, row in zip(pcm, rows, strict=True):
        place[: len(row)] = row
    ids = np.arange(len(rows)) if ids is None else np.asarray(ids)
    return ClipBatch(pcm, lengths, (ids % 7).astype(np.int32), ids, np.zeros(len(rows), bool)
                     if silence is None else np.array(silence))  # fmt: skip


def context(
    clip_samples: int | None = RATE, noise: NoiseBank = NOISE, words: Any = None, split: str = TRAINING
) -> StageContext:
    pool = np.arange(100, 140) if words is None else np.asarray(words)
    return StageContext(noise, split, RATE, clip_samples, pool, partners, unknown=UNKNOWN)


def partners(ids: np.ndarray) -> ClipBatch:
    return batch_of([MOVING_ROWS[example % 40] for example in ids], ids)


def drawn_by(stage: WaveformStage, batch: ClipBatch, seed: int = 0, epoch: int = 0, **options: Any) -> Any:
    return stage.prepare(batch, Draws(seed, epoch, batch.ids), context(**options))


def augmented(stages: Any, batch: ClipBatch, *, seed: int = 0, epoch: int = 0, **options: Any) -> np.ndarray:
    """What the whole stage, or chain of them by name, makes of a batch, unclipped; lengths are in the batch."""
    import tensorflow as tf

    stages = {"stage": stages} if isinstance(stages, WaveformStage) else stages
    chain = Augmentation(stages, clipping="leave")
    drawn = chain.prepare(batch, Draws(seed, epoch, batch.ids), context(**options))
    waveform = tf.constant(batch.pcm.astype(np.float32) / 32768)
    return chain.apply_to_waveform(waveform, {name: tf.constant(value) for name, value in drawn.items()}).numpy()


def tiny(count: int = MANY, samples: int = 400) -> ClipBatch:
    return batch_of(np.full((count, samples), 1000, np.int16))


def db(ratio: Any) -> Any:
    return 10 * np.log10(ratio)


def tone(frequency: float, samples: int = RATE) -> np.ndarray:
    return np.rint(10_000 * np.sin(2 * np.pi * frequency * np.arange(samples) / RATE)).astype(np.int16)
