"""A network made for streams: depthwise convolutions over the frames with kernels of several lengths side by side."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import keras
from keras.layers import Concatenate, Conv2D, Dense, DepthwiseConv2D, Dropout, ReLU, Reshape

from kws_models.inputs import check_parameters, check_size, feature_inputs
from kws_models.masking import batch_norm, causal_conv, global_average_pool


def mixconv(
    input_shape: Sequence[int | None],
    num_labels: int,
    *,
    first_filters: int = 32,
    first_kernel: int = 5,
    first_stride: int = 3,
    filters: int = 64,
    block_kernels: Sequence[Sequence[int]] = ((5,), (7, 11), (9, 15), (23,)),
    dropout_rate: float = 0.0,
    batch_norm_momentum: float = 0.9,
) -> keras.Model:
    """A strided convolution, blocks of mixed depthwise and pointwise convolutions, average pooling and a dense layer.

    [batch, frames, bins] float32 of any size → logits [batch, num_labels] float32. With frames None the input is the
    dict `features` [batch, frames, bins], `num_frames` [batch] int32, and a clip's logits do not depend on its padding.

    The bins are channels. A block divides the channels into as many groups as it has kernels; each group has its own
    kernel (MixConv, arXiv:1907.09595). All frames depend on the past only: `kws_models.streaming` runs it on a stream,
    where the pooling is the mean of the last clip's length.

    Args:
        input_shape: (frames or None, bins); needs `first_stride` frames.
        num_labels: how many logits.
        first_filters: channels of the convolution before the blocks.
        first_kernel: how many frames it sees.
        first_stride: of how many frames it keeps one.
        filters: channels of each block.
        block_kernels: for each block, how many frames its groups see.
        dropout_rate: before the last layer.
        batch_norm_momentum: of the running mean and variance.

    Raises:
        ValueError: no bins, too few frames, or a parameter is out of range.
    """
    check_parameters(
        at_least_one={
            "num_labels": num_labels,
            "first_filters": first_filters,
            "first_kernel": first_kernel,
            "first_stride": first_stride,
            "filters": filters,
        },
        rates={"dropout_rate": dropout_rate, "batch_norm_momentum": batch_norm_momentum},
    )
    if not isinstance(block_kernels, Sequence) or not block_kernels:
        raise ValueError(f"block_kernels: must be a list of lists, one for each block, got {block_kernels!r}")
    for block, kernels in enumerate(block_kernels):
        check_parameters(at_least_one={}, lists={f"block_kernels: block {block + 1}": (kernels, 1)})
    groups = [len(kernels) for kernels in block_kernels]
    for name, channels, most in (
        ("first_filters", first_filters, groups[0]),
        ("filters", filters, max(groups[1:], default=1)),
    ):
        if channels < most:
            raise ValueError(f"{name}: a block has {most} kernels, each with a channel or more; got {channels}")
    frames, bins = check_size(input_shape, "mixconv", min_frames=first_stride)

    inputs, features, num_frames = feature_inputs(input_shape)

    def normalised(x: keras.KerasTensor) -> keras.KerasTensor:
        return ReLU()(batch_norm(x, num_frames, momentum=batch_norm_momentum))

    def convolution(**arguments: object) -> Conv2D:
        return Conv2D(first_filters, use_bias=False, **arguments)

    x = Reshape((-1 if frames is None else frames, 1, bins))(features)
    x, num_frames = causal_conv(convolution, x, num_frames, kernel_size=(first_kernel, 1), strides=(first_stride, 1))
    x = normalised(x)
    for kernels in block_kernels:
        x = normalised(Conv2D(filters, 1, use_bias=False)(_mixed(x, kernels)))
    x = Dropout(dropout_rate)(global_average_pool(x, num_frames))
    logits = Dense(num_labels, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="mixconv")


def _mixed(x: keras.KerasTensor, kernels: Sequence[int]) -> keras.KerasTensor:
    """Depthwise convolutions of equal groups of channels, each with its kernel."""
    ends = [x.shape[-1] * group // len(kernels) for group in range(len(kernels) + 1)]
    groups = [x[..., start:end] for start, end in pairwise(ends)] if len(kernels) > 1 else [x]
    depthwise = partial(DepthwiseConv2D, use_bias=False)  # the batch normalisation has one
    # Without lengths: padding behind a clip does not reach the frames before it
    mixed = [
        causal_conv(depthwise, group, None, kernel_size=(kernel, 1))[0]
        for group, kernel in zip(groups, kernels, strict=True)
    ]
    return Concatenate()(mixed) if len(mixed) > 1 else mixed[0]
