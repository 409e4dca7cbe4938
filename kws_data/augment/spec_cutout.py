"""Mask rectangles of the features."""

from __future__ import annotations

import numpy as np

from kws_data.augment.feature_stage import FeatureStage, clip_mean, intervals
from kws_data.augment.stage import Shapes, Tensor
from kws_data.checks import check_whole
from kws_data.draws import Draws


class SpecCutout(FeatureStage):
    """Replace `masks` rectangles of up to `max_frames` by `max_bins` by the clip's mean (cutout, arXiv:1708.04552)."""

    def __init__(self, masks: int, max_frames: int, max_bins: int) -> None:
        self.masks = check_whole("masks", masks, 0)
        self.max_frames = check_whole("max_frames", max_frames, 0)
        self.max_bins = check_whole("max_bins", max_bins, 0)

    def prepare(self, draws: Draws) -> dict[str, np.ndarray]:
        """`rectangles`: [batch, masks, 4] float32 in [0, 1): width and start in time, then in frequency."""
        drawn = draws.uniform("cutout", 4 * self.masks).reshape(len(draws.ids), self.masks, 4)
        return {"rectangles": drawn.astype(np.float32)}

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"rectangles": ("float32", (self.masks, 4))}

    def apply(self, features: Tensor, num_frames: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, frames, bins] → the same."""
        import tensorflow as tf

        shape = tf.shape(features)
        bins = tf.fill([shape[0]], shape[2])
        in_time = intervals(parameters["rectangles"][..., :2], self.max_frames, num_frames, shape[1])
        in_frequency = intervals(parameters["rectangles"][..., 2:], self.max_bins, bins, shape[2])
        masked = tf.reduce_any(in_time[:, :, :, None] & in_frequency[:, :, None, :], 1)
        return tf.where(masked, clip_mean(features, num_frames), features)
