"""The network with mixed depthwise kernels: its layers one by one, in NumPy."""

import numpy as np
import pytest

from tests.kws_models.networks import features_of, from_config, shake


def causal(x, kernel, stride=1):
    """What a kernel sees of [frames, channels] at every stride-th frame: [outputs, kernel frames, channels]."""
    padded = np.concatenate([np.zeros((len(kernel) - stride, x.shape[1])), x])
    starts = range(0, len(padded) - len(kernel) + 1, stride)
    return np.stack([padded[start : start + len(kernel)] for start in starts])


def normalised(x, gamma, beta, mean, variance):
    return np.maximum((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)


@pytest.mark.parametrize("frames", [29, 30, 3])
def test_logits_are_those_of_its_layers(frames):
    kernels = [[2], [3, 5], [1, 4, 6]]
    network = shake(from_config("mixconv", (frames, 4), 3, first_filters=4, filters=5, block_kernels=kernels))
    weights = iter(np.array(weight, np.float64) for weight in network.get_weights())
    (features,) = features_of(1, frames, 4)

    x = np.einsum("tkb,kbc->tc", causal(features, first := next(weights)[:, 0], stride=3), first)
    assert len(x) == frames // 3
    x = normalised(x, *(next(weights) for _ in range(4)))
    for groups in kernels:
        ends = [x.shape[1] * group // len(groups) for group in range(len(groups) + 1)]
        mixed = []
        for start, end, size in zip(ends, ends[1:], groups, strict=False):
            kernel = next(weights)[:, 0, :, 0]
            assert kernel.shape == (size, end - start)
            mixed.append(np.einsum("tkc,kc->tc", causal(x[:, start:end], kernel), kernel))
        x = np.concatenate(mixed, axis=1) @ next(weights)[0, 0]
        x = normalised(x, *(next(weights) for _ in range(4)))
    logits = x.mean(axis=0) @ next(weights) + next(weights)

    np.testing.assert_allclose(network(features[None])[0], logits, rtol=1e-4, atol=1e-4)
