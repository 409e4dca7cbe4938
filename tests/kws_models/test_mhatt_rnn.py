"""`mhatt_rnn`: the paper's size, the authors' wiring, lengths, determinism, errors, saving."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.python.framework.config import disable_op_determinism

from kws_models.mhatt_rnn import mhatt_rnn
from tests.kws_models.test_every_model import SHAPES, features_of
from tests.kws_models.test_res import count_trained, from_config, shake

SMALL = {"conv_filters": (3, 2), "rnn_units": 4, "heads": 3, "dense_units": (6, 5)}
LAYERS = keras.layers


def of_type(model, *types):
    return [layer for layer in model.layers if isinstance(layer, types)]


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
    for convolution, norm in zip(of_type(model, LAYERS.Conv2D), of_type(model, LAYERS.BatchNormalization), strict=True):
        x = tf.nn.relu(tf.nn.conv2d(x, convolution.kernel, 1, "SAME") + convolution.bias)
        x = (x - norm.moving_mean) / tf.sqrt(norm.moving_variance + 1e-3) * norm.gamma + norm.beta
    x = tf.reshape(x, (2, 21, 20))
    for layer in of_type(model, LAYERS.Bidirectional):
        backward = gru(tf.reverse(x, [1]), layer.backward_layer)
        x = tf.concat([gru(x, layer.forward_layer), tf.reverse(backward, [1])], -1)
    *denses, last_hidden, last = of_type(model, LAYERS.Dense)
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


@pytest.mark.parametrize("input_shape", [*SHAPES, (1, 1), (2, 3)])
def test_any_feature_shape(input_shape):
    logits = mhatt_rnn(input_shape, 3, **SMALL)(features_of(2, *input_shape))
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()


def test_no_convolutions_and_no_layers_after_the_attention():
    model = mhatt_rnn((12, 10), 3, rnn_units=4, rnn_layers=1, conv_filters=(), dense_units=())
    assert model(features_of(2, 12, 10)).shape == (2, 3)
    assert len(of_type(model, LAYERS.Dense)) == 4 + 1


@pytest.mark.parametrize("any_length", [False, True])
def test_logits_stay_float32_in_mixed_precision(any_length):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = mhatt_rnn((None if any_length else 20, 12), 3, **SMALL)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    features = features_of(2, 20, 12)
    inputs = {"features": features, "num_frames": np.array([9, 20], np.int32)} if any_length else features
    logits = model(inputs, training=True)
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("any_length", [False, True])
def test_gradients_reach_all_weights(any_length):
    features, lengths = features_of(6, 24, 12), np.arange(19, 25, dtype=np.int32)
    model = mhatt_rnn((None if any_length else 24, 12), 3, dropout_rate=0.0, **SMALL)
    inputs = {"features": features, "num_frames": lengths} if any_length else features
    with tf.GradientTape() as tape:
        logits = model(inputs, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 0, 1, 2], logits))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


@pytest.mark.slow
@pytest.mark.parametrize("any_length", [False, True])
def test_training_is_the_same_bit_for_bit_under_op_determinism(any_length):
    features = features_of(16, 20, 10)
    inputs = {"features": features, "num_frames": np.arange(5, 21, dtype=np.int32)} if any_length else features

    def trained_weights():
        keras.utils.set_random_seed(3)
        model = mhatt_rnn((None if any_length else 20, 10), 3, **SMALL)
        model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(inputs, np.arange(16) % 3, epochs=2, batch_size=4, verbose=0)
        return model.get_weights()

    tf.config.experimental.enable_op_determinism()
    try:
        for one, other in zip(trained_weights(), trained_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    finally:
        disable_op_determinism()


@pytest.mark.parametrize("any_length", [False, True])
def test_a_saved_model_loads_without_custom_objects(any_length, tmp_path):
    features = features_of(8, 24, 12)
    inputs = {"features": features, "num_frames": np.arange(17, 25, dtype=np.int32)} if any_length else features
    model = mhatt_rnn((None if any_length else 24, 12), 3, **SMALL)
    shake(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), model(inputs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("num_labels", 0),
        ("conv_filters", (10, 0)),
        ("conv_kernel_frames", 0),
        ("rnn_layers", 0),
        ("rnn_units", 0),
        ("heads", 0),
        ("dense_units", (0,)),
        ("dropout_rate", 1.0),
    ],
)
def test_a_bad_parameter_is_named_first(parameter, value):
    with pytest.raises(ValueError, match=f"^{parameter}: ") as error:
        mhatt_rnn((98, 40), **{"num_labels": 12, parameter: value})
    assert "\n" not in str(error.value)


def test_unrolling_needs_clips_of_one_length():
    with pytest.raises(ValueError, match=r"^unroll: needs clips of one length; .*clip_ms=1000") as error:
        mhatt_rnn((None, 40), 12, unroll=True)
    assert "\n" not in str(error.value)


def test_features_without_frames_or_bins():
    for shape in ((0, 40), (98, 0), (98, None)):
        with pytest.raises(ValueError, match=r"^input_shape: "):
            mhatt_rnn(shape, 12)


# --- clips of any length


@pytest.fixture(scope="module")
def any_length_model():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras warns of layers that lose a mask
        model = mhatt_rnn((None, 10), 4, **SMALL)
    shake(model)
    return model


@settings(max_examples=5, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    padding=st.integers(0, 7),
    seed=st.integers(0, 1000),
)
def test_logits_do_not_depend_on_the_padding(any_length_model, lengths, padding, seed):
    clips = [features_of(length, 10, seed=seed + index) for index, length in enumerate(lengths)]
    # Garbage, not zeros, in the frames that are padding.
    batch = 100 * features_of(len(clips), max(lengths) + padding, 10, seed=seed + 100)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    together = any_length_model({"features": batch, "num_frames": np.array(lengths, np.int32)})
    for logits, clip in zip(together, clips, strict=True):
        alone = any_length_model({"features": clip[None], "num_frames": np.array([len(clip)], np.int32)})
        np.testing.assert_allclose(logits, alone[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [49, 98])
def test_full_clips_get_the_logits_of_the_fixed_length_model(frames):
    fixed, any_length = mhatt_rnn((frames, 10), 5, **SMALL), mhatt_rnn((None, 10), 5, **SMALL)
    shake(fixed)
    any_length.set_weights(fixed.get_weights())
    features = features_of(3, frames, 10, seed=1)
    inputs = {"features": features, "num_frames": np.full(3, frames, np.int32)}
    np.testing.assert_allclose(any_length(inputs), fixed(features), rtol=1e-4, atol=1e-4)


def test_a_training_step_on_padded_clips_is_the_one_on_bare_clips():
    clips = features_of(4, 30, 10)
    padded = np.concatenate([clips, 100 * features_of(4, 9, 10, seed=1)], axis=1)
    bare = mhatt_rnn((30, 10), 3, dropout_rate=0.0, **SMALL)
    model = mhatt_rnn((None, 10), 3, dropout_rate=0.0, **SMALL)
    model.set_weights(bare.get_weights())

    def step(model, inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(inputs, training=True) - 1))
        return tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    gradients = step(bare, clips)
    padded_gradients = step(model, {"features": padded, "num_frames": np.full(4, 30, np.int32)})
    for padded_gradient, gradient in zip(padded_gradients, gradients, strict=True):
        np.testing.assert_allclose(padded_gradient, gradient, rtol=1e-3, atol=1e-3)
    for padded_weight, weight in zip(model.get_weights(), bare.get_weights(), strict=True):
        np.testing.assert_allclose(padded_weight, weight, rtol=1e-4, atol=1e-5)  # running statistics among them


def test_a_clip_without_frames_has_finite_logits(any_length_model):
    inputs = {"features": features_of(2, 12, 10), "num_frames": np.array([0, 12], np.int32)}
    assert np.isfinite(any_length_model(inputs)).all()
