"""The three smallest networks of TensorFlow's speech_commands example: a sanity check and two for microcontrollers.

Source: tensorflow/examples/speech_commands/models.py (create_single_fc_model, create_tiny_conv_model,
create_tiny_embedding_conv_model). As there, all biases start from zero and all weights from a truncated normal of
standard deviation 0.01, single_fc's of 0.001.
"""

from collections.abc import Sequence

import keras
from keras.layers import Conv2D, Dense, Dropout, Flatten

from kws_models.inputs import check_fixed_size, check_parameters, feature_image, feature_inputs


def _initializer(stddev: float = 0.01) -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=stddev)


def _convolution(strides: int) -> Conv2D:
    """Eight filters of 10 frames by 8 bins."""
    return Conv2D(8, (10, 8), strides, padding="same", activation="relu", kernel_initializer=_initializer())


def single_fc(input_shape: Sequence[int | None], num_labels: int) -> keras.Model:
    """One linear layer over the whole feature map, for checking a pipeline against.

    [batch, frames, bins] float32 of any size → logits [batch, num_labels] float32. 47,052 parameters at 98 × 40 and 12
    labels, equal to the example's.

    Source: create_single_fc_model of tensorflow/examples/speech_commands/models.py.

    Raises:
        ValueError: frames is None, or no frames, bins or labels.
    """
    check_fixed_size(input_shape, "single_fc")
    check_parameters(at_least_one={"num_labels": num_labels})
    inputs, features, _ = feature_inputs(input_shape)
    x = Flatten()(features)
    logits = Dense(num_labels, kernel_initializer=_initializer(0.001), dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="single_fc")


def tiny_conv(input_shape: Sequence[int | None], num_labels: int, *, dropout_rate: float = 0.5) -> keras.Model:
    """One convolution of stride 2 and a linear layer over the whole map: the network of TFLite Micro's micro_speech.

    [batch, frames, bins] float32 of any size → logits [batch, num_labels] float32. 94,740 parameters at 98 × 40 and 12
    labels, equal to the example's; 16,652 at the micro front end's 49 × 40 and 4 labels, for which it was made.

    Source: create_tiny_conv_model of tensorflow/examples/speech_commands/models.py.

    Raises:
        ValueError: frames is None, no frames, bins or labels, or dropout_rate out of range.
    """
    check_fixed_size(input_shape, "tiny_conv")
    check_parameters(at_least_one={"num_labels": num_labels}, rates={"dropout_rate": dropout_rate})
    inputs, features, _ = feature_inputs(input_shape)
    x = feature_image(features)
    x = _convolution(strides=2)(x)
    x = Dropout(dropout_rate)(x)
    x = Flatten()(x)
    logits = Dense(num_labels, kernel_initializer=_initializer(), dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="tiny_conv")


def tiny_embedding_conv(
    input_shape: Sequence[int | None], num_labels: int, *, dropout_rate: float = 0.5
) -> keras.Model:
    """`tiny_conv` with a second convolution, of stride 8, which leaves a small map to the linear layer.

    [batch, frames, bins] float32 of any size → logits [batch, num_labels] float32. 7,804 parameters at 98 × 40 and 12
    labels, what the example's code makes; it states no count, and has two convolutions where its docstring draws three.

    Source: create_tiny_embedding_conv_model of tensorflow/examples/speech_commands/models.py.

    Raises:
        ValueError: frames is None, no frames, bins or labels, or dropout_rate out of range.
    """
    check_fixed_size(input_shape, "tiny_embedding_conv")
    check_parameters(at_least_one={"num_labels": num_labels}, rates={"dropout_rate": dropout_rate})
    inputs, features, _ = feature_inputs(input_shape)
    x = feature_image(features)
    for strides in (2, 8):
        x = _convolution(strides)(x)
        x = Dropout(dropout_rate)(x)
    x = Flatten()(x)
    logits = Dense(num_labels, kernel_initializer=_initializer(), dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="tiny_embedding_conv")
