"""Examples to `tf.data` batches: gather PCM, augment, compute features.

One element of the stream is one batch. Its number decides which examples are in it and what is drawn for them, so the
stream can start at any step and doesn't depend on the number of threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import tensorflow as tf

from kws_data.audio import INT16_SCALE, to_int16
from kws_data.augment.augmentation import Augmentation
from kws_data.augment.stage import SAMPLES, ClipBatch, Shapes, StageContext
from kws_data.batches import BatchPlan
from kws_data.catalog import SILENCE
from kws_data.clip_format import LONGEST_CLIP_S
from kws_data.corpus import Corpus
from kws_data.draws import Draws, text_key
from kws_data.errors import KwsError
from kws_data.features.base import FeatureLayer
from kws_data.front_end import FrontEnd
from kws_data.splits import TRAINING
from kws_data.task import NO_SOURCE, WordTargets

EVALUATION_BATCH = 100
NO_AUGMENTATION = Augmentation()
_BASE_PARTS: Shapes = {
    "pcm": ("int16", (SAMPLES,)),
    "lengths": ("int32", ()),
    "labels": ("int32", ()),
    "ids": ("int64", ()),
    "second_labels": ("int32", ()),
    "label_weights": ("float32", ()),
}


class ClipSource:
    """Fills batches with samples: clips from the store, silence rows from noise.

    Args:
        corpus: clips and noise.
        examples: the task's table, of all splits; its index is the examples' ids, counted from 0.
        clip_samples: every clip is padded or cut to this; None keeps lengths and pads to the batch's longest.
        silence_samples: the length of silence rows.
        silence_kind: 'noise' or 'zeros' for validation and testing.
        silence_level_db: [low, high] of silence rows in training, RMS in dB of full scale; None: volume uniform(0, 1).
        data_seed: seed of the silence rows of validation and testing, and of all draws for evaluation.
        seed: seed of the silence rows of training, and of all other draws.
        unknown: the label of the unknown class; None where the task has none.
        apart: [examples] bool, those that belong to no split's `ids`, so that the network is not trained on them, also
            not as a part of another clip.
        targets: what batches have as labels, where training tells all words apart; None: the labels themselves.
    """

    def __init__(
        self,
        corpus: Corpus,
        examples: pd.DataFrame,
        *,
        clip_samples: int | None,
        silence_samples: int,
        silence_kind: str,
        silence_level_db: tuple[float, float] | None = None,
        data_seed: int,
        seed: int,
        unknown: int | None = None,
        apart: np.ndarray | None = None,
        targets: WordTargets | None = None,
    ) -> None:
        self.corpus = corpus
        self.examples = examples
        self.clip_samples = clip_samples
        self.silence_samples = silence_samples
        self.silence_kind = silence_kind
        self.silence_level_db = silence_level_db
        self.data_seed = data_seed
        self.seed = seed
        self.unknown = unknown
        self.apart = np.zeros(len(examples), bool) if apart is None else apart
        # Arrays, as looking up rows in pandas takes longer than copying the samples.
        self._sources = examples["source"].to_numpy()
        self._offsets = examples["offset"].to_numpy()
        self._silent = examples["word"].eq(SILENCE).to_numpy()
        self.labels = examples["label"].to_numpy(np.int32)
        self.targets = targets
        self._in_batches = self.labels if targets is None else targets.of_examples
        lengths = np.where(self._sources == NO_SOURCE, silence_samples, examples["length"].to_numpy())
        self.lengths = np.minimum(lengths, clip_samples or LONGEST_CLIP_S * corpus.sample_rate)

    def labels_of(self, in_batches: np.ndarray) -> np.ndarray:
        """The labels of what batches have as `labels`: [clips] int32."""
        return in_batches if self.targets is None else self.targets.labels[in_batches]

    def ids(self, split: str) -> np.ndarray:
        """The ids of a split's examples: [examples] int64."""
        return np.flatnonzero((self.examples["split"].to_numpy() == split) & ~self.apart)

    def gather(self, split: str, ids: np.ndarray, epoch: int, draw_ids: np.ndarray | None = None) -> ClipBatch:
        """The clips of `ids`, all in `split`; `draw_ids`, if given, replace `ids` in draws of silence rows."""
        sources, offsets, lengths = self._sources[ids], self._offsets[ids], self.lengths[ids]
        made = sources == NO_SOURCE
        pcm = np.zeros((len(ids), self.clip_samples or int(lengths.max())), np.int16)
        for row, source, offset, length in zip(pcm, sources, offsets, lengths, strict=True):
            if source != NO_SOURCE:
                row[:length] = self.corpus.pcm[source][offset : offset + length]
        if made.any():
            drawn_by = ids if draw_ids is None else draw_ids
            pcm[made, : self.silence_samples] = self._silence(split, ids[made], epoch, drawn_by[made])
        return ClipBatch(pcm, lengths.astype(np.int32), self._in_batches[ids], ids, self._silent[ids])

    def context(self, split: str) -> StageContext:
        """What augmentation stages may use besides the batch, for examples of `split`."""
        ids = self.ids(split)
        return StageContext(
            self.corpus.noise,
            split,
            self.corpus.sample_rate,
            self.clip_samples,
            words=ids[~self._silent[ids]],
            gather=lambda partners: self.gather(split, partners, epoch=0),
            unknown=self.unknown,
        )

    def _keys(self, ids: np.ndarray) -> np.ndarray:
        """[batch] int64: keys made of the examples' names, which don't depend on the number of examples."""
        return np.array([text_key(path) for path in self.examples["path"].to_numpy()[ids]], np.uint64).view(np.int64)

    def _silence(self, split: str, ids: np.ndarray, epoch: int, draw_ids: np.ndarray) -> np.ndarray:
        """Noise at volume uniform(0, 1), as in the original, or at a level: [rows, silence_samples] int16."""
        training = split == TRAINING
        if not training and self.silence_kind == "zeros":
            return np.zeros((len(ids), self.silence_samples), np.int16)
        # Validation and testing must not change with the number of training examples, as ids do.
        draws = Draws(self.seed, epoch, draw_ids) if training else Draws(self.data_seed, 0, self._keys(ids))
        noise = self.corpus.noise.windows(split, draws, "silence", np.full(len(ids), self.silence_samples))
        volume = draws.uniform("silence volume")
        if training and self.silence_level_db is not None:
            low, high = self.silence_level_db
            rms = np.sqrt(np.mean(np.square(noise, dtype=np.float64), axis=1, keepdims=True))
            # digital silence stays silent
            volume = 10 ** ((low + volume * (high - low)) / 20) * INT16_SCALE / np.maximum(rms, 1.0)
        return to_int16(noise * (volume / INT16_SCALE))


