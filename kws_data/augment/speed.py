"""Play clips faster or slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kws_data.augment.stage import ClipBatch, Shapes, StageContext, WaveformStage
from kws_data.checks import check_probability, check_range
from kws_data.draws import Draws

if TYPE_CHECKING:
    import tensorflow as tf


class Speed(WaveformStage):
    """Resample by a factor uniform in `factor` = [low, high]: above 1 is faster and higher, as a tape would be.

    By cubic (Catmull-Rom) interpolation, without a low-pass filter: factors far above 1 alias. Where all clips
    have one length, a clip of that length is stretched about its middle, and zero-filled or cut at both ends; a shorter
    one keeps its start, and grows up to that length. Where clips keep their lengths, these change with the factor.
    """

    def __init__(self, factor: tuple[float, float], probability: float = 1.0) -> None:
        self.low, self.high = check_range("factor", factor, 0.5, 2.0)
        self.probability = check_probability("probability", probability)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """Draw the factors; changes lengths, and widens the batch where a clip outgrows it.

        Returns:
            `factor`: [batch] float32; `pivot`: [batch] float32, the sample that stays where it is; `length`: [batch]
            int32, samples.
        """
        chance, place = draws.uniform("speed", 2).T
        chosen = (chance < self.probability) & ~batch.silence
        factor = np.where(chosen, self.low + place * (self.high - self.low), 1.0)
        changed = np.maximum(1, np.rint(batch.lengths / factor))
        pivot = np.zeros(len(factor))
        if context.clip_samples is not None:
            full = batch.lengths == context.clip_samples
            pivot = np.where(full, (batch.lengths - 1) / 2, 0.0)
            changed = np.where(full, batch.lengths, np.minimum(changed, context.clip_samples))
        batch.lengths = changed.astype(np.int32)
        missing = batch.lengths.max(initial=0) - batch.pcm.shape[1]
        if missing > 0:
            batch.pcm = np.pad(batch.pcm, [(0, 0), (0, missing)])
        return {
            "factor": factor.astype(np.float32),
            "pivot": pivot.astype(np.float32),
            "length": context.room(batch).astype(np.int32),
        }

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"factor": ("float32", ()), "pivot": ("float32", ()), "length": ("int32", ())}

    def apply(self, waveform: tf.Tensor, parameters: dict[str, tf.Tensor]) -> tf.Tensor:
        """[batch, samples] float32 → the same shape."""
        import tensorflow as tf

        count = tf.shape(waveform)[1]
        place = tf.cast(tf.range(count), tf.float32)[None]
        pivot = parameters["pivot"][:, None]
        source = pivot + (place - pivot) * parameters["factor"][:, None]
        before = tf.floor(source)
        t = source - before
        # three zeros at each end stand for everything outside the clip
        padded = tf.pad(waveform, [[0, 0], [3, 3]])
        first = tf.clip_by_value(tf.cast(before, tf.int32) - 1, -3, count - 1) + 3
        # gathers from one long row: with batch_dims they take half as long again
        first += tf.range(tf.shape(waveform)[0])[:, None] * (count + 6)
        last = (tf.range(tf.shape(waveform)[0])[:, None] + 1) * (count + 6) - 1
        row = tf.reshape(padded, [-1])
        a, b, c, d = (tf.gather(row, tf.minimum(first + shift, last)) for shift in range(4))
        cubic = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
        # beyond its length the interpolation would ring on for a sample or two into the padding
        inside = (source > -1.0) & (source < tf.cast(count, tf.float32))
        inside &= tf.sequence_mask(parameters["length"], count)
        unchanged = parameters["factor"][:, None] == 1.0
        return tf.where(unchanged, waveform, tf.where(inside, cubic, 0.0))
