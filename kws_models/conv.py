"""The two convolutional networks of TensorFlow's speech_commands example, after Sainath & Parada 2015.

Source: tensorflow/examples/speech_commands/models.py (create_conv_model, create_low_latency_conv_model); the networks
are `cnn-trad-fpool3` and `cnn-one-fstride4` of 'Convolutional Neural Networks for Small-footprint Keyword Spotting',
Interspeech 2015, as far as the example follows them. All weights start from the example's truncated normal of standard
deviation 0.01, all biases from zero.
"""

from collections.abc import Sequence

import keras
from keras.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D

from kws_models.inputs import check_fixed_size, check_parameters, feature_image, feature_inputs


def _initializer() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.01)


def conv(input_shape: Sequence[int | None], num_labels: int, *, dropout_rate: float = 0.5) -> keras.Model:
    """Two convolutions with a pooling between, and a linear layer over the whole map.

    [batch, frames, bins] float32 → logits [batch, num_labels] float32. 926,860 parameters at 98 × 40 and 12 labels,
    equal to the example's; 85.4 % (v0.01) and 88.2 % (v0.02) of 12 classes, arXiv:1804.03209.

    Source: create_conv_model of tensorflow/examples/speech_commands/models.py.

    Raises:
        ValueError: frames is None, or a parameter is out of range.
    """
    check_fixed_size(input_shape, "conv")
    check_parameters(at_least_one={"num_labels": num_labels}, rates={"dropout_rate": dropout_rate})
    inputs, features, _ = feature_inputs(input_shape)
    x = feature_image(features)
    x = Conv2D(64, (20, 8), padding="same", activation="relu", kernel_initializer=_initializer())(x)
    x = Dropout(dropout_rate)(x)
    x = MaxPooling2D(2, padding="same")(x)
    x = Conv2D(64, (10, 4), padding="same", activation="relu", kernel_initializer=_initializer())(x)
    x = Dropout(dropout_rate)(x)
    x = Flatten()(x)
    logits = Dense(num_labels, kernel_initializer=_initializer(), dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="conv")


def low_latency_conv(input_shape: Sequence[int | None], num_labels: int, *, dropout_rate: float = 0.5) -> keras.Model:
    """One convolution as tall as the clip, then three linear layers (the example has no non-linearity between them).

    [batch, frames, bins] float32 → logits [batch, num_labels] float32. 949,862 parameters at 98 × 40 and 12 labels,
    equal to the example's.

    Source: create_low_latency_conv_model of tensorflow/examples/speech_commands/models.py.

    Raises:
        ValueError: frames is None, fewer than 8 bins, or a parameter is out of range.
    """
    kernel_bins = 8
    frames, _ = check_fixed_size(input_shape, "low_latency_conv", min_bins=kernel_bins)
    check_parameters(at_least_one={"num_labels": num_labels}, rates={"dropout_rate": dropout_rate})
    inputs, features, _ = feature_inputs(input_shape)
    x = feature_image(features)
    x = Conv2D(186, (frames, kernel_bins), activation="relu", kernel_initializer=_initializer())(x)
    x = Dropout(dropout_rate)(x)
    x = Flatten()(x)
    for _ in range(2):
        x = Dense(128, kernel_initializer=_initializer())(x)
        x = Dropout(dropout_rate)(x)
    logits = Dense(num_labels, kernel_initializer=_initializer(), dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="low_latency_conv")
