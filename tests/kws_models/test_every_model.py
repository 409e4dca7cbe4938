"""The architectures: sizes, shapes, lengths, errors, saving."""

import itertools
import warnings
from pathlib import Path

import hydra
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from kws_models.cnn4 import cnn4
from kws_models.conv import conv, low_latency_conv
from kws_models.ds_cnn import ds_cnn
from kws_models.inputs import smallest_input
from kws_models.layers import adapt_normalization
from kws_models.masking import MaskedBatchNormalization, global_average_pool, same_conv
from kws_models.simple_audio import simple_audio

CONF = Path(__file__).parents[2] / "conf" / "model"
FLATTENING = {"conv": conv, "low_latency_conv": low_latency_conv, "simple_audio": simple_audio, "cnn4": cnn4}
# Features of one second: log spectrogram, log-mel or MFCC 30/10, log-mel 40/20, MFCC 40/20.
SHAPES = [(98, 257), (98, 40), (49, 40), (49, 10)]


def features_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def train_briefly(model, inputs, num_labels):
    """Move every weight and running statistic off its initial value."""
    labels = np.arange(len(inputs["features"] if isinstance(inputs, dict) else inputs)) % num_labels
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(inputs, labels, epochs=2, batch_size=4, verbose=0)


# --- sizes and shapes


@pytest.mark.parametrize(
    ("name", "input_shape", "num_labels", "parameters"),
    [
        ("conv", (98, 40), 12, 926_860),
        ("low_latency_conv", (98, 40), 12, 949_862),
        ("simple_audio", (124, 129), 8, 1_625_611),
        ("cnn4", (98, 257), 30, 2_226_846),
    ],
)
def test_parameter_counts_are_the_originals(name, input_shape, num_labels, parameters):
    model = FLATTENING[name](input_shape, num_labels)
    assert model.count_params() == parameters
    non_trainable = sum(int(np.prod(weight.shape)) for weight in model.non_trainable_weights)
    assert non_trainable == (3 if name == "simple_audio" else 0)


def test_ds_cnn_s_has_the_papers_count_once_batch_norm_is_folded():
    model = ds_cnn((49, 10), 12)
    folded = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            folded += layer.moving_mean.shape[0]  # what is left of it: one bias per output channel
        else:
            folded += layer.count_params()
    assert folded == 22_604
    assert model.count_params() == 24_332  # as the docstring has it


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_builds_a_model_that_maps_features_to_logits(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert lines[1].startswith("# Source: ")
    model = hydra.utils.instantiate(OmegaConf.load(path), input_shape=(98, 64), num_labels=5)
    logits = model(features_of(2, 98, 64))
    assert logits.shape == (2, 5)
    assert logits.dtype == tf.float32
    assert model.input.shape == (None, 98, 64)
    # Logits, not probabilities.
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize("input_shape", SHAPES)
@pytest.mark.parametrize("build", [conv, low_latency_conv, simple_audio, ds_cnn])
def test_models_take_every_feature_shape(build, input_shape):
    logits = build(input_shape, 3)(features_of(1, *input_shape))
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("build", [*FLATTENING.values(), ds_cnn])
def test_logits_stay_float32_in_mixed_precision(build):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build((98, 64), 3)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model(features_of(1, 98, 64)).dtype == tf.float32


@pytest.mark.parametrize("build", [conv, low_latency_conv])
def test_the_examples_initialisers(build):
    model = build((49, 40), 12)
    kernels = [weight.numpy() for weight in model.weights if weight.path.endswith("kernel")]
    biases = [weight.numpy() for weight in model.weights if weight.path.endswith("bias")]
    assert all(np.abs(kernel).max() <= 0.02 for kernel in kernels)  # cut at two deviations
    assert all(0.008 < kernel.std() < 0.01 for kernel in kernels if kernel.size > 5000)
    assert all(not bias.any() for bias in biases)


# --- saving


@pytest.mark.parametrize("name", [*FLATTENING, "ds_cnn", "ds_cnn of any length"])
def test_a_saved_model_loads_without_custom_objects(name, tmp_path):
    features = features_of(8, 64, 48)
    inputs = features
    if name == "ds_cnn of any length":
        model = ds_cnn((None, 48), 3, filters=8, num_blocks=2)
        inputs = {"features": features, "num_frames": np.arange(57, 65, dtype=np.int32)}
    elif name == "ds_cnn":
        model = ds_cnn((64, 48), 3, filters=8, num_blocks=2)
    else:
        model = FLATTENING[name]((64, 48), 3)
        adapt_normalization(model, [features])
    train_briefly(model, inputs, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-6)


# --- too small, and other mistakes


@settings(max_examples=50, deadline=None)
@given(
    windows=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=5),
    longer=st.integers(0, 10),
)
def test_the_smallest_input_is_what_unpadded_layers_need(windows, longer):
    def fits(length):
        for size, stride in windows:
            length = (length - size) // stride + 1 if length >= size else 0
        return length >= 1

    smallest = smallest_input(windows)
    assert fits(smallest + longer)
    assert not fits(smallest - 1)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_cnn4_builds_from_its_stated_minimum_and_not_below(depth):
    smallest = {1: 4, 2: 10, 3: 22, 4: 46}[depth]
    filters = (4,) * depth
    for frames, bins in itertools.product((smallest - 1, smallest, smallest + 1), repeat=2):
        if min(frames, bins) >= smallest:
            logits = cnn4((frames, bins), 2, filters=filters)(features_of(1, frames, bins))
            assert logits.shape == (1, 2)
            continue
        message = f"input_shape: cnn4 needs at least {smallest} frames x {smallest} bins, got {frames} x {bins}$"
        with pytest.raises(ValueError, match=message):
            cnn4((frames, bins), 2, filters=filters)
    # The bare layers agree that one less does not do.
    stack = [layer for _ in filters for layer in (keras.layers.Conv2D(4, 3), keras.layers.MaxPooling2D())]
    with pytest.raises(ValueError, match=r"Computed output size would be zero or negative"):
        keras.Sequential([keras.Input((smallest - 1, smallest, 1)), *stack])


