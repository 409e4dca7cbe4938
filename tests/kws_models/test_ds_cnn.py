"""Hello Edge's three sizes of `ds_cnn` and MLPerf Tiny's: counts, memory, settings."""

import itertools
from pathlib import Path

import hydra
import keras
import numpy as np
import pytest
import tensorflow as tf
from omegaconf import OmegaConf

from tests.kws_models.test_every_model import SHAPES, features_of
from tests.kws_models.test_res import shake

CONF = Path(__file__).parents[2] / "conf" / "model"
SIZES = ["ds_cnn_s", "ds_cnn_m", "ds_cnn_l", "ds_cnn_mlperf"]


def from_config(name, input_shape=(49, 10), num_labels=12, **changes):
    config = OmegaConf.merge(OmegaConf.load(CONF / f"{name}.yaml"), changes)
    return hydra.utils.instantiate(config, input_shape=input_shape, num_labels=num_labels)


def folded_count(model):
    """Weights and biases once each batch normalisation is folded into its convolution: one bias per channel."""
    return sum(
        layer.moving_mean.shape[0] if isinstance(layer, keras.layers.BatchNormalization) else layer.count_params()
        for layer in model.layers
    )


@pytest.mark.parametrize(
    ("name", "parameters", "folded", "paper_kilobytes"),
    [
        ("ds_cnn_s", 24_332, 22_604, 38.6),
        ("ds_cnn_m", 139_676, 135_032, 189.2),
        ("ds_cnn_l", 419_808, 410_700, 497.6),
    ],
)
def test_the_papers_memory_is_the_folded_count_and_the_two_largest_maps(name, parameters, folded, paper_kilobytes):
    model = from_config(name)
    assert model.count_params() == parameters  # as the docstring has it
    assert folded_count(model) == folded
    convolved = [layer for layer in model.layers if "conv2d" in layer.name]
    maps = [int(np.prod(layer.output.shape[1:])) for layer in convolved]
    largest_pair = max(one + next_one for one, next_one in itertools.pairwise(maps))
    assert round((folded + largest_pair) / 1000, 1) == paper_kilobytes


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("ds_cnn_s", [(25, 5, 64)] * 9),
        ("ds_cnn_m", [(25, 10, 172)] + [(13, 5, 172)] * 8),
        ("ds_cnn_l", [(25, 10, 276)] + [(13, 5, 276)] * 10),
    ],
)
def test_the_feature_maps_are_those_of_the_papers_code(name, sizes):
    layers = [layer for layer in from_config(name).layers if "conv2d" in layer.name]
    assert [layer.output.shape[1:] for layer in layers] == sizes


def test_mlperf_is_the_reference_less_the_biases_that_its_batch_norm_cancels():
    model = from_config("ds_cnn_mlperf")
    # mlcommons/tiny's model: 24,908, of which 9 convolutions' biases of 64 have no effect.
    assert model.count_params() == 24_908 - 9 * 64
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.2, 0.4]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.99, 1e-3)}
    kernels = [layer for layer in model.layers if "conv2d" in layer.name]
    assert len(model.losses) == len(kernels) == 9
    squares = sum(float(tf.reduce_sum(tf.square(layer.kernel))) for layer in kernels)
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), 1e-4 * squares, rtol=1e-5)


@pytest.mark.parametrize("input_shape", [*SHAPES, (1, 1)])
@pytest.mark.parametrize("name", SIZES[1:])
def test_any_feature_shape(name, input_shape):
    logits = from_config(name, input_shape, 3, filters=8)(features_of(2, *input_shape))
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("any_length", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_gradients_reach_all_weights(name, any_length):
    features, lengths = features_of(6, 25, 10), np.arange(20, 26, dtype=np.int32)
    model = from_config(name, (None if any_length else 25, 10), 3, filters=8, weight_decay=0.0)
    inputs = {"features": features, "num_frames": lengths} if any_length else features
    with tf.GradientTape() as tape:
        logits = model(inputs, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 0, 1, 2], logits))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


@pytest.mark.parametrize("name", SIZES[1:])
def test_logits_do_not_depend_on_the_padding_and_survive_saving(name, tmp_path):
    lengths = np.array([25, 26, 33, 40, 1, 2, 31, 38], np.int32)
    inputs = {"features": 10 * features_of(8, 40, 10), "num_frames": lengths}
    model = from_config(name, (None, 10), 3, filters=8)
    shake(model)
    together = model(inputs)
    for clip, length, logits in zip(inputs["features"], lengths, together, strict=True):
        alone = model({"features": clip[None, :length], "num_frames": np.array([length], np.int32)})
        np.testing.assert_allclose(logits, alone[0], rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), together, atol=1e-6)
