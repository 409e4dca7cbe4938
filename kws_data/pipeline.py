"""Examples to `tf.data` batches: gather PCM, augment, compute features.

One element of the stream is one batch. Its number tells which examples stand in it and what is drawn for them, so the
stream can start at any step and doesn't depend on how many threads compute it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from kws_data.audio import INT16_SCALE, to_int16
from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.batches import BatchPlan
from kws_data.corpus import Corpus
from kws_data.draws import Draws
from kws_data.features.base import FeatureLayer
from kws_data.splits import TRAINING
from kws_data.task import NO_SOURCE

EVALUATION_BATCH = 100
_BASE_PARTS = {"pcm": ("int16", 2), "lengths": ("int32", 1), "labels": ("int32", 1), "ids": ("int64", 1)}


class ClipSource:
    """Fills batches with samples: clips from the store, silence rows from noise.

    Args:
        corpus: where samples and noise come from.
        examples: the task's table, of all splits; its index holds the example ids, counted from 0.
        clip_samples: every clip is padded or cut to this; None keeps lengths and pads to the batch's longest.
        silence_samples: the length of silence rows.
        silence_kind: 'noise' or 'zeros' for validation and testing.
        data_seed: seeds what validation and testing hear in silence rows.
        seed: seeds what training hears in them, and every other draw.
    """

    def __init__(
        self,
        corpus: Corpus,
        examples: pd.DataFrame,
        *,
        clip_samples: int | None,
        silence_samples: int,
        silence_kind: str,
        data_seed: int,
        seed: int,
    ) -> None:
        self.corpus = corpus
        self.examples = examples
        self.clip_samples = clip_samples
        self.silence_samples = silence_samples
        self.silence_kind = silence_kind
        self.data_seed = data_seed
        self.seed = seed
        # as arrays: pandas' row lookup would take longer than the copying
        self._sources = examples["source"].to_numpy()
        self._offsets = examples["offset"].to_numpy()
        self._labels = examples["label"].to_numpy(np.int32)
        lengths = np.where(self._sources == NO_SOURCE, silence_samples, examples["length"].to_numpy())
        self.lengths = lengths if clip_samples is None else np.minimum(lengths, clip_samples)

    def ids(self, split: str) -> np.ndarray:
        """The ids of a split's examples: [examples] int64."""
        return np.flatnonzero(self.examples["split"].to_numpy() == split)

    def gather(self, split: str, ids: np.ndarray, epoch: int) -> ClipBatch:
        """The clips of `ids`, all of `split`."""
        sources, offsets, lengths = self._sources[ids], self._offsets[ids], self.lengths[ids]
        silence = sources == NO_SOURCE
        pcm = np.zeros((len(ids), self.clip_samples or int(lengths.max())), np.int16)
        for row, source, offset, length in zip(pcm, sources, offsets, lengths, strict=True):
            if source != NO_SOURCE:
                row[:length] = self.corpus.pcm[source][offset : offset + length]
        if silence.any():
            pcm[silence, : self.silence_samples] = self._silence(split, ids[silence], epoch)
        return ClipBatch(pcm, lengths.astype(np.int32), self._labels[ids], ids, silence)

    def _silence(self, split: str, ids: np.ndarray, epoch: int) -> np.ndarray:
        """Noise at volume uniform(0, 1), as the original's muted clips: [rows, silence_samples] int16."""
        training = split == TRAINING
        if not training and self.silence_kind == "zeros":
            return np.zeros((len(ids), self.silence_samples), np.int16)
        draws = Draws(self.seed, epoch, ids) if training else Draws(self.data_seed, 0, ids)
        noise = self.corpus.noise.windows(split, draws, "silence", np.full(len(ids), self.silence_samples))
        return to_int16(noise * (draws.uniform("silence volume") / INT16_SCALE))


