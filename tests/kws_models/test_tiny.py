"""The smallest networks of the speech_commands example: sizes, arithmetic, initial weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_models.tiny import single_fc, tiny_conv, tiny_embedding_conv
from tests.kws_models.networks import features_of

FAMILY = [single_fc, tiny_conv, tiny_embedding_conv]


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


@pytest.mark.parametrize("build", [tiny_conv, tiny_embedding_conv])
def test_dropout_follows_every_convolution(build):
    model = build((98, 40), 5, dropout_rate=0.4)
    for index, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.Conv2D):
            assert model.layers[index + 1].rate == 0.4
