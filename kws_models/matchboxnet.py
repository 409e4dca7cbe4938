"""MatchboxNet, 1-D time-channel separable convolutions in residual blocks, arXiv:2004.08531."""

from collections.abc import Sequence
from functools import partial

import keras
from keras.layers import Add, Conv2D, Dense, DepthwiseConv2D, Dropout, ReLU, Reshape

from kws_models.inputs import check_parameters, check_size, feature_inputs
from kws_models.masking import batch_norm, causal_conv, global_average_pool, same_conv


def matchboxnet(
    input_shape: Sequence[int | None],
    num_labels: int,
    *,
    filters: int = 64,
    repeats: int = 1,
    block_kernels: Sequence[int] = (13, 15, 17),
    outer_filters: int = 128,
    first_kernel: int = 11,
    last_kernel: int = 29,
    last_dilation: int = 2,
    dropout_rate: float = 0.0,
    batch_norm_momentum: float = 0.9,
    causal: bool = False,
) -> keras.Model:
    """Separable convolutions over the frames, the bins taken as channels, then average pooling and a dense layer.

    [batch, frames, bins] float32 of any size → logits [batch, num_labels] float32. With frames None the input is the
    dict `features` [batch, frames, bins], `num_frames` [batch] int32, and a clip's logits do not depend on its padding.

    MatchboxNet-B×R×C has B blocks (`block_kernels`) of R separable convolutions (`repeats`) with C channels
    (`filters`). The settings are those of NeMo (examples/asr/conf/matchboxnet). The trained parameters on 64 MFCC at 30
    labels are that code's, and round to the paper's; `count_params` adds the running statistics, 2 values for each
    batch-normalised channel. Accuracy: the paper's, on v0.01's 30 words.

    | | trained | paper | accuracy |
    | --- | --- | --- | --- |
    | 3×1×64 | 77,214 | 77 k | 97.2 % |
    | 3×2×64 | 92,766 | 93 k | 97.5 % |

    One difference: NeMo pads one second's 101 frames with zeros to 128, and averages over all of these.

    Args:
        input_shape: (frames or None, bins).
        num_labels: how many logits.
        filters: channels of the blocks.
        repeats: separable convolutions in each block.
        block_kernels: how many frames the convolutions of each block see.
        outer_filters: channels of the convolutions before and after the blocks.
        first_kernel: how many frames the convolution before the blocks sees.
        last_kernel: how many frames the first of the two convolutions after the blocks sees; the other sees one.
        last_dilation: how many frames these are apart.
        dropout_rate: after each ReLU.
        batch_norm_momentum: of the running mean and variance.
        causal: pad the frames on the past only, so that the network can run on a stream (`kws_models.streaming`).

    Raises:
        ValueError: no bins or frames, or a parameter is out of range.
    """
    frames, bins = check_size(input_shape, "matchboxnet")
    check_parameters(
        at_least_one={
            "num_labels": num_labels,
            "filters": filters,
            "repeats": repeats,
            "outer_filters": outer_filters,
            "first_kernel": first_kernel,
            "last_kernel": last_kernel,
            "last_dilation": last_dilation,
        },
        rates={"dropout_rate": dropout_rate, "batch_norm_momentum": batch_norm_momentum},
        lists={"block_kernels": (block_kernels, 1)},
        flags={"causal": causal},
    )
    padded = causal_conv if causal else same_conv

    inputs, features, num_frames = feature_inputs(input_shape)

    def pointwise(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
        x = Conv2D(channels, 1, use_bias=False)(x)
        return batch_norm(x, num_frames, momentum=batch_norm_momentum, epsilon=1e-3)

    def separable(x: keras.KerasTensor, channels: int, kernel: int, dilation: int = 1) -> keras.KerasTensor:
        # Frames stay the first axis: from 13 positions along the second on, TensorFlow 2.16's op kills the process.
        depthwise = partial(DepthwiseConv2D, use_bias=False)
        x, _ = padded(depthwise, x, num_frames, kernel_size=(kernel, 1), dilation=dilation)
        return pointwise(x, channels)

    def activate(x: keras.KerasTensor) -> keras.KerasTensor:
        return Dropout(dropout_rate)(ReLU()(x))

    x = Reshape((-1 if frames is None else frames, 1, bins))(features)
    x = activate(separable(x, outer_filters, first_kernel))
    for kernel in block_kernels:
        shortcut = pointwise(x, filters)
        for _ in range(repeats - 1):
            x = activate(separable(x, filters, kernel))
        x = activate(Add()([separable(x, filters, kernel), shortcut]))
    x = activate(separable(x, outer_filters, last_kernel, last_dilation))
    x = activate(pointwise(x, outer_filters))
    x = global_average_pool(x, num_frames)
    logits = Dense(num_labels, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="matchboxnet")
