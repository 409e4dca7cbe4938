"""Mask stretches of time and bands of frequency."""

from __future__ import annotations

import numpy as np

from kws_data.augment.feature_stage import FeatureStage, clip_mean, intervals
from kws_data.augment.stage import Shapes, Tensor
from kws_data.checks import check_whole
from kws_data.draws import Draws


class SpecAugment(FeatureStage):
    """Replace `time_masks` stretches of up to `max_frames` and `frequency_masks` bands of up to `max_bins` by the mean.

    SpecAugment (arXiv:1904.08779) without time warping. The mean is taken over all features of the clip, so that a mask
    is neutral whatever the features' scale.
    """

    def __init__(self, time_masks: int, max_frames: int, frequency_masks: int, max_bins: int) -> None:
        self.time_masks = check_whole("time_masks", time_masks, 0)
        self.max_frames = check_whole("max_frames", max_frames, 0)
        self.frequency_masks = check_whole("frequency_masks", frequency_masks, 0)
        self.max_bins = check_whole("max_bins", max_bins, 0)

    def prepare(self, draws: Draws) -> dict[str, np.ndarray]:
        """`time` and `frequency`: [batch, masks, 2] float32 in [0, 1), width and start."""
        return {
            "time": _pairs(draws, "time masks", self.time_masks),
            "frequency": _pairs(draws, "frequency masks", self.frequency_masks),
        }

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"time": ("float32", (self.time_masks, 2)), "frequency": ("float32", (self.frequency_masks, 2))}

    def apply(self, features: Tensor, num_frames: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, frames, bins] → the same."""
        import tensorflow as tf

        shape = tf.shape(features)
        bins = tf.fill([shape[0]], shape[2])
        in_time = tf.reduce_any(intervals(parameters["time"], self.max_frames, num_frames, shape[1]), 1)
        in_frequency = tf.reduce_any(intervals(parameters["frequency"], self.max_bins, bins, shape[2]), 1)
        masked = in_time[:, :, None] | in_frequency[:, None, :]
        return tf.where(masked, clip_mean(features, num_frames), features)


def _pairs(draws: Draws, stage: str, count: int) -> np.ndarray:
    return draws.uniform(stage, 2 * count).reshape(len(draws.ids), count, 2).astype(np.float32)