def host_batches(
    source: ClipSource,
    split: str,
    plan: BatchPlan,
    *,
    augmentation: Augmentation = NO_AUGMENTATION,
    start_step: int = 0,
    steps: int,
    threads: int,
) -> tf.data.Dataset:
    """PCM and draws of the batches from `start_step` up to `steps`, as FrontEnd takes them.

    Args:
        source: fills batches with samples.
        split: the split of examples and noise.
        plan: which examples are in which batch. A plan without a seed, for evaluation, draws with the source's data
            seed; others draw with its seed.
        augmentation: its stages, of which the parameters are drawn here.
        start_step: the first step, counted from 0 over all epochs.
        steps: one past the last step.
        threads: batches computed at once; changes nothing but speed.

    Returns:
        dicts of `pcm` ([batch, samples] int16), `labels`, `ids`, `lengths` (samples), `second_labels` and
        `label_weights` (each [batch]), and what the stages draw, as 'stage/parameter'.
    """
    context = source.context(split)
    seed = source.data_seed if plan.seed is None else source.seed
    parts = {**_BASE_PARTS, **augmentation.parameter_shapes()}

    def prepare(step: np.ndarray) -> list[np.ndarray]:
        epoch, draw_ids = plan.epoch_of(int(step)), plan.draw_ids(int(step))
        batch = source.gather(split, plan.batch_ids(int(step)), epoch, draw_ids)
        draws = Draws(seed, epoch, draw_ids)
        values = augmentation.prepare(batch, draws, context)
        ones = np.ones(len(batch.ids), np.float32)
        values |= {
            "pcm": batch.pcm,
            "lengths": batch.lengths,
            "labels": batch.labels,
            "ids": batch.ids,
            "second_labels": batch.labels if batch.second_labels is None else batch.second_labels,
            "label_weights": ones if batch.label_weights is None else batch.label_weights,
        }
        return [values[name] for name in parts]

    def load(step: tf.Tensor) -> dict[str, tf.Tensor]:
        # stateful=False: as a pure function of the step, it may run several times at once under op determinism.
        dtypes = [tf.as_dtype(dtype) for dtype, _ in parts.values()]
        tensors = tf.numpy_function(prepare, [step], dtypes, stateful=False)
        for tensor, (_, shape) in zip(tensors, parts.values(), strict=True):
            tensor.set_shape([None, *(source.clip_samples if size is SAMPLES else size for size in shape)])
        return dict(zip(parts, tensors, strict=True))

    dataset = tf.data.Dataset.range(start_step, steps)
    dataset = dataset.map(_as_it_is(load), num_parallel_calls=threads, deterministic=True)
    return dataset.prefetch(2 * threads).with_options(_options(threads))