@pytest.mark.parametrize(
    ("build", "smallest"), [(conv, (1, 1)), (low_latency_conv, (1, 8)), (simple_audio, (1, 1)), (ds_cnn, (1, 1))]
)
def test_the_other_minima(build, smallest):
    frames, bins = smallest
    assert build(smallest, 2)(features_of(1, frames, bins)).shape == (1, 2)
    for shape in ((frames - 1, bins), (frames, bins - 1)):
        message = (
            f"^input_shape: {build.__name__} needs at least {frames} frames x {bins} bins, got {shape[0]} x {shape[1]}$"
        )
        with pytest.raises(ValueError, match=message):
            build(shape, 2)


@pytest.mark.parametrize("name", FLATTENING)
def test_a_flattening_network_refuses_clips_of_any_length(name):
    with pytest.raises(ValueError, match=f"^input_shape: {name} flattens its feature map .* clip_ms=1000.*ds_cnn_s"):
        FLATTENING[name]((None, 64), 12)


@pytest.mark.parametrize(
    ("build", "parameter", "value"),
    [
        (conv, "dropout_rate", 1.0),
        (low_latency_conv, "dropout_rate", -0.1),
        (simple_audio, "image_size", (5, 32)),
        (simple_audio, "image_size", (32,)),
        (simple_audio, "dense_dropout_rate", 2),
        (cnn4, "conv_dropout_rate", 1.5),
        (cnn4, "filters", ()),
        (ds_cnn, "filters", 0),
        (ds_cnn, "num_blocks", -1),
        (ds_cnn, "first_kernel", (10, 0)),
        (ds_cnn, "first_strides", (2,)),
        (ds_cnn, "block_strides", (2, 1)),
        (ds_cnn, "weight_decay", -1e-4),
        *[(build, "num_labels", 0) for build in (*FLATTENING.values(), ds_cnn)],
    ],
)
def test_a_bad_parameter_is_named_first(build, parameter, value):
    with pytest.raises(ValueError, match=f"^{parameter}: "):
        build((98, 64), **{"num_labels": 12, parameter: value})


