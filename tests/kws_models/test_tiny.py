"""The smallest networks of the speech_commands example: sizes, arithmetic, shapes, errors, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_models.tiny import single_fc, tiny_conv, tiny_embedding_conv

FAMILY = [single_fc, tiny_conv, tiny_embedding_conv]


def features_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# The first two counts stand in REFERENCE.md; the others follow from the shapes in the example's models.py.
@pytest.mark.parametrize(
    ("build", "input_shape", "num_labels", "parameters"),
    [
        (single_fc, (98, 40), 12, 47_052),
        (tiny_conv, (98, 40), 12, 94_740),
        (tiny_conv, (49, 40), 4, 10 * 8 * 8 + 8 + 25 * 20 * 8 * 4 + 4),
        (tiny_embedding_conv, (98, 40), 12, 10 * 8 * 8 + 8 + 10 * 8 * 8 * 8 + 8 + 7 * 3 * 8 * 12 + 12),
    ],
)
def test_parameter_counts_are_the_examples(build, input_shape, num_labels, parameters):
    model = build(input_shape, num_labels)
    assert model.count_params() == parameters
    assert not model.non_trainable_weights
    assert f"{parameters:,}" in build.__doc__


def examples_logits(model, features):
    """The example's graph in bare TensorFlow ops, on the model's weights."""
    weights = [tf.convert_to_tensor(weight) for weight in model.weights]
    x = features[..., None]
    for strides in ((), (2,), (2, 8))[FAMILY.index(globals()[model.name])]:
        kernel, bias, *weights = weights
        x = tf.nn.relu(tf.nn.conv2d(x, kernel, strides, "SAME") + bias)
    kernel, bias = weights
    return tf.reshape(x, (len(features), -1)) @ kernel + bias


@pytest.mark.parametrize("input_shape", [(98, 40), (49, 10), (98, 43), (7, 3), (1, 1)])
@pytest.mark.parametrize("build", FAMILY)
def test_logits_are_the_examples_for_any_feature_shape(build, input_shape):
    model = build(input_shape, 3)
    for weight in model.weights:
        weight.assign(features_of(*weight.shape) * 0.1)
    features = features_of(4, *input_shape)
    logits = model(features)
    assert logits.shape == (4, 3)
    np.testing.assert_allclose(logits, examples_logits(model, features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", FAMILY)
def test_the_examples_initialisers(build):
    model = build((98, 40), 12)
    deviation = 0.001 if build is single_fc else 0.01
    for weight in model.weights:
        if weight.name == "bias":
            assert not np.any(weight)
        else:
            assert np.abs(weight).max() <= 2 * deviation  # cut at two deviations
            assert np.std(weight) == pytest.approx(0.88 * deviation, rel=0.1)


@pytest.mark.parametrize("build", FAMILY)
def test_gradients_reach_all_weights(build):
    model = build((98, 40), 5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(features_of(16, 98, 40), training=True) - 1))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


@pytest.mark.parametrize("build", [tiny_conv, tiny_embedding_conv])
def test_dropout_follows_every_convolution(build):
    model = build((98, 40), 5, dropout_rate=0.4)
    for place, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.Conv2D):
            assert model.layers[place + 1].rate == 0.4


@pytest.mark.parametrize("build", FAMILY)
def test_a_saved_model_loads_without_custom_objects(build, tmp_path):
    model = build((49, 10), 3)
    features = features_of(8, 49, 10)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(features, np.arange(8) % 3, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(features), model(features), atol=1e-6)


@pytest.mark.parametrize("build", FAMILY)
def test_logits_stay_float32_in_mixed_precision(build):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build((49, 10), 3)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model(features_of(1, 49, 10)).dtype == tf.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (None, 40)}, "input_shape: NAME flattens its feature map .* clip_ms=1000"),
        ({"input_shape": (98, None)}, "input_shape: the number of bins must be known"),
        ({"input_shape": (0, 40)}, "input_shape: NAME needs at least 1 frames x 1 bins, got 0 x 40$"),
        ({"input_shape": (98, 0)}, "input_shape: NAME needs at least 1 frames x 1 bins, got 98 x 0$"),
        ({"num_labels": 0}, "num_labels: must be a whole number, at least 1, got 0$"),
    ],
)
@pytest.mark.parametrize("build", FAMILY)
def test_what_does_not_fit_is_named_in_one_line(build, arguments, message):
    with pytest.raises(ValueError, match="^" + message.replace("NAME", build.__name__)) as error:
        build(**{"input_shape": (98, 40), "num_labels": 12, **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
@pytest.mark.parametrize("build", [tiny_conv, tiny_embedding_conv])
def test_a_bad_dropout_rate_is_named_first(build, rate):
    with pytest.raises(ValueError, match=f"^dropout_rate: must be a number, at least 0 and below 1, got {rate}$"):
        build((98, 40), 12, dropout_rate=rate)
