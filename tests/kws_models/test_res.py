"""`res`: the paper's sizes, the authors' wiring, and clips that are too short."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_models.res import res
from tests.kws_models.networks import count_trained, features_of, from_config, layers_of, shake, small, with_lengths

# Small networks with each of the family's features: pooling and blocks; dilation and an odd number of layers.
SMALL = {
    "pooled": {"filters": 6, "num_layers": 4, "pool_size": (4, 3)},
    "dilated": {"filters": 6, "num_layers": 7, "pool_size": (1, 1), "dilated": True},
}


@pytest.mark.parametrize(
    ("name", "trained", "paper_thousands"),
    [
        ("res8", 110_307, 110),
        ("res15", 237_882, 238),
        ("res26", 438_357, 438),
        ("res8_narrow", 19_905, 19.9),
        ("res15_narrow", 42_648, 42.6),
        ("res26_narrow", 78_387, 78.4),
    ],
)
def test_trained_parameters_are_the_authors_codes_and_round_to_the_papers(name, trained, paper_thousands):
    # castorini/honk: 9 filters for the first convolution, 9 filters² for each further one, a dense layer with bias.
    model = from_config(name, (101, 40), 12)
    assert count_trained(model) == trained
    assert round(trained / 1000, 1 if "narrow" in name else 0) == paper_thousands


@pytest.mark.parametrize(
    ("name", "dilations"),
    [
        ("res8", [1] * 7),
        ("res15", [1, 1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 16]),
        ("res26", [1] * 25),
    ],
)
def test_depth_and_dilation(name, dilations):
    layers = [layer for layer in from_config(name, (101, 40), 12).layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.dilation_rate for layer in layers] == [(rate, rate) for rate in dilations]


def test_the_paper_pools_once_and_res15_not_at_all():
    sizes = {
        name: [layer.pool_size for layer in from_config(name, (101, 40), 12).layers if hasattr(layer, "pool_size")]
        for name in ("res8", "res15", "res26")
    }
    assert sizes == {"res8": [(4, 3)], "res15": [], "res26": [(2, 2)]}


@pytest.mark.parametrize("arguments", SMALL.values(), ids=SMALL)
def test_the_wiring_is_the_authors(arguments):
    """Their forward pass, written out: ReLU, then the shortcut, then the norm; what is passed on is not normalised."""
    model = res((17, 13), 3, **arguments)
    shake(model)
    convolutions = layers_of(model, keras.layers.Conv2D)
    norms = layers_of(model, keras.layers.BatchNormalization)
    features = features_of(2, 17, 13, seed=1)

    x = tf.nn.relu(tf.nn.conv2d(features[..., None], convolutions[0].kernel, 1, "SAME"))
    if arguments["pool_size"] != (1, 1):
        x = tf.nn.avg_pool2d(x, arguments["pool_size"], arguments["pool_size"], "VALID")
    carried = x
    for number, (convolution, norm) in enumerate(zip(convolutions[1:], norms, strict=True), start=1):
        dilation = 2 ** ((number - 1) // 3) if arguments.get("dilated") else 1
        x = tf.nn.relu(tf.nn.conv2d(x, convolution.kernel, 1, "SAME", dilations=dilation))
        if number % 2 == 0:
            x = carried = x + carried
        x = (x - norm.moving_mean) / tf.sqrt(norm.moving_variance + 1e-5)
    logits = model.layers[-1](tf.reduce_mean(x, (1, 2)))
    np.testing.assert_allclose(model(features), logits, atol=1e-4)


def test_clips_of_any_length_need_the_bins_of_a_pooling_window():
    message = "^input_shape: res needs at least 4 frames x 3 bins, got any length x 2$"
    with pytest.raises(ValueError, match=message):
        res((None, 2), 12)


def test_a_clip_shorter_than_a_pooling_window_gets_the_bias():
    model = shake(small("res8", (None, 10)))
    logits = model(with_lengths(features_of(2, 3, 10), [0, 3]))
    np.testing.assert_allclose(logits, [model.layers[-1].bias] * 2)
