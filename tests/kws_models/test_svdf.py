"""SVDF: the example's arithmetic, for the last frame and for every frame; and the network on top of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_models.svdf import SVDF, LastFrames, low_latency_svdf
from tests.kws_models.networks import features_of, small, with_lengths


def layer_of(bins, *arguments, **options):
    """A built layer, its bias included, off its initial weights."""
    layer = SVDF(*arguments, **options)
    layer.build((None, None, bins))
    for seed, weight in enumerate(layer.weights):
        weight.assign(features_of(*weight.shape, seed=seed))
    return layer


def examples_units(window, frequency_kernel, time_kernel, bias, rank):
    """create_low_latency_svdf_model up to its first_bias, in float64 and its own order.

    window: [batch, memory, bins] → [batch, units].
    """
    batch, memory, bins = window.shape
    filters = frequency_kernel.shape[1]
    # The frequency filters slide over the flattened fingerprint in steps of one frame.
    fingerprint = window.reshape(batch, memory * bins).astype(np.float64)
    activations_time = np.zeros((filters, batch, memory))
    for frame in range(memory):
        activations_time[:, :, frame] = (fingerprint[:, frame * bins : (frame + 1) * bins] @ frequency_kernel).T
    outputs = np.zeros((filters, batch))
    for number in range(filters):
        outputs[number] = activations_time[number] @ time_kernel[:, number]
    units_output = outputs.reshape(filters // rank, rank, batch).sum(axis=1)
    return units_output.T + bias


# --- the layer


@settings(max_examples=40, deadline=None)
@given(
    units=st.integers(1, 5),
    memory_size=st.integers(1, 7),
    rank=st.integers(1, 3),
    frames=st.integers(1, 10),
    bins=st.integers(1, 6),
    batch=st.integers(1, 3),
    activation=st.sampled_from([None, "relu"]),
    seed=st.integers(0, 1000),
)
def test_whole_clips_and_streams_give_the_examples_outputs(
    units, memory_size, rank, frames, bins, batch, activation, seed
):
    clips = features_of(batch, frames, bins, seed=seed)
    layer = layer_of(bins, units, memory_size, rank=rank, activation=activation)
    padded = np.concatenate([np.zeros((batch, memory_size - 1, bins)), clips], axis=1)
    weights = [np.array(weight, np.float64) for weight in layer.weights]
    expected = np.stack(
        [
            examples_units(padded[:, end - memory_size : end], *weights, rank)
            for end in range(memory_size, memory_size + frames)
        ],
        axis=1,
    )
    if activation == "relu":
        expected = np.maximum(expected, 0)

    every_frame = SVDF(units, memory_size, rank=rank, activation=activation, return_sequences=True)
    every_frame.build(clips.shape)
    every_frame.set_weights(layer.get_weights())
    np.testing.assert_allclose(every_frame(clips), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(every_frame(clips, training=True), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer(clips), expected[:, -1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer(clips, training=True), expected[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("return_sequences", [False, True])
def test_symbolic_shapes_are_the_real_ones(return_sequences):
    for frames in (12, 3, None):
        x = keras.Input((frames, 5))
        y = SVDF(4, 6, return_sequences=return_sequences)(x)
        assert y.shape == ((None, frames, 4) if return_sequences else (None, 4))
        outputs = keras.Model(x, y).predict(features_of(2, frames or 8, 5), verbose=0)
        assert outputs.shape == ((2, frames or 8, 4) if return_sequences else (2, 4))


def test_training_has_the_gradients_of_the_filters_themselves():
    layer = layer_of(5, 4, 6, rank=2, activation="relu")
    clips = tf.constant(features_of(3, 6, 5))
    gradients = []
    for training in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(clips)
            loss = tf.reduce_sum(tf.square(layer(clips, training=training)))
        gradients.append(tape.gradient(loss, [clips, *[weight.value for weight in layer.trainable_variables]]))
    for multiplied_out, factored in zip(*gradients, strict=True):
        np.testing.assert_allclose(multiplied_out, factored, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("training", [True, False])
def test_mixed_precision_stays_near_float32(policy, training):
    clips = features_of(2, 20, 10)
    plain, mixed = SVDF(8, 20, rank=2), SVDF(8, 20, rank=2, dtype=policy)
    mixed.build(clips.shape)
    plain.build(clips.shape)
    weights = [0.01 * features_of(*weight.shape) for weight in plain.weights]
    plain.set_weights(weights)
    mixed.set_weights(weights)
    outputs = mixed(clips, training=training)
    assert outputs.dtype == mixed.compute_dtype
    expected = np.array(plain(clips))
    rounding = {"mixed_float16": 2e-3, "mixed_bfloat16": 2e-2}[policy] * np.abs(expected).max()
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), expected, atol=rounding)


def test_the_two_kernels_start_from_different_numbers():
    layer = SVDF(3, 5)
    layer.build((None, None, 5))
    assert np.abs(layer.frequency_kernel.numpy() - layer.time_kernel.numpy()).min() > 0


def test_a_layers_config_makes_the_same_layer():
    layer = SVDF(4, 6, rank=3, activation="relu", return_sequences=True, time_initializer="he_normal", name="ear")
    copy = SVDF.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert (copy.units, copy.memory_size, copy.rank, copy.return_sequences, copy.name) == (4, 6, 3, True, "ear")
    assert copy.activation is keras.activations.relu
    assert isinstance(copy.time_initializer, keras.initializers.HeNormal)


@pytest.mark.parametrize("parameter", ["units", "memory_size", "rank"])
def test_a_layer_without_filters_is_refused(parameter):
    with pytest.raises(ValueError, match=f"^{parameter}: must be a whole number, at least 1, got 0$"):
        SVDF(**{"units": 4, "memory_size": 6, parameter: 0})


def test_last_frames_ends_each_clip_where_its_padding_begins():
    x = np.arange(1, 13, dtype=np.float32).reshape(2, 6, 1)
    windows = np.array(LastFrames(4)(x, np.array([5, 2], np.int32)))
    np.testing.assert_array_equal(windows[..., 0], [[2, 3, 4, 5], [0, 0, 7, 8]])


# --- the network


def test_the_parameter_count_is_the_examples():
    # Of its trainable weights, as REFERENCE.md has it; the example's runtime memory is no weight here.
    model = low_latency_svdf((98, 40), 12)
    assert model.count_params() == 751_372
    assert not model.non_trainable_weights
    assert "751,372" in low_latency_svdf.__doc__


def test_logits_are_the_examples():
    model = small("low_latency_svdf", (20, 10), memory_size=None)
    for weight in model.weights:
        weight.assign(features_of(*weight.shape) * 0.1)
    frequency_kernel, time_kernel, bias, *linear = [np.array(weight, np.float64) for weight in model.weights]
    features = features_of(4, 20, 10)
    x = np.maximum(examples_units(features, frequency_kernel, time_kernel, bias, rank=2), 0)
    for kernel, bias in zip(linear[::2], linear[1::2], strict=True):
        x = x @ kernel + bias
    assert len(linear) == 6
    np.testing.assert_allclose(model(features), x, rtol=1e-4, atol=1e-4)


def test_the_examples_initialisers_and_dropout():
    model = low_latency_svdf((98, 40), 12)
    for weight in model.weights:
        if weight.name == "bias":
            assert not np.any(weight)
        else:
            assert np.abs(weight).max() <= 0.02  # cut at two deviations
            assert np.std(weight) == pytest.approx(0.0088, rel=0.1)
    dropouts = [index for index, layer in enumerate(model.layers) if isinstance(layer, keras.layers.Dropout)]
    assert [type(model.layers[index - 1]).__name__ for index in dropouts] == ["SVDF", "Dense", "Dense"]
    assert all(model.layers[index].rate == 0.5 for index in dropouts)


@pytest.mark.parametrize("frames", [30, None])
def test_gradients_reach_all_of_the_memory(frames):
    model = small("low_latency_svdf", (frames, 10), units=64, memory_size=30)
    inputs = features_of(16, 30, 10)
    if frames is None:
        inputs = with_lengths(inputs, range(15, 31))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(inputs, training=True) - 1))
    time_kernel = tape.gradient(loss, model.trainable_variables)[1]
    assert all(np.abs(time_kernel[row]).max() > 0 for row in range(30))


def test_clips_of_any_length_need_a_memory():
    message = "^memory_size: must be given where clips have no common length.*clip_ms=1000.*$"
    with pytest.raises(ValueError, match=message):
        low_latency_svdf((None, 40), 12)


@pytest.mark.parametrize("frames", [1, 7, 20, 40])
def test_clips_shorter_and_longer_than_the_memory_get_the_logits_of_the_fixed_length_model(frames):
    any_length, fixed = (small("low_latency_svdf", (size, 10)) for size in (None, frames))
    clips = features_of(2, frames, 10)
    padded = np.concatenate([clips, 100 * features_of(2, 5, 10)], axis=1)
    np.testing.assert_allclose(any_length(with_lengths(padded, [frames] * 2)), fixed(clips), atol=1e-5)