# --- clips of any length


@pytest.fixture(scope="module")
def any_length_model():
    model = ds_cnn((None, 10), 4, filters=8, num_blocks=2)
    inputs = {"features": features_of(16, 40, 10), "num_frames": np.arange(25, 41, dtype=np.int32)}
    train_briefly(model, inputs, 4)
    return model


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
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
        np.testing.assert_allclose(logits, alone[0], atol=1e-5)


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


@pytest.mark.parametrize("frames", [49, 98])
def test_full_clips_get_the_logits_of_the_fixed_length_model(frames):
    fixed, any_length = ds_cnn((frames, 40), 5), ds_cnn((None, 40), 5)
    any_length.set_weights(fixed.get_weights())
    features = features_of(3, frames, 40)
    inputs = {"features": features, "num_frames": np.full(3, frames, np.int32)}
    np.testing.assert_allclose(any_length(inputs), fixed(features), atol=1e-5)


def test_a_training_step_on_padded_clips_is_the_one_on_bare_clips():
    clips = features_of(4, 30, 10)
    padded = np.concatenate([clips, 100 * features_of(4, 9, 10, seed=1)], axis=1)
    lengths = np.full(4, 30, np.int32)
    bare, model = ds_cnn((30, 10), 3, filters=8), ds_cnn((None, 10), 3, filters=8)
    model.set_weights(bare.get_weights())

    def step(model, inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(inputs, training=True) - 1))
        return tape.gradient(loss, model.trainable_variables)

    for padded_gradient, gradient in zip(
        step(model, {"features": padded, "num_frames": lengths}), step(bare, clips), strict=True
    ):
        np.testing.assert_allclose(padded_gradient, gradient, rtol=1e-3, atol=1e-4)
    for padded_weight, weight in zip(model.get_weights(), bare.get_weights(), strict=True):
        np.testing.assert_allclose(padded_weight, weight, atol=1e-5)  # running mean and variance among them


def test_a_clip_without_frames_has_finite_logits(any_length_model):
    inputs = {"features": features_of(2, 12, 10), "num_frames": np.array([0, 12], np.int32)}
    assert np.isfinite(any_length_model(inputs)).all()


def test_masked_batch_norm_leaves_padding_out_of_its_statistics():
    x = features_of(3, 6, 5, 2) * 3 + 1
    lengths = np.array([6, 2, 4], np.int32)
    real = np.concatenate([clip[:length].reshape(-1, 2) for clip, length in zip(x, lengths, strict=True)])
    layer = MaskedBatchNormalization(momentum=0.0)
    outputs = np.array(layer(x, lengths, training=True))
    np.testing.assert_allclose(layer.moving_mean, real.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, real.var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(outputs[0], (x[0] - real.mean(axis=0)) / np.sqrt(real.var(axis=0) + 1e-3), atol=1e-5)


def test_fixed_lengths_leave_no_trace_of_masks():
    model = ds_cnn((49, 40), 12)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras", "kws_models"}
    assert {type(layer).__name__ for layer in model.layers if type(layer).__module__.startswith("kws_models")} == {
        "BatchNormalization"
    }


def test_any_length_models_run_without_keras_mask_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ds_cnn((None, 10), 3, filters=4, num_blocks=1)
        model({"features": features_of(2, 12, 10), "num_frames": np.array([5, 12], np.int32)}, training=True)


def test_same_conv_counts_frames_as_same_padding_does():
    for frames, stride in itertools.product(range(1, 8), (1, 2, 3)):
        x = keras.Input((None, 6, 1))
        num_frames = keras.Input((), dtype="int32")
        y, count = same_conv(
            lambda **window: keras.layers.Conv2D(1, **window), x, num_frames, kernel_size=(4, 3), strides=(stride, 2)
        )
        model = keras.Model([x, num_frames], [y, count, global_average_pool(y, count)])
        maps, counts, _ = model([features_of(1, frames, 6, 1), np.array([frames], np.int32)])
        assert maps.shape == (1, -(-frames // stride), 3, 1)
        assert int(counts[0]) == maps.shape[1]
