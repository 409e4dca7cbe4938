"""The small CNN of TensorFlow's 'Simple audio recognition' tutorial."""

from collections.abc import Sequence

import keras
from keras.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D, Normalization, Resizing

from kws_models.inputs import check_fixed_size, check_parameters, feature_image, feature_inputs, pair, smallest_input


def simple_audio(
    input_shape: Sequence[int | None],
    num_labels: int,
    *,
    image_size: Sequence[int] = (32, 32),
    conv_dropout_rate: float = 0.25,
    dense_dropout_rate: float = 0.5,
) -> keras.Model:
    """The spectrogram resized to a square image and normalised, two convolutions, a pooling and two dense layers.

    [batch, frames, bins] float32 of any size → logits [batch, num_labels] float32. 1,625,611 parameters at 8 labels,
    3 of them the mean, variance and count of the normalisation, which `kws_models.layers.adapt_normalization` sets
    before the training (until then it passes its input through). The tutorial reports 83 to 84 % on the mini data set.
    Source: tensorflow.org/tutorials/audio/simple_audio.

    Args:
        input_shape: (frames, bins).
        num_labels: how many logits.
        image_size: frames and bins after resizing (bilinear).
        conv_dropout_rate: after the pooling.
        dense_dropout_rate: before the last layer.

    Raises:
        ValueError: frames is None, or a parameter is out of range.
    """
    check_fixed_size(input_shape, "simple_audio")
    check_parameters(
        at_least_one={"num_labels": num_labels},
        rates={"conv_dropout_rate": conv_dropout_rate, "dense_dropout_rate": dense_dropout_rate},
    )
    smallest = smallest_input([(3, 1), (3, 1), (2, 2)])
    height, width = pair("image_size", image_size)
    if min(height, width) < smallest:
        raise ValueError(f"image_size: must be at least {smallest} x {smallest}, got {height} x {width}")

    inputs, features, _ = feature_inputs(input_shape)
    x = feature_image(features)
    x = Resizing(height, width)(x)
    x = Normalization()(x)
    x = Conv2D(32, 3, activation="relu")(x)
    x = Conv2D(64, 3, activation="relu")(x)
    x = MaxPooling2D()(x)
    x = Dropout(conv_dropout_rate)(x)
    x = Flatten()(x)
    x = Dense(128, activation="relu")(x)
    x = Dropout(dense_dropout_rate)(x)
    logits = Dense(num_labels, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="simple_audio")
