"""Silence a stretch of clips."""

from __future__ import annotations

import numpy as np

from kws_data.augment.stage import ClipBatch, Shapes, StageContext, Tensor, WaveformStage
from kws_data.checks import check_number, check_probability
from kws_data.draws import Draws


class TimeMask(WaveformStage):
    """Zero a random stretch of up to `max_ms` milliseconds, in a fraction `probability` of the clips."""

    def __init__(self, max_ms: float, probability: float = 0.5) -> None:
        self.max_ms = check_number("max_ms", max_ms, 0)
        self.probability = check_probability("probability", probability)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """`start` and `end`: [batch] int32, in samples; the stretch lies within the clip."""
        chance, width, place = draws.uniform("time mask", 3).T
        longest = np.minimum(int(self.max_ms * context.sample_rate / 1000), batch.lengths)
        samples = np.where(chance < self.probability, np.floor(width * (longest + 1)), 0)
        start = np.floor(place * (batch.lengths - samples + 1))
        return {"start": start.astype(np.int32), "end": (start + samples).astype(np.int32)}

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"start": ("int32", ()), "end": ("int32", ())}

    def apply(self, waveform: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, samples] float32 → the same."""
        import tensorflow as tf

        index = tf.range(tf.shape(waveform)[1])[None]
        masked = (index >= parameters["start"][:, None]) & (index < parameters["end"][:, None])
        return tf.where(masked, 0.0, waveform)