def batches(
    source: ClipSource,
    split: str,
    plan: BatchPlan,
    *,
    stages: Sequence[WaveformStage] = (),
    features: FeatureLayer | None = None,
    start_step: int = 0,
    steps: int,
    threads: int,
) -> tf.data.Dataset:
    """The batches from `start_step` up to `steps`.

    Args:
        source: fills batches with samples.
        split: whose examples and noise.
        plan: which examples stand in which batch.
        stages: waveform augmentation, in order.
        features: a feature layer; None leaves the waveform.
        start_step: the first step, counted from 0 over all epochs.
        steps: one past the last step.
        threads: batches computed at once; changes nothing but speed.

    Returns:
        dicts of `inputs` ([batch, frames, bins] or [batch, samples] float32; where clips keep their lengths, a dict of
        `features` and `num_frames`), `labels` and `ids` ([batch]), `lengths` ([batch] int32, samples).
    """
    context = StageContext(source.corpus.noise, split, source.corpus.sample_rate, source.clip_samples)
    # named by place, so that one stage may stand twice
    parts = _BASE_PARTS | {
        f"{place} {name}": shape
        for place, stage in enumerate(stages)
        for name, shape in stage.parameter_shapes().items()
    }

    kinds = [type(stage) for stage in stages]
    variants = [kinds[:place].count(kind) for place, kind in enumerate(kinds)]

    def prepare(step: np.ndarray) -> list[np.ndarray]:
        epoch = plan.epoch_of(int(step))
        batch = source.gather(split, plan.batch_ids(int(step)), epoch)
        values: dict[str, np.ndarray] = {}
        for place, stage in enumerate(stages):
            drawn = stage.prepare(batch, Draws(source.seed, epoch, batch.ids, variants[place]), context)
            values |= {f"{place} {name}": value for name, value in drawn.items()}
        values |= {"pcm": batch.pcm, "lengths": batch.lengths, "labels": batch.labels, "ids": batch.ids}
        return [values[name] for name in parts]

    def load(step: tf.Tensor) -> dict[str, tf.Tensor]:
        # stateful=False: it is a pure function of the step, which lets tf.data run several at once when op
        # determinism is on
        dtypes = [tf.as_dtype(dtype) for dtype, _ in parts.values()]
        tensors = tf.numpy_function(prepare, [step], dtypes, stateful=False)
        for tensor, (_, rank) in zip(tensors, parts.values(), strict=True):
            tensor.set_shape([None, source.clip_samples] if rank == 2 else [None])
        return dict(zip(parts, tensors, strict=True))

    def augment(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        waveform = tf.cast(batch["pcm"], tf.float32) * (1.0 / INT16_SCALE)
        for place, stage in enumerate(stages):
            prefix = f"{place} "
            parameters = {name[len(prefix) :]: batch[name] for name in batch if name.startswith(prefix)}
            waveform = stage.apply(waveform, parameters)
        inputs: tf.Tensor | dict[str, tf.Tensor] = waveform if features is None else features(waveform)
        if features is not None and source.clip_samples is None:
            inputs = {"features": inputs, "num_frames": tf.cast(features.num_frames(batch["lengths"]), tf.int32)}
        return {"inputs": inputs, "labels": batch["labels"], "ids": batch["ids"], "lengths": batch["lengths"]}

    dataset = tf.data.Dataset.range(start_step, steps)
    dataset = dataset.map(lambda step: augment(load(step)), num_parallel_calls=threads, deterministic=True)
    options = tf.data.Options()
    # Parallel over batches, not within one: faster, and the numbers can't depend on how an operation was divided.
    options.threading.max_intra_op_parallelism = 1
    options.threading.private_threadpool_size = max(1, threads)
    options.autotune.enabled = False
    return dataset.prefetch(2 * threads).with_options(options)


def evaluation_plan(source: ClipSource, split: str) -> BatchPlan:
    """All examples of a split, in batches, in order (by length where clips keep theirs)."""
    ids = source.ids(split)
    lengths = source.lengths[ids] if source.clip_samples is None else None
    return BatchPlan(ids, EVALUATION_BATCH, seed=None, lengths=lengths)


def training_plan(source: ClipSource, batch_size: int) -> BatchPlan:
    """The training split's examples, shuffled anew in each epoch."""
    ids = source.ids(TRAINING)
    lengths = source.lengths[ids] if source.clip_samples is None else None
    return BatchPlan(ids, batch_size, seed=source.seed, lengths=lengths)
