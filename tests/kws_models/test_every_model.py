"""The contract that every model of conf/model/ keeps: sizes, shapes, lengths, errors, gradients, saving.

A config that is new in conf/model/ is tested as it is; entries in `networks._SMALL` and in the tables here are needed
only where it is large, takes no feature map of 1 x 1 or flattens its features.
"""

import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_experiments.config.compose import CONF
from kws_experiments.reports.model_table import choose
from kws_models.layers import adapt_normalization
from tests.kws_models.networks import (
    NAMES,
    SHAPES,
    VARIANTS,
    count_trained,
    features_of,
    from_config,
    shake,
    small,
    with_lengths,
)

FLATTENING = ["cnn4", "conv", "low_latency_conv", "simple_audio", "single_fc", "tiny_conv", "tiny_embedding_conv"]
ANY_LENGTH = [name for name in VARIANTS if name not in FLATTENING]
NETWORKS = [*((name, False) for name in VARIANTS), *((name, True) for name in ANY_LENGTH)]
SMALLEST = {
    "cnn4": (46, 46), "ds_cnn_s_causal": (2, 1), "low_latency_conv": (1, 8), "mixconv": (3, 1), "res8": (4, 3),
    "res26": (2, 2), "tc_resnet8_causal": (4, 1),
}  # fmt: skip
each_network = pytest.mark.parametrize(("name", "any_length"), NETWORKS)


def network_and_inputs(name, any_length):
    """A small network off its initial weights, with six clips: of one length, or of several, padded."""
    frames, bins = (48, 48) if name == "cnn4" else (24, 20)
    features = features_of(6, frames, bins)
    if not any_length:
        model = shake(small(name, (frames, bins)))
        adapt_normalization(model, [features])
        return model, features
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras warns of layers that lose a mask
        return shake(small(name, (None, bins))), with_lengths(features, range(frames - 5, frames + 1))


# --- sizes and shapes


@pytest.mark.parametrize("name", NAMES)
def test_every_config_builds_its_sources_network(name):
    """For the features and the task of its source, with as many parameters as that reports."""
    lines = (CONF / "model" / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[1].startswith("# Source: ")
    choice = choose(name)
    model = choice.build()
    assert model.input.shape == (None, *choice.shape())
    logits = model(features_of(2, *choice.shape()))
    assert logits.shape == (2, choice.num_labels())
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()
    assert model.layers[-1].activation is keras.activations.linear  # logits, not probabilities

    published = choice.published
    if published.counted in ("parameters", "trained"):
        count = count_trained(model) if published.counted == "trained" else model.count_params()
        thousands = re.fullmatch(r"\d+(\.\d+)? k", published.parameters)
        digits = len((thousands[1] or ".")[1:]) if thousands else 0
        printed = f"{count / 1000:.{digits}f} k" if thousands else f"{count:,}"
        assert printed == published.parameters


@pytest.mark.parametrize("name", VARIANTS)
def test_any_feature_shape_from_the_smallest_up(name):
    frames, bins = SMALLEST.get(name, (1, 1))
    for shape in (*SHAPES, (frames, bins)):
        if shape[0] >= frames and shape[1] >= bins:
            logits = small(name, shape)(features_of(2, *shape))
            assert logits.shape == (2, 3)
            assert np.isfinite(logits).all()
    for shape in ((frames - 1, bins), (frames, bins - 1)):
        message = rf"^input_shape: \w+ needs at least {frames} frames x {bins} bins, got {shape[0]} x {shape[1]}$"
        with pytest.raises(ValueError, match=message):
            small(name, shape)


@each_network
def test_logits_stay_float32_in_mixed_precision(name, any_length):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model, inputs = network_and_inputs(name, any_length)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    logits = model(inputs, training=True)
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()


# --- training and saving


def gradients_of(model, inputs, targets):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(inputs, training=True) - targets))
    return tape.gradient(loss, [weight.value for weight in model.trainable_weights])


@each_network
def test_gradients_reach_all_weights(name, any_length):
    model, inputs = network_and_inputs(name, any_length)
    targets = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    assert all(np.abs(gradient).max() > 0 for gradient in gradients_of(model, inputs, targets))


@each_network
def test_a_saved_model_loads_without_custom_objects(name, any_length, tmp_path):
    model, inputs = network_and_inputs(name, any_length)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), model(inputs), rtol=1e-6, atol=1e-6)


# --- mistakes


