"""`matchboxnet`: NeMo's sizes and wiring, dropout."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_models.matchboxnet import matchboxnet
from tests.kws_models.networks import count_trained, features_of, from_config, layers_of, shake

SMALL = {"filters": 4, "repeats": 2, "block_kernels": (3, 5), "outer_filters": 6, "last_kernel": 7}


@pytest.mark.parametrize(
    ("name", "trained", "paper_thousands"), [("matchboxnet_3x1x64", 77_214, 77), ("matchboxnet_3x2x64", 92_766, 93)]
)
def test_trained_parameters_are_nemos_and_round_to_the_papers(name, trained, paper_thousands):
    def separable(channels_in, channels, kernel):
        return channels_in * kernel + channels_in * channels + 2 * channels  # with the norm's scale and offset

    repeats = int(name[len("matchboxnet_3x")])
    nemo = separable(64, 128, 11)
    for channels_in, kernel in ((128, 13), (64, 15), (64, 17)):
        nemo += separable(channels_in, 64, kernel) + (repeats - 1) * separable(64, 64, kernel)
        nemo += channels_in * 64 + 2 * 64  # the residual's pointwise convolution and norm
    nemo += separable(64, 128, 29) + 128 * 128 + 2 * 128 + 128 * 30 + 30
    assert count_trained(from_config(name, (101, 64), 30)) == nemo == trained
    assert round(trained / 1000) == paper_thousands


@pytest.mark.parametrize("arguments", [SMALL, SMALL | {"repeats": 1}])
def test_the_wiring_is_nemos(arguments):
    """Its forward pass, written out: dense kernels, zeros on both sides, ReLU after the sum with the residual."""
    model = matchboxnet((21, 10), 3, **arguments)
    shake(model)
    norms = layers_of(model, keras.layers.BatchNormalization)
    depthwise = iter(layers_of(model, keras.layers.DepthwiseConv2D))
    # A norm per pointwise convolution; the residual's comes from the block's input, so it is no depthwise one's output.
    pointwise = [layer for layer in model.layers if type(layer) is keras.layers.Conv2D]
    straight, sideways = [], []
    for layer in pointwise:
        follows_depthwise = isinstance(layer.input._keras_history.operation, keras.layers.DepthwiseConv2D)
        (straight if follows_depthwise else sideways).append(layer)
    last = sideways.pop()
    straight, sideways = iter(straight), iter(sideways)

    def convolve(x, layer):
        (norm,) = [norm for norm in norms if norm.input is layer.output]
        x = tf.nn.conv2d(x, layer.kernel, 1, "VALID")
        return (x - norm.moving_mean) / tf.sqrt(norm.moving_variance + 1e-3) * norm.gamma + norm.beta

    def separable(x, dilation=1):
        layer = next(depthwise)
        kernel = tf.linalg.diag(layer.kernel.value[..., 0])
        zeros = dilation * (kernel.shape[0] - 1) // 2
        x = tf.nn.conv2d(x, kernel, 1, [[0, 0], [zeros, zeros], [0, 0], [0, 0]], dilations=(dilation, 1))
        return convolve(x, next(straight))

    features = features_of(2, 21, 10, seed=1)
    x = tf.nn.relu(separable(features[:, :, None, :]))
    for _ in arguments["block_kernels"]:
        residual = convolve(x, next(sideways))
        for _ in range(arguments["repeats"] - 1):
            x = tf.nn.relu(separable(x))
        x = tf.nn.relu(separable(x) + residual)
    x = tf.nn.relu(separable(x, dilation=2))
    x = tf.nn.relu(convolve(x, last))
    logits = model.layers[-1](tf.reduce_mean(x, (1, 2)))
    assert [next(rest, None) for rest in (depthwise, straight, sideways)] == [None] * 3
    np.testing.assert_allclose(model(features), logits, rtol=1e-5, atol=1e-5)


def test_dropout_follows_every_relu():
    model = matchboxnet((20, 10), 3, dropout_rate=0.25, **SMALL)
    dropouts = layers_of(model, keras.layers.Dropout)
    relus = layers_of(model, keras.layers.ReLU)
    assert [layer.input for layer in dropouts] == [layer.output for layer in relus]
    assert len(relus) == 1 + 2 * 2 + 2
    assert {layer.rate for layer in dropouts} == {0.25}
