"""The cost of a run's model: parameters, multiply-adds, size, and the time for one clip on this machine."""

from __future__ import annotations

import json
import logging
import math
import platform
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.environment import processor
from kws_experiments.runs.folder import RunFolder, write_text

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

LATENCY_CALLS, WARM_UP_CALLS = 100, 10
LATENCY_SECONDS = 10  # then a slow model gets fewer calls


def write_cost(folder: RunFolder, experiment: Experiment, network: keras.Model, model: keras.Model) -> None:
    """Write `cost.json`, measured in this process with the threads of training.

    Args:
        folder: the run's, with the saved model in it.
        experiment: the run's.
        network: features → logits.
        model: waveform → logits, as saved.
    """
    trained = sum(int(math.prod(variable.shape)) for variable in network.trainable_variables)
    cost = {
        "parameters": network.count_params(),
        "trained": trained,
        "features": list(experiment.nominal_feature_shape()),
        "clip_samples": experiment.nominal_samples,
        **counted(experiment, network),
        "model_file_bytes": folder.model.stat().st_size,
        "latency_ms": latency_ms(model, experiment),
        "threads": experiment.part("threads"),
        "machine": machine(),
    }
    write_text(folder.cost, json.dumps(cost, indent=2) + "\n")


def counted(experiment: Experiment, network: keras.Model) -> dict[str, Any]:
    """Multiply-adds and weights at inference (see `kws_models.cost`); None, with a warning, if that is not possible."""
    from kws_models.cost import inference_cost

    frames, _ = experiment.nominal_feature_shape()
    names = ("folded", "multiply_adds", "float32_bytes", "int8_bytes")
    try:
        cost = inference_cost(network, frames)
    except Exception as error:  # a layer of the user's own counts by itself
        log.warning("the model's multiply-adds can't be counted: %s", " ".join(str(error).split()))
        return dict.fromkeys(names)
    counts = (cost.weights, cost.multiply_adds, cost.float32_bytes, cost.int8_bytes)
    return dict(zip(names, counts, strict=True))


def latency_ms(model: keras.Model, experiment: Experiment) -> dict[str, float | int]:
    """Milliseconds from one clip's samples to its logits: the `median`, `low` and `high` (10 and 90 %) of `calls`.

    The calls follow each other on a batch of one, after some calls to warm up. This process still holds the memory of
    training, and others may share the machine: compare only medians from the same machine.
    """
    import tensorflow as tf

    infer = tf.function(lambda inputs: model(inputs, training=False))
    generator = np.random.default_rng(0)
    waveform = tf.constant(generator.normal(0, 0.1, (1, experiment.nominal_samples)).astype(np.float32))
    inputs: Any = waveform
    if experiment.clip_samples is None:
        inputs = {"waveform": waveform, "lengths": tf.constant([experiment.nominal_samples], tf.int32)}
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < WARM_UP_CALLS + LATENCY_CALLS:
        if len(times) > 2 * WARM_UP_CALLS and time.perf_counter() - began > LATENCY_SECONDS:
            break
        start = time.perf_counter()
        infer(inputs).numpy()
        times.append(1000 * (time.perf_counter() - start))
    low, median, high = (round(float(value), 4) for value in np.quantile(times[WARM_UP_CALLS:], (0.1, 0.5, 0.9)))
    return {"median": median, "low": low, "high": high, "calls": len(times) - WARM_UP_CALLS}


def machine() -> dict[str, str | int]:
    """The machine of the measured latency: `processor`, `cpus` that this process may use, `system`."""
    found = processor()
    return {"processor": found["model"], "cpus": found["cores"], "system": f"{platform.system()} {platform.machine()}"}