@pytest.mark.parametrize(
    ("name", "parameter", "values"),
    [
        *[(name, "num_labels", [0]) for name in VARIANTS],
        *[(name, "input_shape", [(98, None)]) for name in VARIANTS],
        ("bc_resnet_1", "tau", [0.1, -1, float("nan")]),
        ("bc_resnet_1", "sub_bands", [0]),
        ("bc_resnet_1", "dropout_rate", [1.0]),
        ("bc_resnet_1", "batch_norm_momentum", [-0.1]),
        ("cnn4", "conv_dropout_rate", [1.5]),
        ("cnn4", "filters", [()]),
        ("conv", "dropout_rate", [1.0]),
        ("ds_cnn_s", "filters", [0]),
        ("ds_cnn_s", "num_blocks", [-1]),
        ("ds_cnn_s", "first_kernel", [(10, 0)]),
        ("ds_cnn_s", "first_strides", [(2,)]),
        ("ds_cnn_s", "block_strides", [(2, 1)]),
        ("ds_cnn_s", "weight_decay", [-1e-4]),
        ("low_latency_conv", "dropout_rate", [-0.1]),
        ("low_latency_svdf", "rank", [0]),
        ("low_latency_svdf", "units", [0]),
        ("low_latency_svdf", "memory_size", [0]),
        ("low_latency_svdf", "dropout_rate", [1.0]),
        ("matchboxnet_3x1x64", "filters", [0]),
        ("matchboxnet_3x1x64", "repeats", [0]),
        ("matchboxnet_3x1x64", "block_kernels", [(), (13, 0)]),
        ("matchboxnet_3x1x64", "outer_filters", [0]),
        ("matchboxnet_3x1x64", "first_kernel", [0]),
        ("matchboxnet_3x1x64", "last_kernel", [-1]),
        ("matchboxnet_3x1x64", "last_dilation", [0]),
        ("matchboxnet_3x1x64", "dropout_rate", [1.0]),
        ("matchboxnet_3x1x64", "batch_norm_momentum", [-0.1]),
        *[(name, "causal", [1]) for name in VARIANTS if name.endswith("_causal")],
        ("mixconv", "first_filters", [0]),
        ("mixconv", "first_kernel", [0]),
        ("mixconv", "first_stride", [0]),
        ("mixconv", "filters", [0, 1]),
        ("mixconv", "block_kernels", [(), 5, (5, 7), ((5,), (0,)), ((),)]),
        ("mixconv", "dropout_rate", [1.0]),
        ("mixconv", "batch_norm_momentum", [-0.1]),
        ("mhatt_rnn", "conv_filters", [(10, 0)]),
        ("mhatt_rnn", "conv_kernel_frames", [0]),
        ("mhatt_rnn", "rnn_layers", [0]),
        ("mhatt_rnn", "rnn_units", [0]),
        ("mhatt_rnn", "heads", [0]),
        ("mhatt_rnn", "dense_units", [(0,)]),
        ("mhatt_rnn", "dropout_rate", [1.0]),
        ("res8", "filters", [0]),
        ("res8", "num_layers", [0]),
        ("res8", "pool_size", [(4,), (0, 3)]),
        ("res8", "batch_norm_momentum", [1.0]),
        ("simple_audio", "image_size", [(5, 32), (32,)]),
        ("simple_audio", "dense_dropout_rate", [2]),
        ("tc_resnet8", "channels", [(16,), (16, 0)]),
        ("tc_resnet8", "width_multiplier", [0.05, -1.0]),
        ("tc_resnet8", "first_kernel_frames", [0]),
        ("tc_resnet8", "kernel_frames", [0]),
        ("tc_resnet8", "dropout_rate", [1.0]),
        ("tc_resnet8", "weight_decay", [-1e-4]),
        ("tc_resnet8", "batch_norm_momentum", [1.0]),
        ("tiny_conv", "dropout_rate", [-0.1, 1.0]),
        ("tiny_embedding_conv", "dropout_rate", [-0.1, 1.0]),
    ],
)
def test_a_bad_parameter_is_named_first(name, parameter, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{parameter}: ") as error:
            from_config(name, **{parameter: value})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", FLATTENING)
def test_a_flattening_network_refuses_clips_of_any_length(name):
    with pytest.raises(ValueError, match=f"^input_shape: {name} flattens its feature map .* clip_ms=1000.*ds_cnn_s"):
        from_config(name, (None, 64))


# --- clips of any length


@pytest.fixture(scope="module", params=ANY_LENGTH)
def any_length_model(request):
    return shake(small(request.param, (None, 10), 4))


@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    padding=st.integers(0, 7),
    seed=st.integers(0, 1000),
)
def test_logits_do_not_depend_on_the_padding(any_length_model, lengths, padding, seed):
    clips = [features_of(length, 10, seed=seed + index) for index, length in enumerate(lengths)]
    # Garbage, not zeros, in the frames that are padding
    batch = 100 * features_of(len(clips), max(lengths) + padding, 10, seed=seed + 100)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    together = any_length_model(with_lengths(batch, lengths))
    for logits, clip in zip(together, clips, strict=True):
        alone = any_length_model(with_lengths(clip[None], [len(clip)]))
        np.testing.assert_allclose(logits, alone[0], rtol=1e-4, atol=1e-4)


def test_a_clip_without_frames_has_finite_logits(any_length_model):
    assert np.isfinite(any_length_model(with_lengths(features_of(2, 12, 10), [0, 12]))).all()


@pytest.mark.parametrize("name", ANY_LENGTH)
def test_full_clips_get_the_logits_of_the_fixed_length_model(name):
    # Before the second stride of tc_resnet 98 frames are even; the two are then a frame apart, as documented.
    for frames in (49, 97 if name.startswith("tc_resnet") else 98):
        fixed, any_length = shake(small(name, (frames, 10))), small(name, (None, 10))
        any_length.set_weights(fixed.get_weights())
        features = features_of(3, frames, 10, seed=1)
        logits = any_length(with_lengths(features, [frames] * 3))
        np.testing.assert_allclose(logits, fixed(features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ANY_LENGTH)
def test_a_training_step_on_padded_clips_is_the_one_on_bare_clips(name):
    clips = features_of(4, 33, 10)
    padded = np.concatenate([clips, 100 * features_of(4, 9, 10, seed=1)], axis=1)
    bare, model = small(name, (33, 10)), small(name, (None, 10))
    model.set_weights(bare.get_weights())
    targets = np.array([1.0, 0.0, -1.0])
    gradients = gradients_of(bare, clips, targets)
    padded_gradients = gradients_of(model, with_lengths(padded, [33] * 4), targets)
    for padded_gradient, gradient in zip(padded_gradients, gradients, strict=True):
        np.testing.assert_allclose(padded_gradient, gradient, rtol=1e-3, atol=1e-3)
    for padded_weight, weight in zip(model.get_weights(), bare.get_weights(), strict=True):
        np.testing.assert_allclose(padded_weight, weight, rtol=1e-4, atol=1e-5)  # running statistics among them
