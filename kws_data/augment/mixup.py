"""Mix pairs of training clips, and their labels."""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv

from kws_data.audio import INT16_SCALE
from kws_data.augment.stage import SAMPLES, ClipBatch, Shapes, StageContext, Tensor, WaveformStage
from kws_data.checks import check_number, check_probability
from kws_data.draws import Draws


class Mixup(WaveformStage):
    """Replace a clip by weight × clip + (1 - weight) × another, and its label likewise (arXiv:1710.09412).

    The other clip is any clip of the training split that is not a silence row, cut to the clip's length where clips
    keep their lengths. The weight is drawn from Beta(`alpha`, `alpha`); the larger share is the clip's own. A fraction
    `probability` of the clips is mixed, but no silence rows.
    """

    def __init__(self, alpha: float = 0.2, probability: float = 0.5) -> None:
        self.alpha = check_number("alpha", alpha, above=0)
        self.probability = check_probability("probability", probability)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """`partner`: [batch, samples] int16; `weight`: [batch] float32; sets the batch's second labels."""
        chance, quantile = draws.uniform("mixup", 2).T
        weight = betaincinv(self.alpha, self.alpha, quantile)
        weight = np.where((chance < self.probability) & ~batch.silence, np.maximum(weight, 1 - weight), 1.0)
        pool, partner, second_labels = context.words, np.zeros_like(batch.pcm), batch.labels.copy()
        if not len(pool):
            return {"partner": partner, "weight": np.ones(len(weight), np.float32)}
        mixed = np.flatnonzero(weight < 1)
        if len(mixed):
            partners = context.gather(pool[draws.integers("mixup partner", len(pool))[mixed]])
            width = min(partners.pcm.shape[1], batch.pcm.shape[1])
            partner[mixed, :width] = partners.pcm[:, :width]
            if context.clip_samples is None:
                partner[np.arange(partner.shape[1]) >= context.room(batch)[:, None]] = 0
            second_labels[mixed] = partners.labels
        batch.second_labels = second_labels
        batch.label_weights = weight.astype(np.float32)
        return {"partner": partner, "weight": batch.label_weights}

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"partner": ("int16", (SAMPLES,)), "weight": ("float32", ())}

    def apply(self, waveform: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, samples] float32 → the same."""
        import tensorflow as tf

        weight = parameters["weight"][:, None]
        return weight * waveform + (1 - weight) * (1 / INT16_SCALE) * tf.cast(parameters["partner"], tf.float32)
