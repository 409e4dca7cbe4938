"""Variable-length clips: layers that keep a clip's logits independent of how far its batch was padded.

Every function takes `num_frames` ([batch] int32: how many frames of each clip are real), or None where all clips have
one length; then it is the plain layer, and the model has no trace of masks. Padding can reach a clip's logits in three
ways, each with its function here: a window that looks past the clip's end (`same_conv`), the batch's statistics
(`batch_norm`) and the pooling over time (`global_average_pool`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
from keras import ops

from kws_models.layers import BatchNormalization


def frame_mask(x: Any, num_frames: Any) -> Any:
    """[batch, frames, 1, ...] bool, True at the frames of x ([batch, frames, ...]) that are not padding."""
    mask = ops.arange(ops.shape(x)[1]) < ops.expand_dims(num_frames, -1)
    return ops.reshape(mask, (-1, ops.shape(x)[1]) + (1,) * (len(x.shape) - 2))


@keras.saving.register_keras_serializable(package="kws")
class ZeroPaddedFrames(keras.layers.Layer):
    """x [batch, frames, ...] and num_frames [batch] int32 → x with zeros in the frames that are padding."""

    def call(self, x: Any, num_frames: Any) -> Any:
        """See the class."""
        return ops.where(frame_mask(x, num_frames), x, ops.zeros((), x.dtype))

    def compute_output_shape(self, x_shape: tuple, num_frames_shape: tuple) -> tuple:  # noqa: ARG002
        """The shape of x."""
        return x_shape


@keras.saving.register_keras_serializable(package="kws")
class MaskedBatchNormalization(BatchNormalization):
    """Batch normalisation of x [batch, frames, ..., channels] whose training statistics leave padded frames out.

    Takes num_frames ([batch] int32), not a mask: Keras sums its weights over the mask's own elements, so that a mask
    that merely broadcasts to x gives wrong means; here it always has x's full shape without channels. Runs unfused.
    """

    def build(self, x_shape: tuple, num_frames_shape: tuple) -> None:  # noqa: ARG002
        """Weights for the last axis of x."""
        super().build(x_shape)

    def call(self, x: Any, num_frames: Any, training: bool | None = None) -> Any:  # type: ignore[override]
        """See the class."""
        mask = ops.broadcast_to(frame_mask(x[..., 0], num_frames), ops.shape(x)[:-1])
        return super().call(x, training=training, mask=mask)

    def compute_output_shape(self, x_shape: tuple, num_frames_shape: tuple) -> tuple:  # noqa: ARG002
        """The shape of x."""
        return x_shape


@keras.saving.register_keras_serializable(package="kws")
class MaskedGlobalAveragePooling2D(keras.layers.Layer):
    """x [batch, frames, bins, channels] and num_frames [batch] int32 → [batch, channels], the mean without padding."""

    def call(self, x: Any, num_frames: Any) -> Any:
        """See the class."""
        total = ops.sum(ops.where(frame_mask(x, num_frames), ops.cast(x, "float32"), 0.0), axis=(1, 2))
        # A clip too short for a single frame has an empty sum; its logits are then the bias.
        positions = ops.maximum(num_frames, 1) * ops.shape(x)[2]
        return ops.cast(total / ops.expand_dims(ops.cast(positions, "float32"), -1), self.compute_dtype)

    def compute_output_shape(self, x_shape: tuple, num_frames_shape: tuple) -> tuple:  # noqa: ARG002
        """[batch, channels]."""
        return (x_shape[0], x_shape[-1])


def same_conv(
    make_conv: Callable[..., keras.layers.Layer],
    x: keras.KerasTensor,
    num_frames: keras.KerasTensor | None,
    *,
    kernel_size: Sequence[int],
    strides: Sequence[int] = (1, 1),
    dilation: int = 1,
) -> tuple[keras.KerasTensor, keras.KerasTensor | None]:
    """A convolution of [batch, frames, bins, channels] that makes ceil(frames / stride) frames, and their new count.

    `make_conv` is a Keras layer class with its other arguments bound; a dilation along the frames goes with a stride
    of 1. TensorFlow's "same" puts the zeros of a strided convolution where the padded length says (one more before an
    odd length than before an even one), so here they are put explicitly: (kernel - 1) // 2 before, the rest after, as
    "same" does for odd lengths and stride 2.
    """
    kernel, stride = tuple(kernel_size), tuple(strides)
    if dilation > 1:
        make_conv = partial(make_conv, dilation_rate=(dilation, 1))
    if num_frames is None:
        return make_conv(kernel_size=kernel, strides=stride, padding="same")(x), None
    if kernel[0] > 1:
        x = ZeroPaddedFrames()(x, num_frames)
    if stride == (1, 1):
        return make_conv(kernel_size=kernel, strides=stride, padding="same")(x), num_frames

    bins = x.shape[2]
    before, after = (kernel[0] - 1) // 2, kernel[0] // 2
    x = keras.layers.ZeroPadding2D(((before, after), _same_zeros(bins, kernel[1], stride[1])))(x)
    x = make_conv(kernel_size=kernel, strides=stride, padding="valid")(x)
    return x, (num_frames + (stride[0] - 1)) // stride[0]


def causal_conv(
    make_conv: Callable[..., keras.layers.Layer],
    x: keras.KerasTensor,
    num_frames: keras.KerasTensor | None,
    *,
    kernel_size: Sequence[int],
    strides: Sequence[int] = (1, 1),
    dilation: int = 1,
) -> tuple[keras.KerasTensor, keras.KerasTensor | None]:
    """`same_conv` that pads the frames on the past only, and makes frames // stride of them.

    Output j ends with frame (j + 1) * stride - 1, as early as a stream has it (`kws_models.streaming`).
    """
    kernel, stride = tuple(kernel_size), tuple(strides)
    before = (kernel[0] - 1) * dilation + 1 - stride[0]
    # So that a batch of clips that are all shorter than the stride still makes a frame, which none of them counts
    after = 0 if num_frames is None else stride[0] - 1
    zeros = ((max(before, 0), after), _same_zeros(x.shape[2], kernel[1], stride[1]))
    if zeros != ((0, 0), (0, 0)):
        x = keras.layers.ZeroPadding2D(zeros)(x)
    if before < 0:
        x = keras.layers.Cropping2D(((-before, 0), (0, 0)))(x)
    x = make_conv(kernel_size=kernel, strides=stride, padding="valid", dilation_rate=(dilation, 1))(x)
    return x, None if num_frames is None else num_frames // stride[0]


def _same_zeros(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Before and after, as "same" puts them."""
    zeros = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return zeros // 2, zeros - zeros // 2


