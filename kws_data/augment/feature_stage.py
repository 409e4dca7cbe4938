"""The interface of every feature augmentation, and the masks that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from kws_data.augment.stage import Shapes, Tensor
from kws_data.draws import Draws


class FeatureStage(ABC):
    """One augmentation of features. Like a WaveformStage, it draws on the host and applies in the graph."""

    @abstractmethod
    def prepare(self, draws: Draws) -> dict[str, np.ndarray]:
        """Draw the parameters: arrays with the batch as first axis, as declared by `parameter_shapes`."""

    @abstractmethod
    def parameter_shapes(self) -> Shapes:
        """Name → (dtype, shape after the batch axis) of what `prepare` returns."""

    @abstractmethod
    def apply(self, features: Tensor, num_frames: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, frames, bins] float32 → the same shape; `num_frames`: [batch] int32, frames without the padding."""


def intervals(drawn: Tensor, longest: int, size: Tensor, axis_length: Tensor) -> Tensor:
    """Which indices lie in random intervals.

    Args:
        drawn: [batch, intervals, 2] uniform in [0, 1), or 1 by rounding: width and start.
        longest: the largest width, inclusive; `size` where that is smaller.
        size: [batch] int32, the length that an interval must fit into.
        axis_length: scalar, the length of the axis.

    Returns:
        [batch, intervals, axis_length] bool.
    """
    import tensorflow as tf

    room = tf.cast(size, tf.float32)[:, None]
    longest = tf.minimum(float(longest), room)
    width = tf.minimum(tf.floor(drawn[..., 0] * (longest + 1.0)), longest)
    start = tf.minimum(tf.floor(drawn[..., 1] * (room - width + 1.0)), room - width)
    index = tf.cast(tf.range(axis_length), tf.float32)
    return (index >= start[..., None]) & (index < (start + width)[..., None])


def clip_mean(features: Tensor, num_frames: Tensor) -> Tensor:
    """[batch, 1, 1]: each clip's mean over all its features, without padding."""
    import tensorflow as tf

    shape = tf.shape(features)
    total = tf.reduce_sum(features * tf.sequence_mask(num_frames, shape[1], features.dtype)[:, :, None], [1, 2])
    return (total / tf.cast(num_frames * shape[2], features.dtype))[:, None, None]
