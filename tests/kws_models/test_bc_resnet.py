"""`bc_resnet`: the authors' sizes and wiring, and sub-spectral normalisation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_models.bc_resnet import bc_resnet
from kws_models.layers import BatchNormalization
from kws_models.sub_spectral import MaskedSubSpectralNormalization, SubSpectralNormalization, most_sub_bands
from tests.kws_models.networks import SHAPES, features_of, layers_of, shake

TINY = 0.5  # tau: four channels


# --- the network


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
def test_no_band_and_no_kernel_leaves_bins_out(input_shape):
    model = bc_resnet(input_shape, 3, tau=TINY)
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


def test_dropout_leaves_whole_channels_out():
    (layer, *others) = layers_of(bc_resnet((98, 40), 3, dropout_rate=0.25), keras.layers.SpatialDropout2D)
    assert len(others) == 11
    assert layer.rate == 0.25
    dropped = np.array(layer(np.ones((20, 7, 1, 8), np.float32), training=True)) == 0
    assert dropped.any()
    assert (dropped == dropped[:, :1]).all()


def test_logits_are_finite_in_float16():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = bc_resnet((20, 40), 3, tau=TINY)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    logits = model(features_of(2, 20, 40), training=True)
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()


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
