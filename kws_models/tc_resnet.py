"""Residual networks over time, of 'Temporal Convolution for Real-time Keyword Spotting on Mobile Devices'."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import keras
from keras.layers import Add, Conv2D, Dense, Dropout, ReLU, Reshape
from keras.regularizers import L2

from kws_models.inputs import check_parameters, check_size, feature_inputs
from kws_models.masking import batch_norm, causal_conv, global_average_pool, same_conv


def tc_resnet(
    input_shape: Sequence[int | None],
    num_labels: int,
    *,
    channels: Sequence[int] = (16, 24, 32, 48),
    width_multiplier: float = 1.0,
    first_kernel_frames: int = 3,
    kernel_frames: int = 9,
    dropout_rate: float = 0.5,
    weight_decay: float = 5e-4,
    batch_norm_momentum: float = 0.997,
    causal: bool = False,
) -> keras.Model:
    """Residual blocks of convolutions over time, the bins taken as channels, then average pooling and a dense layer.

    [batch, frames, bins] float32 of any size → logits [batch, num_labels] float32. With frames None the input is the
    dict `features` [batch, frames, bins], `num_frames` [batch] int32, and a clip's logits do not depend on its padding.

    arXiv:1904.03814, with the settings of its code (hyperconnect/TC-ResNet, audio_nets/tc_resnet.py). Parameters at 40
    bins and 12 labels are that code's without its unused second head, and round to the paper's: 4 values for each
    batch-normalised channel, no bias anywhere. Accuracy: the paper's, 12 classes of v0.01, on 98 × 40 MFCC.

    | | parameters | paper | accuracy | channels | width_multiplier |
    | --- | --- | --- | --- | --- | --- |
    | tc_resnet8 | 65,824 | 66 k | 96.1 % | the default | 1.0 |
    | tc_resnet8_1_5 | 145,248 | 145 k | 96.2 % | the default | 1.5 |
    | tc_resnet14 | 136,928 | 137 k | 96.2 % | (16, 24, 24, 32, 32, 48, 48) | 1.0 |
    | tc_resnet14_1_5 | 304,608 | 305 k | 96.6 % | (16, 24, 24, 32, 32, 48, 48) | 1.5 |

    That code's weight decay of 0.001 halves the squares, Keras's L2 does not: 5e-4 here is the same. Its batch-norm
    momentum is made for its 30,000 steps: with some hundred steps the running statistics are still the initial ones,
    and 0.99 or less serves better. With frames None a strided convolution before an even number of frames sees one
    frame earlier than with frames given (`same_conv` says why).

    Args:
        input_shape: (frames or None, bins).
        num_labels: how many logits.
        channels: of the first convolution, then of each block. A block that changes them has stride 2.
        width_multiplier: of all channels, rounded down.
        first_kernel_frames: how many frames the first convolution sees.
        kernel_frames: how many frames the blocks' convolutions see.
        dropout_rate: before the last layer.
        weight_decay: L2 factor on all kernels.
        batch_norm_momentum: of the running mean and variance.
        causal: pad the frames on the past only, so that the network can run on a stream (`kws_models.streaming`).

    Raises:
        ValueError: no bins or frames, or a parameter is out of range.
    """
    check_parameters(
        at_least_one={
            "num_labels": num_labels,
            "first_kernel_frames": first_kernel_frames,
            "kernel_frames": kernel_frames,
        },
        rates={"dropout_rate": dropout_rate, "batch_norm_momentum": batch_norm_momentum},
        lists={"channels": (channels, 2)},
        numbers={"width_multiplier": (width_multiplier, 0), "weight_decay": (weight_decay, 0)},
        flags={"causal": causal},
    )
    first_channels, *block_channels = (int(count * width_multiplier) for count in channels)
    if min(first_channels, *block_channels) < 1:
        raise ValueError(f"width_multiplier: leaves no channels of {min(channels)}, got {width_multiplier}")
    strided = sum(before != after for before, after in pairwise([first_channels, *block_channels]))
    frames, bins = check_size(input_shape, "tc_resnet", min_frames=2**strided if causal else 1)

    regularizer = L2(weight_decay) if weight_decay else None
    convolution = partial(Conv2D, use_bias=False, kernel_regularizer=regularizer)
    norm = partial(batch_norm, momentum=batch_norm_momentum)
    padded = causal_conv if causal else same_conv
    block_kernel = (kernel_frames, 1)

    inputs, features, num_frames = feature_inputs(input_shape)
    x = Reshape((-1 if frames is None else frames, 1, bins))(features)
    x, num_frames = padded(partial(convolution, first_channels), x, num_frames, kernel_size=(first_kernel_frames, 1))
    x = ReLU()(norm(x, num_frames))
    for count in block_channels:
        block_convolution, shortcut, strides = partial(convolution, count), x, (1, 1)
        if count != x.shape[-1]:
            strides = (2, 1)
            shortcut, short = padded(block_convolution, x, num_frames, kernel_size=(1, 1), strides=strides)
            shortcut = ReLU()(norm(shortcut, short))
        x, num_frames = padded(block_convolution, x, num_frames, kernel_size=block_kernel, strides=strides)
        x = ReLU()(norm(x, num_frames))
        x, num_frames = padded(block_convolution, x, num_frames, kernel_size=block_kernel)
        x = ReLU()(Add()([norm(x, num_frames), shortcut]))
    x = Dropout(dropout_rate)(global_average_pool(x, num_frames))
    logits = Dense(num_labels, use_bias=False, kernel_regularizer=regularizer, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="tc_resnet")
