"""Hello Edge's three sizes of `ds_cnn` and MLPerf Tiny's: counts, memory, settings."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_models.ds_cnn import ds_cnn
from tests.kws_models.networks import features_of, from_config, layers_of


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
    model = from_config(name, (49, 10))
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
    layers = [layer for layer in from_config(name, (49, 10)).layers if "conv2d" in layer.name]
    assert [layer.output.shape[1:] for layer in layers] == sizes


def test_mlperf_is_the_reference_less_the_biases_that_its_batch_norm_cancels():
    model = from_config("ds_cnn_mlperf", (49, 10))
    # mlcommons/tiny's model: 24,908, of which 9 convolutions' biases of 64 have no effect.
    assert model.count_params() == 24_908 - 9 * 64
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.2, 0.4]
    norms = layers_of(model, keras.layers.BatchNormalization)
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.99, 1e-3)}
    kernels = [layer for layer in model.layers if "conv2d" in layer.name]
    assert len(model.losses) == len(kernels) == 9
    squares = sum(float(tf.reduce_sum(tf.square(layer.kernel))) for layer in kernels)
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), 1e-4 * squares, rtol=1e-5)


@pytest.mark.parametrize(
    "arguments", [{}, {"block_strides": (2, 2)}, {"first_kernel": (5, 3), "first_strides": (3, 2)}]
)
def test_odd_kernels_and_further_strides_honour_lengths_too(arguments):
    model = ds_cnn((None, 11), 3, filters=8, num_blocks=2, **arguments)
    clip = features_of(1, 31, 11)
    alone = model({"features": clip, "num_frames": np.array([31], np.int32)})
    for padding in range(1, 6):
        padded = np.concatenate([clip, np.full((1, padding, 11), 50, np.float32)], axis=1)
        logits = model({"features": padded, "num_frames": np.array([31], np.int32)})
        np.testing.assert_allclose(logits, alone, atol=1e-5)


def test_fixed_lengths_leave_no_trace_of_masks():
    model = ds_cnn((49, 40), 12)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras", "kws_models"}
    assert {type(layer).__name__ for layer in model.layers if type(layer).__module__.startswith("kws_models")} == {
        "BatchNormalization"
    }
