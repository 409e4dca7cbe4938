"""`matchboxnet`: NeMo's sizes and wiring, lengths, errors, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_models.matchboxnet import matchboxnet
from tests.kws_models.test_every_model import SHAPES, features_of
from tests.kws_models.test_res import count_trained, from_config, shake

SMALL = {"filters": 4, "repeats": 2, "block_kernels": (3, 5), "outer_filters": 6, "last_kernel": 7}


@pytest.mark.parametrize(
    ("name", "trained", "paper_thousands"), [("matchboxnet_3x1x64", 77_214, 77), ("matchboxnet_3x2x64", 92_766, 93)]
)
def test_trained_parameters_are_nemos_and_round_to_the_papers(name, trained, paper_thousands):
    def separable(channels_in, channels, kernel):
        return channels_in * kernel + channels_in * channels + 2 * channels  # with the norm's scale and offset

    repeats = int(name[len("matchboxnet_3x")])
    nemo = separable(64, 128, 11)
    for channels_in, kernel in ((128, 13), (64, 15), (64, 17)):
        nemo += separable(channels_in, 64, kernel) + (repeats - 1) * separable(64, 64, kernel)
        nemo += channels_in * 64 + 2 * 64  # the residual's pointwise convolution and norm
    nemo += separable(64, 128, 29) + 128 * 128 + 2 * 128 + 128 * 30 + 30
    assert count_trained(from_config(name, (101, 64), 30)) == nemo == trained
    assert round(trained / 1000) == paper_thousands


@pytest.mark.parametrize("arguments", [SMALL, SMALL | {"repeats": 1}])
def test_the_wiring_is_nemos(arguments):
    """Its forward pass, written out: dense kernels, zeros on both sides, ReLU after the sum with the residual."""
    model = matchboxnet((21, 10), 3, **arguments)
    shake(model)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    depthwise = iter([layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)])
    # A norm per pointwise convolution; the residual's comes from the block's input, so it is no depthwise one's output.
    pointwise = [layer for layer in model.layers if type(layer) is keras.layers.Conv2D]
    straight, sideways = [], []
    for layer in pointwise:
        follows_depthwise = isinstance(layer.input._keras_history.operation, keras.layers.DepthwiseConv2D)
        (straight if follows_depthwise else sideways).append(layer)
    last = sideways.pop()
    straight, sideways = iter(straight), iter(sideways)

    def convolve(x, layer):
        (norm,) = [norm for norm in norms if norm.input is layer.output]
        x = tf.nn.conv2d(x, layer.kernel, 1, "VALID")
        return (x - norm.moving_mean) / tf.sqrt(norm.moving_variance + 1e-3) * norm.gamma + norm.beta

    def separable(x, dilation=1):
        layer = next(depthwise)
        kernel = tf.linalg.diag(layer.kernel.value[..., 0])
        zeros = dilation * (kernel.shape[0] - 1) // 2
        x = tf.nn.conv2d(x, kernel, 1, [[0, 0], [zeros, zeros], [0, 0], [0, 0]], dilations=(dilation, 1))
        return convolve(x, next(straight))

    features = features_of(2, 21, 10, seed=1)
    x = tf.nn.relu(separable(features[:, :, None, :]))
    for _ in arguments["block_kernels"]:
        residual = convolve(x, next(sideways))
        for _ in range(arguments["repeats"] - 1):
            x = tf.nn.relu(separable(x))
        x = tf.nn.relu(separable(x) + residual)
    x = tf.nn.relu(separable(x, dilation=2))
    x = tf.nn.relu(convolve(x, last))
    logits = model.layers[-1](tf.reduce_mean(x, (1, 2)))
    assert [next(rest, None) for rest in (depthwise, straight, sideways)] == [None] * 3
    np.testing.assert_allclose(model(features), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("input_shape", [*SHAPES, (101, 64), (1, 1), (3, 2)])
def test_any_feature_shape(input_shape):
    logits = matchboxnet(input_shape, 3)(features_of(2, *input_shape))
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()


def test_dropout_follows_every_relu():
    model = matchboxnet((20, 10), 3, dropout_rate=0.25, **SMALL)
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    relus = [layer for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    assert [layer.input for layer in dropouts] == [layer.output for layer in relus]
    assert len(relus) == 1 + 2 * 2 + 2
    assert {layer.rate for layer in dropouts} == {0.25}


def test_logits_stay_float32_in_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = matchboxnet((20, 12), 3, **SMALL)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model(features_of(2, 20, 12), training=True).dtype == tf.float32


@pytest.mark.parametrize("any_length", [False, True])
def test_gradients_reach_all_weights(any_length):
    features, lengths = features_of(6, 24, 12), np.arange(19, 25, dtype=np.int32)
    model = matchboxnet((None if any_length else 24, 12), 3, **SMALL)
    inputs = {"features": features, "num_frames": lengths} if any_length else features
    with tf.GradientTape() as tape:
        logits = model(inputs, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 0, 1, 2], logits))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


@pytest.mark.parametrize("any_length", [False, True])
def test_a_saved_model_loads_without_custom_objects(any_length, tmp_path):
    features = features_of(8, 24, 12)
    inputs = {"features": features, "num_frames": np.arange(17, 25, dtype=np.int32)} if any_length else features
    model = matchboxnet((None if any_length else 24, 12), 3, **SMALL)
    shake(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), model(inputs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("num_labels", 0),
        ("filters", 0),
        ("repeats", 0),
        ("block_kernels", ()),
        ("block_kernels", (13, 0)),
        ("outer_filters", 0),
        ("first_kernel", 0),
        ("last_kernel", -1),
        ("last_dilation", 0),
        ("dropout_rate", 1.0),
        ("batch_norm_momentum", -0.1),
    ],
)
def test_a_bad_parameter_is_named_first(parameter, value):
    with pytest.raises(ValueError, match=f"^{parameter}: ") as error:
        matchboxnet((98, 64), **{"num_labels": 30, parameter: value})
    assert "\n" not in str(error.value)


def test_features_without_frames_or_bins():
    for shape in ((0, 40), (98, 0), (98, None)):
        with pytest.raises(ValueError, match=r"^input_shape: "):
            matchboxnet(shape, 12)


# --- clips of any length


@pytest.fixture(scope="module")
def any_length_model():
    model = matchboxnet((None, 10), 4, **SMALL)
    shake(model)
    return model


@settings(max_examples=20, deadline=None)
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
    fixed, any_length = matchboxnet((frames, 10), 5, **SMALL), matchboxnet((None, 10), 5, **SMALL)
    shake(fixed)
    any_length.set_weights(fixed.get_weights())
    features = features_of(3, frames, 10, seed=1)
    inputs = {"features": features, "num_frames": np.full(3, frames, np.int32)}
    np.testing.assert_allclose(any_length(inputs), fixed(features), rtol=1e-4, atol=1e-4)


def test_a_training_step_on_padded_clips_is_the_one_on_bare_clips():
    clips = features_of(4, 30, 10)
    padded = np.concatenate([clips, 100 * features_of(4, 9, 10, seed=1)], axis=1)
    bare, model = matchboxnet((30, 10), 3, **SMALL), matchboxnet((None, 10), 3, **SMALL)
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
