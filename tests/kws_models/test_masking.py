"""Layers that leave padding out, each by itself."""

import itertools

import keras
import numpy as np

from kws_models.masking import MaskedBatchNormalization, average_pool, global_average_pool, same_conv
from tests.kws_models.networks import features_of


def test_masked_batch_norm_leaves_padding_out_of_its_statistics():
    x = features_of(3, 6, 5, 2) * 3 + 1
    lengths = np.array([6, 2, 4], np.int32)
    real = np.concatenate([clip[:length].reshape(-1, 2) for clip, length in zip(x, lengths, strict=True)])
    layer = MaskedBatchNormalization(momentum=0.0)
    outputs = np.array(layer(x, lengths, training=True))
    np.testing.assert_allclose(layer.moving_mean, real.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, real.var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(outputs[0], (x[0] - real.mean(axis=0)) / np.sqrt(real.var(axis=0) + 1e-3), atol=1e-5)


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
