"""`bc_resnet`: the authors' sizes and wiring, sub-spectral normalisation, lengths, errors, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_models.bc_resnet import bc_resnet
from kws_models.layers import BatchNormalization
from kws_models.sub_spectral import MaskedSubSpectralNormalization, SubSpectralNormalization, most_sub_bands
from tests.kws_models.test_every_model import SHAPES, features_of
from tests.kws_models.test_res import count_trained, from_config, shake

TINY = 0.5  # tau: four channels


def layers_of(model, *types):
    return [layer for layer in model.layers if isinstance(layer, types)]


# --- the network


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("bc_resnet_1", 9_232),
        ("bc_resnet_1_5", 17_154),
        ("bc_resnet_2", 27_284),
        ("bc_resnet_3", 54_168),
        ("bc_resnet_6", 187_812),
        ("bc_resnet_8", 321_068),
    ],
)
def test_trained_parameters_are_those_of_the_authors_code(name, trained):
    assert count_trained(from_config(name, (98, 40), 12)) == trained


def test_the_wiring_is_the_authors():
    """Their forward pass, written out with dense kernels, explicit zeros and strides."""
    model = bc_resnet((21, 40), 3, tau=TINY)
    shake(model)
    convolutions = iter(layers_of(model, keras.layers.Conv2D, keras.layers.DepthwiseConv2D))
    norms = iter(layers_of(model, keras.layers.BatchNormalization))

    def convolve(x, *, stride=1, dilation=1, zeros=(0, 0)):
        layer = next(convolutions)
        kernel = layer.kernel.value
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = tf.linalg.diag(kernel[..., 0])
        padding = [[0, 0], *([number, number] for number in zeros), [0, 0]]
        return tf.nn.conv2d(x, kernel, (1, stride), padding, dilations=(dilation, 1))

    def normalise(x):
        layer = next(norms)
        weights = [weight.value for weight in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)]
        if isinstance(layer, SubSpectralNormalization):
            # [bands * channels] → [bins, channels]: a band's statistics hold for its neighbouring bins.
            weights = [tf.repeat(tf.reshape(weight, (5, -1)), x.shape[2] // 5, axis=0) for weight in weights]
        gamma, beta, mean, variance = weights
        return (x - mean) / tf.sqrt(variance + 1e-5) * gamma + beta

    features = features_of(2, 21, 40, seed=1)
    x = tf.nn.relu(normalise(convolve(features[..., None], stride=2, zeros=(2, 2))))
    for stage, num_blocks in enumerate((2, 2, 4, 4)):
        for block in range(num_blocks):
            shortcut = x
            if block == 0:
                x = tf.nn.relu(normalise(convolve(x)))
            x = normalise(convolve(x, stride=2 if block == 0 and stage in (1, 2) else 1, zeros=(0, 1)))
            y = tf.reduce_mean(x, 2, keepdims=True)
            y = tf.nn.silu(normalise(convolve(y, dilation=2**stage, zeros=(2**stage, 0))))
            x = x + convolve(y)
            x = tf.nn.relu(x if block == 0 else x + shortcut)
    x = convolve(x, zeros=(2, 0))
    assert x.shape == (2, 21, 1, 10)
    x = tf.nn.relu(normalise(convolve(x)))
    logits = model.layers[-1](tf.reduce_mean(x, (1, 2)))
    assert next(convolutions, None) is None
    assert next(norms, None) is None
    np.testing.assert_allclose(model(features), logits, atol=1e-5)


@pytest.mark.parametrize("input_shape", [*SHAPES, (98, 43), (98, 64), (5, 3), (1, 1)])
def test_any_feature_shape(input_shape):
    model = bc_resnet(input_shape, 3, tau=TINY)
    logits = model(features_of(2, *input_shape))
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()
    # All bins take part: no band and no kernel leaves some out.
    features = tf.Variable(features_of(2, *input_shape))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(features, training=True) ** 2)
    if input_shape[0] > 1:
        assert (np.abs(tape.gradient(loss, features)).max(axis=(0, 1)) > 0).all()


def test_kernels_start_as_pytorchs_do():
    model = bc_resnet((98, 40), 3, tau=8)
    for layer in layers_of(model, keras.layers.Conv2D, keras.layers.DepthwiseConv2D):
        fan_in = np.prod(layer.kernel.shape[: 2 if isinstance(layer, keras.layers.DepthwiseConv2D) else 3])
        largest = np.abs(layer.kernel).max() * fan_in**0.5
        assert 0.95 < largest <= 1 + 1e-6


@pytest.mark.parametrize("any_length", [False, True])
def test_gradients_reach_all_weights(any_length):
    features, lengths = features_of(6, 24, 20), np.arange(19, 25, dtype=np.int32)
    model = bc_resnet((None if any_length else 24, 20), 3, tau=TINY, dropout_rate=0.0)
    inputs = {"features": features, "num_frames": lengths} if any_length else features
    with tf.GradientTape() as tape:
        logits = model(inputs, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 0, 1, 2], logits))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_dropout_leaves_whole_channels_out():
    (layer, *others) = layers_of(bc_resnet((98, 40), 3, dropout_rate=0.25), keras.layers.SpatialDropout2D)
    assert len(others) == 11
    assert layer.rate == 0.25
    dropped = np.array(layer(np.ones((20, 7, 1, 8), np.float32), training=True)) == 0
    assert dropped.any()
    assert (dropped == dropped[:, :1]).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_logits_stay_float32_in_mixed_precision(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = bc_resnet((20, 40), 3, tau=TINY)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    logits = model(features_of(2, 20, 40), training=True)
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("any_length", [False, True])
def test_a_saved_model_loads_without_custom_objects(any_length, tmp_path):
    features = features_of(8, 24, 20)
    inputs = {"features": features, "num_frames": np.arange(17, 25, dtype=np.int32)} if any_length else features
    model = bc_resnet((None if any_length else 24, 20), 3, tau=TINY)
    shake(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("num_labels", 0),
        ("tau", 0.1),
        ("tau", -1),
        ("tau", float("nan")),
        ("sub_bands", 0),
        ("dropout_rate", 1.0),
        ("batch_norm_momentum", -0.1),
    ],
)
def test_a_bad_parameter_is_named_first(parameter, value):
    with pytest.raises(ValueError, match=f"^{parameter}: ") as error:
        bc_resnet((98, 40), **{"num_labels": 12, parameter: value})
    assert "\n" not in str(error.value)


def test_features_without_frames_or_bins():
    for shape in ((0, 40), (98, 0), (98, None)):
        with pytest.raises(ValueError, match=r"^input_shape: "):
            bc_resnet(shape, 12)


# --- clips of any length


@pytest.fixture(scope="module")
def any_length_model():
    model = bc_resnet((None, 20), 4, tau=TINY)
    shake(model)
    return model


@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    padding=st.integers(0, 7),
    seed=st.integers(0, 1000),
)
def test_logits_do_not_depend_on_the_padding(any_length_model, lengths, padding, seed):
    clips = [features_of(length, 20, seed=seed + index) for index, length in enumerate(lengths)]
    # Garbage, not zeros, in the frames that are padding.
    batch = 100 * features_of(len(clips), max(lengths) + padding, 20, seed=seed + 100)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    together = any_length_model({"features": batch, "num_frames": np.array(lengths, np.int32)})
    for logits, clip in zip(together, clips, strict=True):
        alone = any_length_model({"features": clip[None], "num_frames": np.array([len(clip)], np.int32)})
        np.testing.assert_allclose(logits, alone[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [49, 98])
def test_full_clips_get_the_logits_of_the_fixed_length_model(frames):
    fixed, any_length = bc_resnet((frames, 40), 5, tau=TINY), bc_resnet((None, 40), 5, tau=TINY)
    shake(fixed)
    any_length.set_weights(fixed.get_weights())
    features = features_of(3, frames, 40, seed=1)
    inputs = {"features": features, "num_frames": np.full(3, frames, np.int32)}
    np.testing.assert_allclose(any_length(inputs), fixed(features), rtol=1e-4, atol=1e-4)


def test_a_training_step_on_padded_clips_is_the_one_on_bare_clips():
    keras.utils.set_random_seed(0)  # of some initial weights a norm's variance is next to nothing
    clips = features_of(4, 30, 20)
    padded = np.concatenate([clips, 100 * features_of(4, 9, 20, seed=1)], axis=1)
    bare = bc_resnet((30, 20), 3, tau=TINY, dropout_rate=0.0)
    model = bc_resnet((None, 20), 3, tau=TINY, dropout_rate=0.0)
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
    inputs = {"features": features_of(2, 12, 20), "num_frames": np.array([0, 12], np.int32)}
    assert np.isfinite(any_length_model(inputs)).all()


# --- sub-spectral normalisation


def normalised_by_band(x, sub_bands, gamma, beta, epsilon, real=None):
    """Plain NumPy: outputs, and [sub_bands, channels] means and variances, of the clips' real frames."""
    outputs, means, variances = np.zeros_like(x), [], []
    frames = np.ones(x.shape[:2], bool) if real is None else real
    for band, bins in enumerate(np.split(np.arange(x.shape[2]), sub_bands)):
        values = x[:, :, bins][frames].astype(np.float64)  # [real frames, bins of the band, channels]
        means.append(values.mean(axis=(0, 1)))
        variances.append(values.var(axis=(0, 1)))
        scaled = (x[:, :, bins] - means[-1]) / np.sqrt(variances[-1] + epsilon)
        outputs[:, :, bins] = scaled * gamma[band] + beta[band]
    return outputs, np.array(means), np.array(variances)


