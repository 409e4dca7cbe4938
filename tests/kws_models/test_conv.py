"""`conv`, `low_latency_conv`, `simple_audio` and `cnn4`: initial weights, and the smallest features."""

import itertools

import keras
import numpy as np
import pytest

from kws_models.cnn4 import cnn4
from kws_models.conv import conv, low_latency_conv
from tests.kws_models.networks import features_of


@pytest.mark.parametrize("build", [conv, low_latency_conv])
def test_the_examples_initialisers(build):
    model = build((49, 40), 12)
    kernels = [weight.numpy() for weight in model.weights if weight.path.endswith("kernel")]
    biases = [weight.numpy() for weight in model.weights if weight.path.endswith("bias")]
    assert all(np.abs(kernel).max() <= 0.02 for kernel in kernels)  # cut at two deviations
    assert all(0.008 < kernel.std() < 0.01 for kernel in kernels if kernel.size > 5000)
    assert all(not bias.any() for bias in biases)


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
