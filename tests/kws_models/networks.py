"""Networks of conf/model/ for the tests, built from their configs, and features for them."""

import json
from functools import cache

import hydra
import keras
import numpy as np

from kws_experiments.config.compose import compose_unresolved, resolved
from kws_experiments.reports.model_table import names

NAMES = names()
# Features of one second: log spectrogram, log-mel or MFCC 30/10, MFCC 40/20
SHAPES = [(98, 257), (98, 40), (49, 10)]

# What makes a network small, and its training steps repeatable; by the beginning of the config's name
_SMALL = {
    "bc_resnet": {"tau": 0.5, "dropout_rate": 0.0},
    "ds_cnn": {
        "filters": 8, "num_blocks": 2, "input_dropout_rate": 0.0, "dropout_rate": 0.0, "weight_decay": 0.0,
        "batch_norm_momentum": 0.96,
    },
    "low_latency_svdf": {"units": 8, "memory_size": 20, "dropout_rate": 0.0},
    "matchboxnet": {"filters": 4, "block_kernels": [3, 5], "outer_filters": 6, "last_kernel": 7},
    "mixconv": {"first_filters": 4, "filters": 6},
    "mhatt_rnn": {"conv_filters": [3, 2], "rnn_units": 4, "heads": 3, "dense_units": [6, 5], "dropout_rate": 0.0},
    "res": {"filters": 6, "num_layers": 4},
    "res15": {"filters": 6, "num_layers": 7},
    "tc_resnet": {
        "channels": [4, 6, 6, 8], "width_multiplier": 1.0, "dropout_rate": 0.0, "weight_decay": 0.0,
        "batch_norm_momentum": 0.9,
    },
}  # fmt: skip


@cache
def _config(name):
    return resolved(compose_unresolved([f"+model={name}"], start=None))["model"]


def from_config(name, input_shape=(98, 40), num_labels=12, **changes):
    arguments = _config(name) | {"input_shape": input_shape, "num_labels": num_labels} | changes
    return hydra.utils.get_method(arguments.pop("_target_"))(**arguments)


def small_changes(name):
    beginnings = [beginning for beginning in _SMALL if name.startswith(beginning)]
    return _SMALL[max(beginnings, key=len)] if beginnings else {}


def small(name, input_shape, num_labels=3, **changes):
    """A config's network with few channels; the same weights each time."""
    keras.utils.set_random_seed(0)
    return from_config(name, input_shape, num_labels, **small_changes(name) | changes)


# One config of those that are the same network when they are small
VARIANTS = list({json.dumps(_config(name) | small_changes(name)): name for name in reversed(NAMES)}.values())[::-1]


def features_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_lengths(features, lengths):
    """What a model for clips of any length takes."""
    return {"features": features, "num_frames": np.array(lengths, np.int32)}


def shake(model):
    """Move every weight and running statistic off its initial value, variances staying positive."""
    random = np.random.default_rng(0)
    model.set_weights(
        [w * random.uniform(0.5, 1.5, w.shape) + random.uniform(0, 0.1, w.shape) for w in model.get_weights()]
    )
    return model


def count_trained(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def layers_of(model, *types):
    return [layer for layer in model.layers if isinstance(layer, types)]


def train_briefly(model, inputs, num_labels):
    """Move every weight and running statistic off its initial value."""
    labels = np.arange(len(inputs["features"] if isinstance(inputs, dict) else inputs)) % num_labels
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(inputs, labels, epochs=2, batch_size=4, verbose=0)
