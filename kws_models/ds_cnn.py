"""Depthwise-separable CNN of 'Hello Edge: Keyword Spotting on Microcontrollers', arXiv:1711.07128."""

from collections.abc import Sequence
from functools import partial

import keras
from keras.layers import Conv2D, Dense, DepthwiseConv2D, Dropout, ReLU
from keras.regularizers import L2

from kws_models.inputs import check_parameters, check_size, feature_image, feature_inputs, pair
from kws_models.masking import batch_norm, causal_conv, global_average_pool, same_conv


def ds_cnn(
    input_shape: Sequence[int | None],
    num_labels: int,
    *,
    filters: int = 64,
    num_blocks: int = 4,
    first_kernel: Sequence[int] = (10, 4),
    first_strides: Sequence[int] = (2, 2),
    block_strides: Sequence[int] = (1, 1),
    input_dropout_rate: float = 0.0,
    dropout_rate: float = 0.0,
    weight_decay: float = 0.0,
    batch_norm_momentum: float = 0.96,
    causal: bool = False,
) -> keras.Model:
    """A strided convolution, depthwise-separable blocks, global average pooling and one dense layer.

    [batch, frames, bins] float32 of any size → logits [batch, num_labels] float32. With frames None the input is the
    dict `features` [batch, frames, bins], `num_frames` [batch] int32, and a clip's logits do not depend on its padding.

    Hello Edge's three sizes, at 12 labels. The folded count, each batch normalisation (4 values a channel) folded into
    a bias (1 a channel), is the paper's: with the two largest successive feature maps at 49 × 10 it adds up to the
    memory that the paper reports, one byte a value. Accuracy: 12 classes of v0.01.

    | | parameters | folded | paper's memory | paper's accuracy | arguments |
    | --- | --- | --- | --- | --- | --- |
    | S | 24,332 | 22,604 | 38.6 KB | 94.4 % | the defaults |
    | M | 139,676 | 135,032 | 189.2 KB | 94.9 % | filters=172, first_strides=(2, 1), block_strides=(2, 2) |
    | L | 419,808 | 410,700 | 497.6 KB | 95.4 % | as M with filters=276, num_blocks=5 |

    The paper's own code (ARM-software/ML-KWS-for-MCU, models.py and train_commands.txt) has neither dropout nor weight
    decay, and a batch-norm momentum of 0.96: the defaults. One difference: that code's batch normalisation has no scale
    (gamma), here it has; the folded count is the same.

    MLPerf Tiny's reference (mlcommons/tiny, keyword_spotting/keras_model.py) is S with input_dropout_rate=0.2,
    dropout_rate=0.4, weight_decay=1e-4, batch_norm_momentum=0.99. Differences: its nine convolutions have biases before
    the batch normalisation, which takes them out again (24,908 parameters, 576 more); its pooling leaves the last of
    the 25 frames out; its depthwise kernels are not decayed (Keras 2 ignored the argument it was given).

    Args:
        input_shape: (frames or None, bins).
        num_labels: how many logits.
        filters: channels of every layer.
        num_blocks: depthwise-separable blocks.
        first_kernel: frames and bins of the first convolution's kernel.
        first_strides: its strides.
        block_strides: strides of the first block, the same on both axes (DS-CNN M and L have 2 × 2).
        input_dropout_rate: after the first convolution.
        dropout_rate: before the pooling.
        weight_decay: L2 factor on the kernels of all convolutions.
        batch_norm_momentum: of the running mean and variance.
        causal: pad the frames on the past only, so that the network can run on a stream (`kws_models.streaming`).

    Raises:
        ValueError: no bins or frames, or a parameter is out of range.
    """
    check_parameters(
        at_least_one={"num_labels": num_labels, "filters": filters, "num_blocks": num_blocks},
        rates={
            "input_dropout_rate": input_dropout_rate,
            "dropout_rate": dropout_rate,
            "batch_norm_momentum": batch_norm_momentum,
        },
        numbers={"weight_decay": (weight_decay, 0)},
        flags={"causal": causal},
    )
    first_kernel, first_strides = pair("first_kernel", first_kernel), pair("first_strides", first_strides)
    block_strides = pair("block_strides", block_strides)
    if block_strides[0] != block_strides[1]:
        raise ValueError(f"block_strides: a depthwise convolution has one stride for both axes, got {block_strides}")
    check_size(input_shape, "ds_cnn", min_frames=first_strides[0] * block_strides[0] if causal else 1)

    regularizer = L2(weight_decay) if weight_decay else None
    # No biases: the batch normalisation that follows each convolution has its own.
    convolution = partial(Conv2D, filters, use_bias=False, kernel_regularizer=regularizer)
    depthwise = partial(DepthwiseConv2D, use_bias=False, depthwise_regularizer=regularizer)
    padded = causal_conv if causal else same_conv

    inputs, features, num_frames = feature_inputs(input_shape)
    x = feature_image(features)
    x, num_frames = padded(convolution, x, num_frames, kernel_size=first_kernel, strides=first_strides)
    x = ReLU()(batch_norm(x, num_frames, momentum=batch_norm_momentum))
    x = Dropout(input_dropout_rate)(x)
    for block in range(num_blocks):
        strides = block_strides if block == 0 else (1, 1)
        x, num_frames = padded(depthwise, x, num_frames, kernel_size=(3, 3), strides=strides)
        x = ReLU()(batch_norm(x, num_frames, momentum=batch_norm_momentum))
        x, num_frames = padded(convolution, x, num_frames, kernel_size=(1, 1))
        x = ReLU()(batch_norm(x, num_frames, momentum=batch_norm_momentum))
    x = Dropout(dropout_rate)(x)
    x = global_average_pool(x, num_frames)
    logits = Dense(num_labels, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="ds_cnn")
