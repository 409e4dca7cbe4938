"""`tc_resnet`: the paper's sizes, the authors' wiring, regularisation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_models.tc_resnet import tc_resnet
from tests.kws_models.networks import features_of, from_config, layers_of, shake

# Three blocks, the second of them without a stride; no dropout, so that a training step can be compared.
SMALL = {"channels": (4, 6, 6, 8), "dropout_rate": 0.0, "batch_norm_momentum": 0.9}


@pytest.mark.parametrize(
    ("name", "parameters", "paper_thousands"),
    [
        ("tc_resnet8", 65_824, 66),
        ("tc_resnet8_1_5", 145_248, 145),
        ("tc_resnet14", 136_928, 137),
        ("tc_resnet14_1_5", 304_608, 305),
    ],
)
def test_parameters_are_the_authors_codes_and_round_to_the_papers(name, parameters, paper_thousands):
    # hyperconnect/TC-ResNet without its second head, running statistics counted.
    assert from_config(name, (98, 40), 12).count_params() == parameters
    assert round(parameters / 1000) == paper_thousands


def test_the_configs_regularise_as_the_authors_code():
    model = from_config("tc_resnet8", (98, 40), 12)
    kernels = [weight for weight in model.trainable_weights if weight.path.endswith("kernel")]
    squares = sum(float(tf.nn.l2_loss(kernel)) for kernel in kernels)  # TensorFlow's: half the sum of squares
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), 0.001 * squares, rtol=1e-5)
    assert len(model.losses) == len(kernels) == 11


def test_the_wiring_is_the_authors():
    """Their forward pass, written out; a block that changes the channels has stride 2 and a convolved shortcut."""
    model = tc_resnet((21, 10), 3, **SMALL)
    shake(model)
    convolutions = layers_of(model, keras.layers.Conv2D)
    norms = layers_of(model, keras.layers.BatchNormalization)
    straight = iter([layer for layer in convolutions if layer.kernel_size != (1, 1)])
    sideways = iter([layer for layer in convolutions if layer.kernel_size == (1, 1)])

    def convolve(x, stride=1, among=straight):
        layer = next(among)
        (norm,) = [norm for norm in norms if norm.input is layer.output]
        x = tf.nn.conv2d(x, layer.kernel, [stride, 1], "SAME")
        return (x - norm.moving_mean) / tf.sqrt(norm.moving_variance + 1e-3) * norm.gamma + norm.beta

    features = features_of(2, 21, 10, seed=1)
    x = tf.nn.relu(convolve(features[:, :, None, :]))
    shortcut = tf.nn.relu(convolve(x, 2, sideways))
    x = convolve(tf.nn.relu(convolve(x, 2)))
    x = tf.nn.relu(x + shortcut)
    x = tf.nn.relu(convolve(tf.nn.relu(convolve(x))) + x)
    shortcut = tf.nn.relu(convolve(x, 2, sideways))
    x = convolve(tf.nn.relu(convolve(x, 2)))
    x = tf.nn.relu(x + shortcut)
    logits = tf.reduce_mean(x, (1, 2)) @ model.layers[-1].kernel
    np.testing.assert_allclose(model(features), logits, atol=1e-4)
    assert [*straight, *sideways] == []


def test_kernels_reach_over_time_alone():
    model = tc_resnet((98, 40), 12)
    sizes = {layer.kernel_size for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
    assert sizes == {(3, 1), (1, 1), (9, 1)}
