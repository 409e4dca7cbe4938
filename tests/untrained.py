"""Runs whose weights were drawn, not learned: what exports need of a run, without a training."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np

from kws_experiments.config import compose
from kws_experiments.folder import RunFolder, write_text
from kws_experiments.parts import build_parts
from kws_experiments.saved_model import save_model

LABELS = ["_silence_", "_unknown_", "yes", "no"]


def untrained_run(path: Path, *overrides: str, gain: float = 1.5, seed: int = 0) -> Path:
    """A finished run's folder, its network of such weights that the scores differ from clip to clip."""
    config = compose(["dataset=folder", "dataset.path=/nowhere", "split=speaker", *overrides])
    parts = build_parts(config)
    keras.utils.set_random_seed(seed)
    network = parts.build_network(config, len(LABELS))
    generator = np.random.default_rng(seed)
    for weight in network.trainable_variables:
        if len(weight.shape) > 1:
            weight.assign(gain * weight.numpy())
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(generator.uniform(0.5, 2, layer.moving_variance.shape))
    if parts.features.normalise:
        parts.features.build()
        parts.features.mean.assign(generator.normal(-5, 2, parts.features.mean.shape))
        parts.features.variance.assign(generator.uniform(4, 9, parts.features.variance.shape))
    folder = RunFolder(path)
    path.mkdir(parents=True)
    folder.write_config(config)
    folder.write_record(status="done", fingerprint="0123456789ab", data_fingerprint="ba9876543210", data_licence="CC0")
    write_text(folder.labels, "\n".join(LABELS) + "\n")
    write_text(folder.thresholds, json.dumps({"thresholds": {"yes": 0.5, "no": 0.75}}))
    save_model(folder.model, parts.features, network, parts.clip_samples)
    return path


def some_waveforms(count: int = 12, samples: int = 16000) -> np.ndarray:
    """[count, samples] float32: noise and gliding tones of many levels."""
    generator = np.random.default_rng(0)
    time = np.arange(samples) / 16000
    glides = np.sin(2 * np.pi * time * (generator.uniform(100, 3000, (count, 1)) + 400 * time))
    levels = 10 ** generator.uniform(-2, -0.5, (count, 1))
    return (levels * (glides + generator.normal(0, 0.3, (count, samples)))).astype(np.float32)
