"""Stretch or compress the frequency axis, as another length of the vocal tract would."""

from __future__ import annotations

import numpy as np

from kws_data.augment.feature_stage import FeatureStage
from kws_data.augment.stage import Shapes, Tensor
from kws_data.checks import check_probability, check_range
from kws_data.draws import Draws

_KNEE = 0.8  # of the bins; above it the axis is mapped so that the last bin stays the last


class FrequencyWarp(FeatureStage):
    """Move what is at bin `b` to bin `factor` × `b`, and interpolate between bins.

    Vocal tract length perturbation (Jaitly and Hinton, ICML 2013 workshop), on the bins of the features instead of the
    spectrum: unlike `speed` it leaves the tempo. For features whose bins are frequencies, not for MFCCs.

    Args:
        factor: [lowest, highest], drawn uniformly for each clip.
        probability: of the clips.
    """

    def __init__(self, factor: tuple[float, float] = (0.9, 1.1), probability: float = 1.0) -> None:
        self.factor = check_range("factor", factor, 0.5, 1.2)
        self.probability = check_probability("probability", probability)

    def prepare(self, draws: Draws) -> dict[str, np.ndarray]:
        """`factor`: [batch] float32; 1 for clips that stay."""
        chance, share = draws.uniform("frequency warp", 2).T
        factor = self.factor[0] + share * (self.factor[1] - self.factor[0])
        return {"factor": np.where(chance < self.probability, factor, 1.0).astype(np.float32)}

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"factor": ("float32", ())}

    def apply(self, features: Tensor, num_frames: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, frames, bins] → the same."""
        import tensorflow as tf

        del num_frames
        factor, bins = parameters["factor"][:, None], tf.shape(features)[2]
        place = tf.cast(tf.range(bins), tf.float32)
        last = tf.maximum(tf.cast(bins - 1, tf.float32), 1.0)
        moved = _KNEE * last * factor  # where the knee goes
        above = _KNEE * last + (place - moved) * (1 - _KNEE) * last / (last - moved)
        source = tf.where(place <= moved, place / factor, above)
        weights = tf.nn.relu(1 - tf.abs(source[:, None, :] - place[:, None]))  # [batch, from, to]
        return features @ weights
