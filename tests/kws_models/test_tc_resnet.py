"""`tc_resnet`: the paper's sizes, the authors' wiring, lengths, errors, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_models.tc_resnet import tc_resnet
from tests.kws_models.test_every_model import SHAPES, features_of
from tests.kws_models.test_res import from_config, shake

# Three blocks, the second of them without a stride; no dropout, so that a training step can be compared.
SMALL = {"channels": (4, 6, 6, 8), "dropout_rate": 0.0, "batch_norm_momentum": 0.9}


@pytest.mark.parametrize(
    ("name", "parameters", "paper_thousands"),
    [
        ("tc_resnet8", 65_824, 66),
        ("tc_resnet8_1_5", 145_248, 145),
        ("tc_resnet14", 136_928, 137),
        ("tc_resnet14_1_5", 304_608, 305),
    ],
)
def test_parameters_are_the_authors_codes_and_round_to_the_papers(name, parameters, paper_thousands):
    # hyperconnect/TC-ResNet without its second head, running statistics counted.
    assert from_config(name, (98, 40), 12).count_params() == parameters
    assert round(parameters / 1000) == paper_thousands


def test_the_configs_regularise_as_the_authors_code():
    model = from_config("tc_resnet8", (98, 40), 12)
    kernels = [weight for weight in model.trainable_weights if weight.path.endswith("kernel")]
    squares = sum(float(tf.nn.l2_loss(kernel)) for kernel in kernels)  # TensorFlow's: half the sum of squares
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), 0.001 * squares, rtol=1e-5)
    assert len(model.losses) == len(kernels) == 11


def test_the_wiring_is_the_authors():
    """Their forward pass, written out; a block that changes the channels has stride 2 and a convolved shortcut."""
    model = tc_resnet((21, 10), 3, **SMALL)
    shake(model)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    straight = iter([layer for layer in convolutions if layer.kernel_size != (1, 1)])
    sideways = iter([layer for layer in convolutions if layer.kernel_size == (1, 1)])

    def convolve(x, stride=1, among=straight):
        layer = next(among)
        (norm,) = [norm for norm in norms if norm.input is layer.output]
        x = tf.nn.conv2d(x, layer.kernel, [stride, 1], "SAME")
        return (x - norm.moving_mean) / tf.sqrt(norm.moving_variance + 1e-3) * norm.gamma + norm.beta

    features = features_of(2, 21, 10, seed=1)
    x = tf.nn.relu(convolve(features[:, :, None, :]))
    shortcut = tf.nn.relu(convolve(x, 2, sideways))
    x = convolve(tf.nn.relu(convolve(x, 2)))
    x = tf.nn.relu(x + shortcut)
    x = tf.nn.relu(convolve(tf.nn.relu(convolve(x))) + x)
    shortcut = tf.nn.relu(convolve(x, 2, sideways))
    x = convolve(tf.nn.relu(convolve(x, 2)))
    x = tf.nn.relu(x + shortcut)
    logits = tf.reduce_mean(x, (1, 2)) @ model.layers[-1].kernel
    np.testing.assert_allclose(model(features), logits, atol=1e-4)
    assert [*straight, *sideways] == []


def test_kernels_reach_over_time_alone():
    model = tc_resnet((98, 40), 12)
    sizes = {layer.kernel_size for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
    assert sizes == {(3, 1), (1, 1), (9, 1)}


@pytest.mark.parametrize("input_shape", [*SHAPES, (1, 1), (2, 40)])
def test_any_feature_shape(input_shape):
    logits = tc_resnet(input_shape, 3)(features_of(2, *input_shape))
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()


def test_logits_stay_float32_in_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = tc_resnet((20, 12), 3)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model(features_of(1, 20, 12)).dtype == tf.float32


@pytest.mark.parametrize("any_length", [False, True])
def test_gradients_reach_all_weights(any_length):
    features, lengths = features_of(6, 24, 12), np.arange(19, 25, dtype=np.int32)
    model = tc_resnet((None if any_length else 24, 12), 3, **SMALL, weight_decay=0.0)
    inputs = {"features": features, "num_frames": lengths} if any_length else features
    with tf.GradientTape() as tape:
        logits = model(inputs, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 0, 1, 2], logits))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("input_shape", (0, 40)),
        ("input_shape", (98, None)),
        ("num_labels", 0),
        ("channels", (16,)),
        ("channels", (16, 0)),
        ("width_multiplier", 0.05),
        ("width_multiplier", -1.0),
        ("first_kernel_frames", 0),
        ("kernel_frames", 0),
        ("dropout_rate", 1.0),
        ("weight_decay", -1e-4),
        ("batch_norm_momentum", 1.0),
    ],
)
def test_a_bad_parameter_is_named_first(parameter, value):
    with pytest.raises(ValueError, match=f"^{parameter}: ") as error:
        tc_resnet(**{"input_shape": (98, 40), "num_labels": 12, parameter: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("any_length", [False, True])
def test_a_saved_model_loads_without_custom_objects(any_length, tmp_path):
    features = features_of(8, 24, 12)
    inputs = {"features": features, "num_frames": np.arange(17, 25, dtype=np.int32)} if any_length else features
    model = tc_resnet((None if any_length else 24, 12), 3, **SMALL)
    shake(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)


# --- clips of any length


@pytest.fixture(scope="module")
def any_length_model():
    model = tc_resnet((None, 10), 4, **SMALL)
    shake(model)
    return model


@settings(max_examples=20, deadline=None)
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
        np.testing.assert_allclose(logits, alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [49, 97])
def test_full_clips_get_the_logits_of_the_fixed_length_model(frames):
    # 97 → 49 → 25: odd before both strides (before an even number of frames the two are a frame apart, as documented).
    fixed, any_length = tc_resnet((frames, 10), 5, **SMALL), tc_resnet((None, 10), 5, **SMALL)
    shake(fixed)
    any_length.set_weights(fixed.get_weights())
    features = features_of(3, frames, 10, seed=1)
    inputs = {"features": features, "num_frames": np.full(3, frames, np.int32)}
    np.testing.assert_allclose(any_length(inputs), fixed(features), rtol=1e-4, atol=1e-5)


def test_a_training_step_on_padded_clips_is_the_one_on_bare_clips():
    clips = features_of(4, 33, 10)
    padded = np.concatenate([clips, 100 * features_of(4, 9, 10, seed=1)], axis=1)
    bare, model = tc_resnet((33, 10), 3, **SMALL), tc_resnet((None, 10), 3, **SMALL)
    model.set_weights(bare.get_weights())

    def step(model, inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(inputs, training=True) - 1))
        return tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    gradients = step(bare, clips)
    padded_gradients = step(model, {"features": padded, "num_frames": np.full(4, 33, np.int32)})
    for padded_gradient, gradient in zip(padded_gradients, gradients, strict=True):
        np.testing.assert_allclose(padded_gradient, gradient, rtol=1e-3, atol=1e-3)
    for padded_weight, weight in zip(model.get_weights(), bare.get_weights(), strict=True):
        np.testing.assert_allclose(padded_weight, weight, rtol=1e-4, atol=1e-5)  # running statistics among them


def test_a_clip_without_frames_has_finite_logits(any_length_model):
    inputs = {"features": features_of(2, 12, 10), "num_frames": np.array([0, 12], np.int32)}
    assert np.isfinite(any_length_model(inputs)).all()
