"""BC-ResNet of 'Broadcasted Residual Learning for Efficient Keyword Spotting', arXiv:2106.04140."""

from collections.abc import Sequence
from typing import Any

import keras
from keras.initializers import RandomUniform
from keras.layers import (
    Activation,
    Add,
    AveragePooling2D,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    ReLU,
    SpatialDropout2D,
    ZeroPadding2D,
)

from kws_models.inputs import check_parameters, check_size, feature_image, feature_inputs
from kws_models.masking import ZeroPaddedFrames, batch_norm, causal_conv, global_average_pool, same_conv
from kws_models.sub_spectral import most_sub_bands, sub_spectral_norm

# Blocks, channels as a multiple of 8 tau, whether the first block halves the bins, dilation along the frames.
_STAGES = ((2, 1.0, False, 1), (2, 1.5, True, 2), (4, 2.0, True, 4), (4, 2.5, False, 8))
# PyTorch's 1e-5, as near as TensorFlow's fused batch normalisation allows.
_EPSILON = 1.001e-5


def bc_resnet(
    input_shape: Sequence[int | None],
    num_labels: int,
    *,
    tau: float = 1.0,
    sub_bands: int = 5,
    dropout_rate: float = 0.1,
    batch_norm_momentum: float = 0.9,
    causal: bool = False,
) -> keras.Model:
    """Residual blocks whose second half works on the mean over the bins and is broadcast back to all of them.

    [batch, frames, bins] float32 of any size → logits [batch, num_labels] float32. With frames None the input is the
    dict `features` [batch, frames, bins], `num_frames` [batch] int32, and a clip's logits do not depend on its padding.

    At 40 bins the network is the authors' code (Qualcomm-AI-research/bcresnet) layer by layer, and has its trained
    parameters (at 12 labels; the batch norms' running statistics, 2 values a channel, are not counted there).
    Multiply-adds and accuracy: the paper's, for 12 classes.

    | tau | trained | multiply-adds | v0.01 | v0.02 |
    | --- | --- | --- | --- | --- |
    | 1 | 9,232 | 3.1 M | 96.6 % | 96.9 % |
    | 1.5 | 17,154 | 5.5 M | 97.2 % | 97.6 % |
    | 2 | 27,284 | 8.5 M | 97.3 % | 97.8 % |
    | 3 | 54,168 | 16.2 M | 97.6 % | 98.2 % |
    | 6 | 187,812 | 53.1 M | 97.9 % | 98.6 % |
    | 8 | 321,068 | 89.1 M | 98.0 % | 98.7 % |

    `kws models` counts fewer multiply-adds: those of convolutions and the last layer, at 98 frames. What is missing
    grows in proportion to tau, as elementwise work does (about 0.5 M for tau 1).

    That code takes 40 bins only; here every feature map is cut into as many equal sub-bands, up to `sub_bands`, as its
    bins allow, and the last depthwise kernel is no larger than its map. One difference: the last layer's weights start
    from Keras's Glorot initialiser and a bias of zero, there from PyTorch's.

    Args:
        input_shape: (frames or None, bins).
        num_labels: how many logits.
        tau: the width.
        sub_bands: of the sub-spectral normalisation.
        dropout_rate: of whole channels, at the end of each block's second half.
        batch_norm_momentum: of the running mean and variance.
        causal: pad the frames on the past only, so that the network can run on a stream (`kws_models.streaming`).

    Raises:
        ValueError: no bins or frames, or a parameter is out of range.
    """
    check_size(input_shape, "bc_resnet")
    check_parameters(
        at_least_one={"num_labels": num_labels, "sub_bands": sub_bands},
        rates={"dropout_rate": dropout_rate, "batch_norm_momentum": batch_norm_momentum},
        numbers={"tau": (tau, 1 / 8)},  # one channel
        flags={"causal": causal},
    )
    width = int(8 * tau)
    norm_arguments = {"momentum": batch_norm_momentum, "epsilon": _EPSILON}

    inputs, features, num_frames = feature_inputs(input_shape)

    def norm(x: keras.KerasTensor) -> keras.KerasTensor:
        return batch_norm(x, num_frames, **norm_arguments)

    padded, around = (causal_conv, (4, 0)) if causal else (same_conv, (2, 2))
    x = _zero_padded(feature_image(features), num_frames, frames=around, bins=2)
    x = _conv(x, 2 * width, kernel_size=5, strides=(1, 2))
    x = ReLU()(norm(x))
    for num_blocks, multiple, halve_bins, dilation in _STAGES:
        channels = int(width * multiple)
        for block in range(num_blocks):
            shortcuts = [] if block == 0 else [x]
            if block == 0:
                x = ReLU()(norm(_conv(x, channels)))
            x = _depthwise((1, 3), padding="same")(x)
            if block == 0 and halve_bins:
                # Every second bin. A stride would do, but TensorFlow's depthwise convolution has one for both axes.
                x = AveragePooling2D(1, strides=(1, 2))(x)
            x = sub_spectral_norm(x, num_frames, most_sub_bands(x.shape[2], sub_bands), **norm_arguments)

            y = keras.ops.mean(x, axis=2, keepdims=True)
            y, _ = padded(_depthwise, y, num_frames, kernel_size=(3, 1), dilation=dilation)
            y = Activation("silu")(norm(y))
            y = SpatialDropout2D(dropout_rate)(_conv(y, channels))
            x = ReLU()(Add()([x, *shortcuts, y]))

    x = _zero_padded(x, num_frames, frames=around, bins=0)
    x = _depthwise((5, min(5, x.shape[2])))(x)
    x = ReLU()(norm(_conv(x, 4 * width)))
    x = global_average_pool(x, num_frames)
    logits = Dense(num_labels, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="bc_resnet")


def _zero_padded(
    x: keras.KerasTensor, num_frames: keras.KerasTensor | None, *, frames: tuple[int, int], bins: int
) -> keras.KerasTensor:
    """Zeros before and after the frames, on both sides of the bins, and in the frames that are padding.

    "same" would put the zeros of a strided convolution elsewhere: PyTorch puts as many before as after.
    """
    if num_frames is not None:
        x = ZeroPaddedFrames()(x, num_frames)
    return ZeroPadding2D((frames, (bins, bins)))(x)


def _conv(x: keras.KerasTensor, filters: int, kernel_size: int = 1, **arguments: Any) -> keras.KerasTensor:
    initializer = _initializer(x.shape[-1] * kernel_size**2)
    return Conv2D(filters, kernel_size, use_bias=False, kernel_initializer=initializer, **arguments)(x)


def _depthwise(kernel_size: Sequence[int], **arguments: Any) -> DepthwiseConv2D:
    initializer = _initializer(kernel_size[0] * kernel_size[1])
    return DepthwiseConv2D(kernel_size, use_bias=False, depthwise_initializer=initializer, **arguments)


def _initializer(fan_in: int) -> RandomUniform:
    """PyTorch's; Keras's would start depthwise kernels smaller the more channels there are."""
    return RandomUniform(-(fan_in**-0.5), fan_in**-0.5)
