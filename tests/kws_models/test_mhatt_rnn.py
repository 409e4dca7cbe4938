"""`mhatt_rnn`: the paper's size, the authors' wiring, determinism, unrolling."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_models.mhatt_rnn import mhatt_rnn
from tests.kws_models.networks import count_trained, features_of, from_config, layers_of, shake

SMALL = {"conv_filters": (3, 2), "rnn_units": 4, "heads": 3, "dense_units": (6, 5)}
LAYERS = keras.layers
ROOT = Path(__file__).resolve().parents[2]


def test_parameters_on_the_papers_features_are_the_papers():
    # 22 of them are running statistics of the two batch normalisations.
    model = from_config("mhatt_rnn", (49, 20), 12)
    assert model.count_params() == 743_047
    assert count_trained(model) == 743_025
    assert from_config("mhatt_rnn", (98, 40), 12).count_params() == 758_407


def test_the_wiring_is_the_authors():
    """Their forward pass, written out, but for the GRU's own formula: see the next test."""
    model = mhatt_rnn((21, 10), 3, **SMALL)
    shake(model)
    features = features_of(2, 21, 10, seed=1)

    x = features[..., None]
    for convolution, norm in zip(
        layers_of(model, LAYERS.Conv2D), layers_of(model, LAYERS.BatchNormalization), strict=True
    ):
        x = tf.nn.relu(tf.nn.conv2d(x, convolution.kernel, 1, "SAME") + convolution.bias)
        x = (x - norm.moving_mean) / tf.sqrt(norm.moving_variance + 1e-3) * norm.gamma + norm.beta
    x = tf.reshape(x, (2, 21, 20))
    for layer in layers_of(model, LAYERS.Bidirectional):
        backward = gru(tf.reverse(x, [1]), layer.backward_layer)
        x = tf.concat([gru(x, layer.forward_layer), tf.reverse(backward, [1])], -1)
    *denses, last_hidden, last = layers_of(model, LAYERS.Dense)
    queries, hidden = denses[:3], denses[3:]
    heads = []
    for dense in queries:
        query = dense(x[:, 10])
        weights = tf.nn.softmax(tf.einsum("bc,btc->bt", query, x))
        heads.append(tf.einsum("bt,btc->bc", weights, x))
    y = tf.concat(heads, -1)
    (hidden,) = hidden
    y = tf.nn.relu(y @ hidden.kernel + hidden.bias)
    y = y @ last_hidden.kernel + last_hidden.bias
    np.testing.assert_allclose(model(features), y @ last.kernel + last.bias, rtol=1e-4, atol=1e-4)


def gru(x, layer):
    """Cho et al. 2014 with the reset gate after the recurrent product, and its bias (Keras's and cuDNN's form)."""
    input_bias, recurrent_bias = tf.unstack(layer.cell.bias.value)
    state, outputs = tf.zeros((x.shape[0], layer.units)), []
    for frame in tf.unstack(x, axis=1):
        update, reset, candidate = tf.split(frame @ layer.cell.kernel.value + input_bias, 3, -1)
        products = tf.split(state @ layer.cell.recurrent_kernel.value + recurrent_bias, 3, -1)
        update, reset = tf.sigmoid(update + products[0]), tf.sigmoid(reset + products[1])
        state = update * state + (1 - update) * tf.tanh(candidate + reset * products[2])
        outputs.append(state)
    return tf.stack(outputs, 1)


def test_unrolled_grus_are_the_same():
    looped, unrolled = mhatt_rnn((12, 10), 3, **SMALL), mhatt_rnn((12, 10), 3, unroll=True, **SMALL)
    shake(looped)
    unrolled.set_weights(looped.get_weights())
    features = features_of(2, 12, 10)
    np.testing.assert_allclose(unrolled(features), looped(features), rtol=1e-5, atol=1e-5)


def test_no_convolutions_and_no_layers_after_the_attention():
    model = mhatt_rnn((12, 10), 3, rnn_units=4, rnn_layers=1, conv_filters=(), dense_units=())
    assert model(features_of(2, 12, 10)).shape == (2, 3)
    assert len(layers_of(model, LAYERS.Dense)) == 4 + 1


@pytest.mark.slow
@pytest.mark.parametrize("any_length", [False, True])
def test_training_is_the_same_bit_for_bit_under_op_determinism(any_length):
    """In a process of its own: what ran before in this one, and on how many threads, can change last bits."""
    check = f"from tests.kws_models import test_mhatt_rnn; test_mhatt_rnn.check_determinism({any_length})"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_determinism(any_length):
    tf.config.experimental.enable_op_determinism()
    features = features_of(16, 20, 10)
    inputs = {"features": features, "num_frames": np.arange(5, 21, dtype=np.int32)} if any_length else features

    def trained_weights():
        keras.utils.set_random_seed(3)
        model = mhatt_rnn((None if any_length else 20, 10), 3, **SMALL)
        model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(inputs, np.arange(16) % 3, epochs=2, batch_size=4, verbose=0)
        return model.get_weights()

    for one, other in zip(trained_weights(), trained_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_unrolling_needs_clips_of_one_length():
    with pytest.raises(ValueError, match=r"^unroll: needs clips of one length; .*clip_ms=1000") as error:
        mhatt_rnn((None, 40), 12, unroll=True)
    assert "\n" not in str(error.value)
