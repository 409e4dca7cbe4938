"""Runs whose weights were drawn, not learned: what exports need of a run, without a training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import soundfile
import tensorflow as tf

from kws_experiments.config.compose import compose
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.folder import RunFolder, write_text
from kws_experiments.runs.saved_model import save_model

LABELS = ["_silence_", "_unknown_", "yes", "no"]


def untrained_run(
    path: Path,
    *overrides: str,
    seed: int = 0,
    labels: Sequence[str] = LABELS,
    clips: np.ndarray | None = None,
) -> Path:
    """A finished run's folder, its network of such weights that the scores differ from clip to clip (of `clips`)."""
    config = compose(["dataset=folder", "dataset.path=/nowhere", "split=speaker", *overrides])
    experiment = Experiment(config)
    keras.utils.set_random_seed(seed)
    network = experiment.build_network(len(labels))
    generator = np.random.default_rng(seed)
    if experiment.features.normalise:
        experiment.features.build()
        experiment.features.mean.assign(generator.normal(-5, 2, experiment.features.mean.shape))
        experiment.features.variance.assign(generator.uniform(4, 9, experiment.features.variance.shape))
    waveforms = some_waveforms(40, experiment.nominal_samples) if clips is None else clips
    tell_apart(network, experiment.features, waveforms)
    folder = RunFolder(path)
    path.mkdir(parents=True)
    folder.write_config(config)
    folder.write_record(status="done", fingerprint="0123456789ab", data_fingerprint="ba9876543210", data_licence="CC0")
    write_text(folder.labels, "\n".join(labels) + "\n")
    write_text(folder.thresholds, json.dumps({"thresholds": {"yes": 0.5, "no": 0.75}}))
    save_model(folder.model, experiment.features, network, experiment.clip_samples)
    return path


def real_waveforms(folder: Path, count: int, *, every: int) -> np.ndarray:
    """Every so many-th of the real clips below a folder: [count, 16000] float32."""
    rows = np.zeros((count, 16000), np.float32)
    for row, path in zip(rows, sorted(folder.glob("[a-z]*/*.wav"))[::every], strict=False):
        samples, _ = soundfile.read(path, dtype="float32")
        row[: len(samples)] = samples
    return rows


def tell_apart(network: keras.Model, features: Any, waveforms: np.ndarray) -> None:
    """Set statistics and the last layer so that the logits of most of these clips lie within a few units around 0."""
    inputs = features(waveforms)
    if isinstance(network.input, dict):
        inputs = {"features": inputs, "num_frames": tf.fill([len(waveforms)], inputs.shape[1])}
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    network(inputs, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    last = next(layer for layer in reversed(network.layers) if hasattr(layer, "kernel"))
    logits = network(inputs, training=False).numpy()
    low, high = np.percentile(logits, [25, 75], axis=0)
    last.kernel.assign(3 / (high - low).mean() * last.kernel.numpy())
    if last.bias is not None:
        last.bias.assign(last.bias.numpy() - np.median(network(inputs, training=False).numpy(), axis=0))


def some_waveforms(count: int = 12, samples: int = 16000) -> np.ndarray:
    """[count, samples] float32: noise and gliding tones of many levels; fewer are the first of more."""
    time = np.arange(samples) / 16000
    clips = []
    for number in range(count):
        generator = np.random.default_rng(number)
        glide = np.sin(2 * np.pi * time * (generator.uniform(100, 3000) + generator.uniform(-400, 400) * time))
        clips.append(10 ** generator.uniform(-2, -0.5) * (glide + generator.normal(0, 0.3, samples)))
    return np.array(clips, np.float32)