def batches(
    source: ClipSource,
    split: str,
    plan: BatchPlan,
    *,
    augmentation: Augmentation = NO_AUGMENTATION,
    features: FeatureLayer | None = None,
    start_step: int = 0,
    steps: int,
    threads: int,
) -> tf.data.Dataset:
    """`host_batches` through the front end: dicts with a model's `inputs` in place of PCM and draws.

    The arguments are those of `host_batches`, and `features`: a feature layer, or None for the waveform.
    """
    front_end = FrontEnd(features, augmentation, variable_length=source.clip_samples is None)
    dataset = host_batches(
        source, split, plan, augmentation=augmentation, start_step=start_step, steps=steps, threads=threads
    )
    dataset = dataset.map(_as_it_is(front_end.__call__), num_parallel_calls=threads, deterministic=True)
    return dataset.prefetch(2 * threads).with_options(_options(threads))


# AutoGraph reads and rewrites all of the code, which takes longer than tracing it.
_as_it_is = tf.autograph.experimental.do_not_convert


def _options(threads: int) -> tf.data.Options:
    options = tf.data.Options()
    # Parallel over batches, not within one: faster, and results can't depend on how an operation is divided.
    options.threading.max_intra_op_parallelism = 1
    options.threading.private_threadpool_size = max(1, threads)
    options.autotune.enabled = False
    return options


@contextmanager
def unwrap_errors() -> Iterator[None]:
    """Raise a KwsError from inside tf.data, where it was raised while preparing a batch, as a KwsError again."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"KwsError: ([^\n]*)", error.message)
        if found is None:
            raise
        raise KwsError(found[1]) from error


def evaluation_batches(
    source: ClipSource,
    split: str,
    features: FeatureLayer | None,
    *,
    augmentation: Augmentation = NO_AUGMENTATION,
    threads: int,
) -> tf.data.Dataset:
    """All examples of a split, once, in order; the draws of `augmentation` are the same from run to run."""
    plan = evaluation_plan(source, split)
    return batches(
        source, split, plan, augmentation=augmentation, features=features, steps=plan.steps_per_epoch, threads=threads,
    )  # fmt: skip


def evaluation_plan(source: ClipSource, split: str) -> BatchPlan:
    """All examples of a split, in batches, in order (by length where clips keep theirs)."""
    ids = source.ids(split)
    lengths = source.lengths[ids] if source.clip_samples is None else None
    return BatchPlan(ids, EVALUATION_BATCH, seed=None, lengths=lengths)


def training_plan(source: ClipSource, batch_size: int, *, balanced: bool = False) -> BatchPlan:
    """The training split's examples, in another order in each epoch; `balanced`: with each class equally often."""
    ids = source.ids(TRAINING)
    lengths = source.lengths[ids] if source.clip_samples is None else None
    labels = source.labels[ids] if balanced else None
    return BatchPlan(ids, batch_size, seed=source.seed, lengths=lengths, labels=labels)
