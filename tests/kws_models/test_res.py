"""`res`: the paper's sizes, the authors' wiring, lengths, errors, saving."""

from pathlib import Path

import hydra
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from kws_models.masking import average_pool
from kws_models.res import res
from tests.kws_models.test_every_model import SHAPES, features_of

CONF = Path(__file__).parents[2] / "conf" / "model"
# Small networks with each of the family's features: pooling and blocks; dilation and an odd number of layers.
SMALL = {
    "pooled": {"filters": 6, "num_layers": 4, "pool_size": (4, 3)},
    "dilated": {"filters": 6, "num_layers": 7, "pool_size": (1, 1), "dilated": True},
}


def from_config(name, input_shape, num_labels):
    return hydra.utils.instantiate(
        OmegaConf.load(CONF / f"{name}.yaml"), input_shape=input_shape, num_labels=num_labels
    )


def shake(model):
    """Move every weight and running statistic off its initial value, variances staying positive."""
    random = np.random.default_rng(0)
    model.set_weights(
        [w * random.uniform(0.5, 1.5, w.shape) + random.uniform(0, 0.1, w.shape) for w in model.get_weights()]
    )


def count_trained(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


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
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
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


@pytest.mark.parametrize("input_shape", [*SHAPES, (4, 3), (5, 7)])
def test_any_feature_shape_from_one_pooling_window_up(input_shape):
    logits = res(input_shape, 3, filters=4)(features_of(2, *input_shape))
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("arguments", SMALL.values(), ids=SMALL)
def test_logits_stay_float32_in_mixed_precision(arguments):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = res((20, 12), 3, **arguments)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model(features_of(1, 20, 12)).dtype == tf.float32


@pytest.mark.parametrize("any_length", [False, True])
@pytest.mark.parametrize("arguments", SMALL.values(), ids=SMALL)
def test_gradients_reach_all_weights(arguments, any_length):
    features, lengths = features_of(6, 24, 12), np.arange(19, 25, dtype=np.int32)
    model = res((None if any_length else 24, 12), 3, **arguments)
    inputs = {"features": features, "num_frames": lengths} if any_length else features
    with tf.GradientTape() as tape:
        logits = model(inputs, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 0, 1, 2], logits))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


@pytest.mark.parametrize(
    ("input_shape", "message"),
    [
        ((3, 40), "input_shape: res needs at least 4 frames x 3 bins, got 3 x 40"),
        ((98, 2), "input_shape: res needs at least 4 frames x 3 bins, got 98 x 2"),
        ((None, 2), "input_shape: res needs at least 4 frames x 3 bins, got any length x 2"),
    ],
)
def test_too_small_for_the_pooling(input_shape, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        res(input_shape, 12)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("num_labels", 0),
        ("filters", 0),
        ("num_layers", 0),
        ("pool_size", (4,)),
        ("pool_size", (0, 3)),
        ("batch_norm_momentum", 1.0),
    ],
)
def test_a_bad_parameter_is_named_first(parameter, value):
    with pytest.raises(ValueError, match=f"^{parameter}: ") as error:
        res((98, 40), **{"num_labels": 12, parameter: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("any_length", [False, True])
@pytest.mark.parametrize("arguments", SMALL.values(), ids=SMALL)
def test_a_saved_model_loads_without_custom_objects(arguments, any_length, tmp_path):
    features = features_of(8, 24, 12)
    inputs = {"features": features, "num_frames": np.arange(17, 25, dtype=np.int32)} if any_length else features
    model = res((None if any_length else 24, 12), 3, **arguments)
    shake(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)


# --- clips of any length


@pytest.fixture(scope="module", params=SMALL.values(), ids=SMALL)
def any_length_model(request):
    model = res((None, 10), 4, **request.param)
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
@pytest.mark.parametrize("arguments", SMALL.values(), ids=SMALL)
def test_full_clips_get_the_logits_of_the_fixed_length_model(arguments, frames):
    fixed, any_length = res((frames, 10), 5, **arguments), res((None, 10), 5, **arguments)
    shake(fixed)
    any_length.set_weights(fixed.get_weights())
    features = features_of(3, frames, 10, seed=1)
    inputs = {"features": features, "num_frames": np.full(3, frames, np.int32)}
    np.testing.assert_allclose(any_length(inputs), fixed(features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arguments", SMALL.values(), ids=SMALL)
def test_a_training_step_on_padded_clips_is_the_one_on_bare_clips(arguments):
    clips = features_of(4, 30, 10)
    padded = np.concatenate([clips, 100 * features_of(4, 9, 10, seed=1)], axis=1)
    bare, model = res((30, 10), 3, **arguments), res((None, 10), 3, **arguments)
    model.set_weights(bare.get_weights())

    def step(model, inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(inputs, training=True) - [1.0, 0.0, -1.0]))
        return tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    gradients = step(bare, clips)
    padded_gradients = step(model, {"features": padded, "num_frames": np.full(4, 30, np.int32)})
    for padded_gradient, gradient in zip(padded_gradients, gradients, strict=True):
        np.testing.assert_allclose(padded_gradient, gradient, rtol=1e-3, atol=1e-3)
    for padded_weight, weight in zip(model.get_weights(), bare.get_weights(), strict=True):
        np.testing.assert_allclose(padded_weight, weight, rtol=1e-4, atol=1e-5)  # running statistics among them


def test_a_clip_shorter_than_a_pooling_window_gets_the_bias(any_length_model):
    inputs = {"features": features_of(2, 3, 10), "num_frames": np.array([0, 3], np.int32)}
    logits = any_length_model(inputs)
    assert np.isfinite(logits).all()
    if any(hasattr(layer, "pool_size") for layer in any_length_model.layers):
        np.testing.assert_allclose(logits, [any_length_model.layers[-1].bias] * 2)


def test_average_pool_counts_the_windows_without_padding():
    x = keras.Input((None, 5, 1))
    num_frames = keras.Input((), dtype="int32")
    model = keras.Model([x, num_frames], average_pool(x, num_frames, pool_size=(4, 2)))
    values = features_of(3, 9, 5, 1)
    pooled, counts = model([values, np.array([9, 8, 3], np.int32)])
    assert counts.numpy().tolist() == [2, 2, 0]
    np.testing.assert_allclose(pooled[0, 1, 1, 0], values[0, 4:8, 2:4, 0].mean(), rtol=1e-5)
    fixed, no_count = average_pool(keras.Input((9, 5, 1)), None, pool_size=(4, 2))
    assert fixed.shape == (None, 2, 2, 1)
    assert no_count is None