@pytest.mark.parametrize(("bins", "sub_bands"), [(6, 3), (6, 1), (6, 2), (5, 5), (1, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_sub_spectral_normalisation_is_the_formula(bins, sub_bands, masked):
    x = features_of(4, 7, bins, 2) * 2 + np.arange(bins, dtype=np.float32)[:, None]
    lengths = np.array([7, 3, 5, 1], np.int32)
    real = np.arange(7) < lengths[:, None] if masked else None
    gamma, beta = features_of(sub_bands, 2, seed=1), features_of(sub_bands, 2, seed=2)
    layer_type = MaskedSubSpectralNormalization if masked else SubSpectralNormalization
    layer = layer_type(sub_bands, momentum=0.75, epsilon=1e-4)
    inputs = (x, lengths) if masked else (x,)
    layer(*inputs)
    layer.gamma.assign(gamma.reshape(-1))
    layer.beta.assign(beta.reshape(-1))

    mean, variance = np.zeros((sub_bands, 2)), np.ones((sub_bands, 2))
    for _ in range(3):
        outputs = np.array(layer(*inputs, training=True))
        expected, batch_mean, batch_variance = normalised_by_band(x, sub_bands, gamma, beta, 1e-4, real)
        mean, variance = (0.75 * old + 0.25 * new for old, new in ((mean, batch_mean), (variance, batch_variance)))
    where = np.ones(x.shape[:2], bool) if real is None else real
    np.testing.assert_allclose(outputs[where], expected[where], atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, mean.reshape(-1), atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, variance.reshape(-1), rtol=1e-4)

    repeated = [np.repeat(values, bins // sub_bands, axis=0) for values in (mean, variance, gamma, beta)]
    expected = (x - repeated[0]) / np.sqrt(repeated[1] + 1e-4) * repeated[2] + repeated[3]
    np.testing.assert_allclose(np.array(layer(*inputs, training=False))[where], expected[where], atol=1e-4)


def test_sub_spectral_gradients_are_those_of_one_batch_norm_per_band():
    x = tf.Variable(features_of(4, 7, 6, 2) * 2)
    weights = features_of(4, 7, 6, 2, seed=3)
    layer = SubSpectralNormalization(3)
    by_band = [BatchNormalization() for _ in range(3)]
    layer.build(x.shape)
    for band in by_band:
        band.build((4, 7, 2, 2))
    with tf.GradientTape(persistent=True) as tape:
        loss = tf.reduce_sum(layer(tf.convert_to_tensor(x), training=True) * weights)
        bands = zip(by_band, tf.split(x, 3, axis=2), strict=True)
        expected = tf.reduce_sum(tf.concat([band(part, training=True) for band, part in bands], 2) * weights)
    np.testing.assert_allclose(tape.gradient(loss, x), tape.gradient(expected, x), atol=1e-4)
    for name in ("gamma", "beta"):
        gradients = [tape.gradient(expected, getattr(band, name).value) for band in by_band]
        np.testing.assert_allclose(
            tape.gradient(loss, getattr(layer, name).value), np.concatenate(gradients), atol=1e-4
        )


@pytest.mark.parametrize("sub_bands", [0, 4, 12])
def test_sub_bands_must_divide_the_bins(sub_bands):
    message = f"^sub_bands: must divide the 6 bins of the feature map, got {sub_bands}$"
    with pytest.raises(ValueError, match=message):
        SubSpectralNormalization(sub_bands)(features_of(2, 3, 6, 2))
    with pytest.raises(ValueError, match=message):
        MaskedSubSpectralNormalization(sub_bands)(features_of(2, 3, 6, 2), np.array([3, 2], np.int32))


def test_most_sub_bands():
    assert [most_sub_bands(bins, 5) for bins in (20, 5, 129, 32, 11, 2, 1)] == [5, 5, 3, 4, 1, 2, 1]


def test_published_maps_have_five_sub_bands():
    model = bc_resnet((98, 40), 12)
    assert [layer.sub_bands for layer in layers_of(model, SubSpectralNormalization)] == [5] * 12
