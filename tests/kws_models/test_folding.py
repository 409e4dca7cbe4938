"""Folded networks compute what the networks themselves do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_models.folding import Once, folded
from tests.kws_models.networks import shake
from tests.kws_models.test_every_model import each_network, network_and_inputs


@each_network
def test_a_folded_network_has_the_same_logits(name, any_length):
    model, inputs = network_and_inputs(name, any_length)
    expected = model(inputs, training=False)
    np.testing.assert_allclose(folded(model)(inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ds_cnn_s", "bc_resnet_1"])
def test_no_batch_norm_runs_and_later_weights_count(name, monkeypatch):
    model, inputs = network_and_inputs(name, any_length=False)
    infer = tf.function(folded(model), input_signature=[tf.TensorSpec([None, *inputs.shape[1:]])])
    with monkeypatch.context() as patch:
        patch.setattr(keras.layers.BatchNormalization, "call", None)
        before = infer(inputs).numpy()
    for weight in model.weights:
        weight.assign(weight + 0.1)
    after = infer(inputs).numpy()
    assert abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, model(inputs, training=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ds_cnn_s", "bc_resnet_1"])
def test_weights_folded_once_stay_until_they_are_renewed(name):
    network, inputs = network_and_inputs(name, any_length=False)
    outer = keras.Input(inputs.shape[1:])
    model = keras.Model(outer, network(outer))
    once = Once()
    infer = tf.function(folded(model, once), input_signature=[tf.TensorSpec([None, *inputs.shape[1:]])])
    before = infer(inputs).numpy()
    for weight in network.weights:
        if weight.path.endswith("moving_mean"):
            weight.assign(weight + 0.1)
    np.testing.assert_array_equal(infer(inputs), before)
    once.renew()
    assert abs(infer(inputs).numpy() - before).max() > 1e-3
    np.testing.assert_allclose(infer(inputs), model(inputs, training=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [14, 15, None])
@pytest.mark.parametrize(
    ("kernel", "dilation"), [((3, 1), (2, 1)), ((5, 1), (3, 1)), ((2, 1), (2, 1)), ((3, 3), (2, 2))]
)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_dilated_depthwise_convolutions(frames, kernel, dilation, padding):
    x = keras.Input((frames, 7, 2))
    y = keras.layers.DepthwiseConv2D(kernel, dilation_rate=dilation, padding=padding, depth_multiplier=2)(x)
    model = shake(keras.Model(x, keras.layers.BatchNormalization()(y)))
    inputs = np.random.default_rng(0).normal(size=(2, frames or 15, 7, 2)).astype(np.float32)
    infer = tf.function(folded(model), input_signature=[tf.TensorSpec([None, frames, 7, 2])])
    np.testing.assert_allclose(infer(inputs), model(inputs, training=False), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_folded_stays():
    """A convolution whose output is used twice, one with an activation, and dropout."""
    x = keras.Input((6, 5, 2))
    y = keras.layers.Conv2D(3, 3)(x)
    z = keras.layers.Conv2D(3, 1, activation="relu")(keras.layers.BatchNormalization()(y))
    z = keras.layers.Dropout(0.9)(keras.layers.BatchNormalization()(z))
    model = shake(keras.Model(x, keras.layers.Add()([y, z])))
    inputs = np.random.default_rng(0).normal(size=(2, 6, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(folded(model)(inputs), model(inputs, training=False), rtol=1e-5, atol=1e-5)


def test_a_network_inside_a_model_is_folded_too(monkeypatch):
    network, inputs = network_and_inputs("ds_cnn_s", any_length=False)
    outer = keras.Input(inputs.shape[1:])
    model = keras.Model(outer, network(outer))
    expected = model(inputs, training=False)
    monkeypatch.setattr(keras.layers.BatchNormalization, "call", None)
    np.testing.assert_allclose(folded(model)(inputs), expected, rtol=1e-4, atol=1e-4)
