"""Layers that architectures share: input normalisation, and batch normalisation on the fused op."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from kws_models.ds_cnn import ds_cnn
from kws_models.layers import BatchNormalization, adapt_normalization, unadapted_normalization
from kws_models.simple_audio import simple_audio
from tests.kws_models.networks import features_of, layers_of, train_briefly

# --- input normalisation


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_adapting_sets_the_moments_of_the_layers_own_input(offset):
    model = simple_audio((40, 24), 3, image_size=(16, 12))
    batches = [features_of(size, 40, 24, seed=size) * 2 + offset for size in (5, 1, 8)]
    adapt_normalization(model, iter(batches))  # one pass is enough
    resized = np.array(keras.layers.Resizing(16, 12)(np.concatenate(batches)[..., None]), np.float64)
    (layer,) = layers_of(model, keras.layers.Normalization)
    np.testing.assert_allclose(layer.adapt_mean, [resized.mean()], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(layer.adapt_variance, [resized.var()], rtol=1e-4)
    assert unadapted_normalization(model) == []


def test_adapting_reaches_functions_that_were_traced_before():
    model = simple_audio((20, 20), 3)
    features = features_of(4, 20, 20) * 7 + 3
    before = model.predict(features, verbose=0)
    adapt_normalization(model, [features])
    after = model.predict(features, verbose=0)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, model(features), atol=1e-5)


def test_stacked_normalisation_with_kept_axes_is_adapted_in_order():
    x = keras.Input((6, 4))
    first = keras.layers.Normalization(axis=(1, 2))
    given_mean = keras.layers.Normalization(mean=0.0, variance=4.0)
    last = keras.layers.Normalization(axis=None)
    model = keras.Model(x, last(given_mean(first(x))))
    data = features_of(50, 6, 4) * np.arange(1, 5, dtype=np.float32)
    adapt_normalization(model, [data[:20], data[20:]])
    np.testing.assert_allclose(first.adapt_mean, data.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(first.adapt_variance, data.var(axis=0), rtol=1e-5)
    outputs = np.array(model(data))
    assert outputs.mean() == pytest.approx(0, abs=1e-5)
    assert outputs.std() == pytest.approx(1, abs=1e-4)


def test_adapting_needs_data_only_where_there_is_something_to_adapt():
    def untouchable():
        raise AssertionError("read")
        yield

    adapt_normalization(ds_cnn((49, 10), 3, filters=4), untouchable())
    model = simple_audio((20, 20), 3)
    with pytest.raises(ValueError, match=r"^batches: "):
        adapt_normalization(model, [])
    adapt_normalization(model, [features_of(4, 20, 20)])
    adapt_normalization(model, untouchable())  # already adapted


# --- fused batch normalisation

POLICIES = {"float32": 1e-5, "mixed_float16": 5e-3, "mixed_bfloat16": 4e-2}


def norm_step(layer, x):
    """One training call: output, gradients of the input and the parameters, running statistics."""
    x = tf.Variable(x, dtype=layer.compute_dtype)
    weights = tf.constant(features_of(*x.shape, seed=9), layer.compute_dtype)
    with tf.GradientTape() as tape:
        outputs = layer(tf.convert_to_tensor(x), training=True)
        loss = tf.reduce_sum(tf.cast(outputs * weights, tf.float32))
    gradients = tape.gradient(loss, [x, *[variable.value for variable in layer.trainable_variables]])
    return [np.array(tf.cast(t, tf.float32)) for t in (outputs, *gradients, layer.moving_mean, layer.moving_variance)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", [(5, 7, 4, 3), (5, 7, 3), (5, 3), (1, 1, 1, 3), (2, 4, 3, 5, 3)])
@pytest.mark.parametrize("arguments", [{}, {"momentum": 0.5, "epsilon": 1e-5}, {"center": False}, {"scale": False}])
def test_fused_batch_norm_equals_keras_own(shape, arguments, policy):
    x = features_of(*shape) * 2 + 0.5
    steps = []
    for layer_type in (BatchNormalization, keras.layers.BatchNormalization):
        layer = layer_type(dtype=policy, beta_initializer="random_normal", gamma_initializer="ones", **arguments)
        layer.build(shape)
        if layer.center:
            layer.beta.assign([0.1, -0.2, 0.3])
        if layer.scale:
            layer.gamma.assign([0.5, 1.0, 2.0])
        steps.append(norm_step(layer, x))
        steps[-1].append(np.array(tf.cast(layer(x.astype(np.float32)), tf.float32)))  # inference
    atol = POLICIES[policy]
    for fused, standard in zip(*steps, strict=True):
        np.testing.assert_allclose(fused, standard, atol=atol * max(1, np.abs(standard).max()))


def test_fused_batch_norm_trains_as_keras_own_over_several_steps():
    x = features_of(40, 6, 5, 3)
    weights = []
    for layer_type in (BatchNormalization, keras.layers.BatchNormalization):
        keras.utils.set_random_seed(0)
        layers = [keras.Input((6, 5, 3)), keras.layers.Conv2D(4, 3), layer_type(momentum=0.9), keras.layers.Flatten()]
        model = keras.Sequential([*layers, keras.layers.Dense(2)])
        model.compile(keras.optimizers.SGD(0.05), "mse")
        model.fit(x, np.ones((40, 2)), batch_size=16, epochs=3, shuffle=False, verbose=0)  # last batch: 8
        names = [weight.name for weight in model.layers[1].weights]
        assert names == ["gamma", "beta", "moving_mean", "moving_variance"]
        weights.append(model.get_weights())
    for fused, standard in zip(*weights, strict=True):
        np.testing.assert_allclose(fused, standard, atol=1e-5)


def test_batch_norm_off_the_fused_path_is_keras_own():
    x = features_of(4, 6, 5, 3)
    mask = np.arange(6)[None, :, None] < np.array([6, 3, 2, 5])[:, None, None]
    mask = np.broadcast_to(mask, (4, 6, 5))
    for arguments, call in [
        ({}, {"mask": mask}),
        ({"axis": 1}, {}),
        ({"renorm": True}, {}),
        ({"dtype": "float64"}, {}),
    ]:
        fused, standard = BatchNormalization(**arguments), keras.layers.BatchNormalization(**arguments)
        np.testing.assert_array_equal(fused(x, training=True, **call), standard(x, training=True, **call))
        for one, other in zip(fused.get_weights(), standard.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_frozen_batch_norm_keeps_its_statistics():
    layer = BatchNormalization(trainable=False)
    x = features_of(4, 6, 5, 3) + 5
    np.testing.assert_allclose(layer(x, training=True), x / np.sqrt(1 + 1e-3), rtol=1e-5)
    assert not np.array(layer.moving_mean).any()


def test_fused_batch_norm_trains_bit_for_bit_under_op_determinism():
    def trained_weights():
        keras.utils.set_random_seed(3)
        model = ds_cnn((20, 10), 3, filters=8, num_blocks=1)
        train_briefly(model, features_of(16, 20, 10), 3)
        return model.get_weights()

    tf.config.experimental.enable_op_determinism()
    try:
        for one, other in zip(trained_weights(), trained_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    finally:
        disable_op_determinism()
