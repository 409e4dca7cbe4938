"""Layers that several families share, and the adaptation of input normalisation to the training features."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Below this the GPU's fused kernel is not allowed to go (cuDNN's CUDNN_BN_MIN_EPSILON in older versions).
_SMALLEST_FUSED_EPSILON = 1.001e-5


@keras.saving.register_keras_serializable(package="kws")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` whose training step runs on TensorFlow's fused op.

    Arguments, weight names and numerics (running variance included) are the standard layer's, which runs unfused on
    this backend and takes half of the training step of a depthwise-separable network. Fused: rank 3 and 4, channels
    last, float32 or half precision, no mask. Everything else, and inference, is the standard layer itself.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Inputs and output: [batch, ..., channels]; mask: [batch, ...] bool, True where a position counts."""
        if not training or not self.trainable or mask is not None or not self._can_fuse(inputs):
            return super().call(inputs, training=training, mask=mask)
        images = inputs if len(inputs.shape) == 4 else tf.expand_dims(inputs, 2)
        channels = (inputs.shape[-1],)
        outputs, mean, unbiased_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels),
            offset=tf.convert_to_tensor(self.beta) if self.center else tf.zeros(channels),
            mean=tf.zeros((0,)),
            variance=tf.zeros((0,)),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The op returns the sample variance (n - 1 in the denominator); Keras's running average is of the batch's own.
        positions = tf.cast(tf.size(images) // channels[0], tf.float32)
        variance = unbiased_variance * ((positions - 1.0) / positions)
        for average, batch_value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + tf.stop_gradient(batch_value) * (1.0 - self.momentum))
        return outputs if len(inputs.shape) == 4 else tf.squeeze(outputs, 2)

    def _can_fuse(self, inputs: Any) -> bool:
        rank = len(inputs.shape)
        return (
            rank in (3, 4)
            and self.axis in (-1, rank - 1)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16", "bfloat16")
            and self.compute_dtype == keras.backend.standardize_dtype(inputs.dtype)
            and self.variable_dtype == "float32"
            and self.epsilon >= _SMALLEST_FUSED_EPSILON
            and not (self.renorm or self.synchronized)
        )


def unadapted_normalization(model: keras.Model) -> list[keras.layers.Normalization]:
    """The model's `Normalization` layers that have neither been given nor learned a mean, in the order of the graph."""
    return [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None and int(layer.count) == 0
    ]


def adapt_normalization(model: keras.Model, batches: Iterable[Any]) -> None:
    """Set the mean and variance of the model's unadapted `Normalization` layers from batches of features.

    Each batch (what the model takes: [batch, frames, bins] float32) runs through the part of the model below the
    layer, so that the statistics are those of the layer's own input. One pass for each layer, in float64, merging the
    batches' sums of squared deviations (Chan, Golub & LeVeque 1979), so that neither memory nor rounding grows with
    the data. A model without such layers leaves `batches` untouched. Call it before training.

    Raises:
        ValueError: no batch came, or the model takes variable lengths (padding would count as data).
    """
    for layer in unadapted_normalization(model):
        if len(model.inputs) != 1:
            raise ValueError("model: normalisation is adapted on clips of one length only")
        below = keras.Function(model.inputs, layer.input)
        kept_axes = {axis % len(layer.input.shape) for axis in layer.axis}
        reduced_axes = tuple(axis for axis in range(len(layer.input.shape)) if axis not in kept_axes)
        count, mean, variance = _moments(
            (keras.ops.convert_to_numpy(below([batch])) for batch in batches), reduced_axes
        )
        layer.adapt_mean.assign(mean)
        layer.adapt_variance.assign(variance)
        layer.count.assign(min(count, np.iinfo(np.int32).max))
        layer.finalize_state()
    # Functions traced earlier hold the old mean as a constant.
    model.train_function = model.test_function = model.predict_function = None


def _moments(arrays: Iterable[np.ndarray], axes: Sequence[int]) -> tuple[int, Any, Any]:
    """Element count, mean and (population) variance over `axes` of all arrays together, in one pass."""
    count, mean, squares = 0, np.float64(0), np.float64(0)
    for array in arrays:
        values = array.astype(np.float64)
        added = int(np.prod([values.shape[axis] for axis in axes]))
        if not added:
            continue
        added_mean = values.mean(axis=tuple(axes))
        delta = added_mean - mean
        squares = squares + values.var(axis=tuple(axes)) * added + delta**2 * (count * added / (count + added))
        mean = mean + delta * (added / (count + added))
        count += added
    if not count:
        raise ValueError("batches: no features came to adapt the normalisation to")
    return count, mean, squares / count