def batch_norm(x: keras.KerasTensor, num_frames: keras.KerasTensor | None, **arguments: Any) -> keras.KerasTensor:
    """Batch normalisation over all axes but the last, whose training statistics leave padding out."""
    if num_frames is None:
        return BatchNormalization(**arguments)(x)
    return MaskedBatchNormalization(**arguments)(x, num_frames)


def average_pool(
    x: keras.KerasTensor, num_frames: keras.KerasTensor | None, *, pool_size: Sequence[int]
) -> tuple[keras.KerasTensor, keras.KerasTensor | None]:
    """Averages over windows side by side, and how many of them hold no padding.

    [batch, frames, bins, channels] → [batch, frames // pool, bins // pool, channels]; what is left over at the ends,
    less than a window, is dropped.
    """
    pool = tuple(pool_size)
    if num_frames is None:
        return keras.layers.AveragePooling2D(pool)(x), None
    # A batch of clips that are all shorter than a window still makes one window, which none of them counts.
    x = keras.layers.ZeroPadding2D(((0, pool[0] - 1), (0, 0)))(x)
    return keras.layers.AveragePooling2D(pool)(x), num_frames // pool[0]


def global_average_pool(x: keras.KerasTensor, num_frames: keras.KerasTensor | None) -> keras.KerasTensor:
    """[batch, frames, bins, channels] → [batch, channels], over the frames that are not padding."""
    if num_frames is None:
        return keras.layers.GlobalAveragePooling2D()(x)
    return MaskedGlobalAveragePooling2D()(x, num_frames)
