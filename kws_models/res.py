"""Residual networks of 'Deep Residual Learning for Small-Footprint Keyword Spotting', arXiv:1710.10361."""

from collections.abc import Sequence
from functools import partial

import keras
from keras.layers import Add, Conv2D, Dense, ReLU

from kws_models.inputs import check_parameters, check_size, feature_image, feature_inputs, pair
from kws_models.masking import average_pool, batch_norm, global_average_pool, same_conv

# PyTorch's 1e-5, as near as TensorFlow's fused batch normalisation allows.
_EPSILON = 1.001e-5


def res(
    input_shape: Sequence[int | None],
    num_labels: int,
    *,
    filters: int = 45,
    num_layers: int = 6,
    pool_size: Sequence[int] = (4, 3),
    dilated: bool = False,
    batch_norm_momentum: float = 0.9,
) -> keras.Model:
    """3 × 3 convolutions of one width with a shortcut around every two, global average pooling and one dense layer.

    [batch, frames, bins] float32 of at least `pool_size` → logits [batch, num_labels] float32. With frames None the
    input is the dict `features` [batch, frames, bins], `num_frames` [batch] int32, and a clip's logits do not depend on
    its padding; those of a clip shorter than one pooling window are the bias.

    Each convolution is followed by ReLU, then by a batch normalisation without scale and shift; the shortcut is added
    between the two and goes on un-normalised, as in the authors' code (castorini/honk, utils/model.py). The trained
    parameters at 12 labels are that code's, and with them the paper's (the batch norms' running statistics, 2 values a
    channel, are not counted there). Accuracy: the paper's, 12 classes of v0.01, on 101 × 40 MFCC.

    | | trained | paper | accuracy | filters, num_layers, pool_size, dilated |
    | --- | --- | --- | --- | --- |
    | res8 | 110,307 | 110 k | 94.1 % | the defaults |
    | res15 | 237,882 | 238 k | 95.8 % | 45, 13, (1, 1), True |
    | res26 | 438,357 | 438 k | 95.2 % | 45, 24, (2, 2), False |
    | res8_narrow | 19,905 | 19.9 k | 90.1 % | 19, 6, (4, 3), False |
    | res15_narrow | 42,648 | 42.6 k | 94.0 % | 19, 13, (1, 1), True |
    | res26_narrow | 78,387 | 78.4 k | 93.3 % | 19, 24, (2, 2), False |

    One difference: convolutions start from Keras's Glorot initialiser, there from PyTorch's. There the weight decay of
    1e-5 is the optimizer's. Since the last layer is normalised without scale or shift, one clip alone in a training
    batch pools to zeros: train with batches.

    Args:
        input_shape: (frames or None, bins).
        num_labels: how many logits.
        filters: channels of every convolution.
        num_layers: convolutions after the first; with an odd number the last has no shortcut.
        pool_size: frames and bins of the average pooling after the first convolution; (1, 1) for none.
        dilated: convolution i of `num_layers`, counted from 0, looks at frames and bins 2 ** (i // 3) apart.
        batch_norm_momentum: of the running mean and variance.

    Raises:
        ValueError: fewer frames or bins than one pooling window, or a parameter is out of range.
    """
    pool_size = pair("pool_size", pool_size)
    check_size(input_shape, "res", min_frames=pool_size[0], min_bins=pool_size[1])
    check_parameters(
        at_least_one={"num_labels": num_labels, "filters": filters, "num_layers": num_layers},
        rates={"batch_norm_momentum": batch_norm_momentum},
        flags={"dilated": dilated},
    )
    norm = partial(batch_norm, momentum=batch_norm_momentum, epsilon=_EPSILON, center=False, scale=False)

    inputs, features, num_frames = feature_inputs(input_shape)
    x = feature_image(features)
    x, num_frames = same_conv(partial(Conv2D, filters, use_bias=False), x, num_frames, kernel_size=(3, 3))
    x = ReLU()(x)
    if pool_size != (1, 1):
        x, num_frames = average_pool(x, num_frames, pool_size=pool_size)
    shortcut = x
    for layer in range(num_layers):
        convolution = partial(Conv2D, filters, use_bias=False, dilation_rate=2 ** (layer // 3) if dilated else 1)
        x, num_frames = same_conv(convolution, x, num_frames, kernel_size=(3, 3))
        x = ReLU()(x)
        if layer % 2 == 1:
            x = shortcut = Add()([x, shortcut])
        x = norm(x, num_frames)
    x = global_average_pool(x, num_frames)
    logits = Dense(num_labels, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="res")
