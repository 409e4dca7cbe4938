"""Training and inference clips/s of every model, as ratios to Keras's own layers and to PyTorch, in one run.

    python -m benchmarks.training [--models ds_cnn_s,conv] [--batch 100] [--threads N] [--repeats 5] [features=…]

Each model of `conf/model/` is built for the features that `train.py` uses by default, log-mel 98 x 40, and
the task of its source (or those that overrides choose), and trained by the step that `train.py` runs with
`trainer=default optimizer=adam`, on one batch of random features that lies ready in memory. Inference is the graph that
evaluates. Beside it:

- *Keras*: the same network and step on Keras's own batch normalisation and optimizer in place of ours;
- *PyTorch*, if it is installed: DS-CNN-S, BC-ResNet-1 and BC-ResNet-2 of `benchmarks/torch_models.py`, of the same
  parameters, on as many threads, with fused Adam, and in each round by the faster of two memory orders, contiguous and
  channels-last.

The variants of a model take turns, round after round, so that another program's load falls on all alike; the table
holds medians over the rounds, of clips/s and of the ratios within a round. A first round, to warm up, is not counted.
PyTorch's threads wait for each other by spinning, so that on a busy machine it falls behind without deserving it:
measure on a quiet one, or set OMP_WAIT_POLICY=passive.

Targets, on those features: DS-CNN-S trains at no less than 1.8 times the rate of Keras's layers; all three networks
train faster than PyTorch, BC-ResNet-2 at no less than 1.4 times its rate, and infer at no less than 1.3 times its rate.
On the 49 x 10 of Hello Edge (`features=mfcc_hello_edge`) the convolutions, the same in all three, are most of
DS-CNN-S's step, and the ratios smaller.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.options import (
    ALL_CORES,
    Batch,
    Models,
    Options,
    Overrides,
    Repeats,
    Seconds,
    Threads,
    chosen_models,
    machine,
    run,
    say_ratio,
)
from kws_data.errors import KwsError
from kws_experiments.console.tables import Column, Console, print_table
from kws_experiments.reports import model_table

OURS, KERAS, TORCH = "ours", "Keras", "PyTorch"
TRAINING, INFERENCE = "training", "inference"
TORCH_MODELS = ["ds_cnn_s", "bc_resnet_1", "bc_resnet_2"]
TARGETS = {
    ("ds_cnn_s", KERAS, TRAINING): 1.8,
    **{(model, TORCH, TRAINING): 1.0 for model in TORCH_MODELS},
    ("bc_resnet_2", TORCH, TRAINING): 1.4,
    **{(model, TORCH, INFERENCE): 1.3 for model in TORCH_MODELS},
}

Rate = Callable[[], float]  # runs a variant for a while: clips/s


def main(
    overrides: Overrides = None,
    models: Models = "all",
    batch: Batch = 100,
    threads: Threads = ALL_CORES,
    repeats: Repeats = 5,
    seconds: Seconds = 0.5,
) -> None:
    """Training and inference clips/s of every model, as ratios to Keras's own layers and to PyTorch, in one run."""
    options = Options(chosen_models(models), threads, repeats, seconds, batch, overrides=overrides or ())
    show(measure(options), options)


def measure(options: Options) -> pd.DataFrame:
    """Clips/s: a row per model, round and variant, with a column for training and one for inference."""
    # The default first: of two, the later holds.
    overrides = ["features=log_mel", *options.overrides, f"threads.intra_op={options.threads}"]
    choices = [model_table.choose(name, overrides) for name in options.models]
    choices[0].experiment.start_tensorflow()
    import keras

    rows = []
    with tqdm(total=len(choices) * (options.repeats + 1), unit="round", disable=None) as bar:
        for choice in choices:
            variants = build_variants(choice, options)
            for round_number in range(options.repeats + 1):
                bar.set_description(choice.model)
                for variant, (training, inference) in variants.items():
                    row = {"model": choice.model, "round": round_number, "variant": variant}
                    row |= {TRAINING: training(), INFERENCE: inference()}
                    if round_number:  # the first warms up: graphs are traced
                        rows.append(row)
                bar.update()
            del variants, training, inference
            keras.backend.clear_session()
            gc.collect()
    return pd.DataFrame(rows)


def build_variants(choice: model_table.Choice, options: Options) -> dict[str, tuple[Rate, Rate]]:
    """The rates of training and inference of the model in each variant there is."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(options.batch, *choice.shape())).astype(np.float32)
    labels = generator.integers(0, choice.num_labels(), options.batch).astype(np.int32)
    variants = {OURS: _ours(choice, features, labels, options), KERAS: _keras(choice, features, labels, options)}
    if choice.model in TORCH_MODELS and has_torch():
        variants[TORCH] = _torch(choice, features, labels, options)
    return variants


def _ours(choice: model_table.Choice, features: np.ndarray, labels: np.ndarray, options: Options) -> tuple[Rate, Rate]:
    """The project's step and inference, traced once here."""
    import tensorflow as tf

    from kws_experiments.training.step import TrainingStep
    from kws_models.folding import Once, folded

    model = choice.build()
    optimizer = choice.experiment.build_optimizer(model, total_steps=1, steps_per_epoch=1)
    optimizer.build(model.trainable_variables)
    batch = {
        "inputs": tf.constant(features),
        "labels": tf.constant(labels),
        "second_labels": tf.constant(labels),
        "label_weights": tf.ones(len(labels)),
    }
    spec = {name: tf.TensorSpec((None, *value.shape[1:]), value.dtype) for name, value in batch.items()}
    step = TrainingStep(
        model, optimizer, choice.experiment.settings,
        spec=spec, front_end=None, class_weights=[1.0] * choice.num_labels(),
    )  # fmt: skip
    infer = tf.function(folded(model, Once()), input_signature=[spec["inputs"]])
    step(batch)
    infer(batch["inputs"])
    return Timed(lambda: step(batch), options), Timed(lambda: infer(batch["inputs"]).numpy(), options)


def _keras(choice: model_table.Choice, features: np.ndarray, labels: np.ndarray, options: Options) -> tuple[Rate, Rate]:
    with keras_layers():
        return _ours(choice, features, labels, options)


@contextlib.contextmanager
def keras_layers() -> Iterator[None]:
    """What is traced inside runs on Keras's own layers and optimizer, where ours take their place."""
    import keras

    from kws_experiments.experiment import optimizers
    from kws_models import layers

    with (
        mock.patch.object(layers.BatchNormalization, "call", keras.layers.BatchNormalization.call),
        mock.patch.object(optimizers.Adam, "_can_join", return_value=False),
    ):
        yield


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def _torch(choice: model_table.Choice, features: np.ndarray, labels: np.ndarray, options: Options) -> tuple[Rate, Rate]:
    import torch

    from benchmarks import torch_models

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    parameters = sum(math.prod(variable.shape) for variable in choice.build().trainable_variables)
    networks = []
    for channels_last in (False, True):
        network = torch_models.MODELS[choice.model](choice.num_labels())
        if (own := sum(parameter.numel() for parameter in network.parameters())) != parameters:
            raise KwsError(f"{choice.model}: {own} parameters in PyTorch, {parameters} in Keras")
        networks.append(
            torch_models.Network(
                network,
                torch.from_numpy(features),
                torch.from_numpy(labels).long(),
                learning_rate=choice.experiment.learning_rate,
                channels_last=channels_last,
            )
        )
    return Fastest([Timed(network.train, options) for network in networks]), Fastest(
        [Timed(network.infer, options) for network in networks]
    )


@dataclass
class Timed:
    """The rate of a function that handles one batch."""

    run: Callable[[], Any]
    options: Options
    calls: int = 0  # per measurement, chosen by the first for about `--seconds`

    def __call__(self) -> float:
        """Clips/s."""
        if not self.calls:
            self.run()
            self.calls = math.ceil(self.options.seconds / self._seconds(1))
        return self.options.batch * self.calls / self._seconds(self.calls)

    def _seconds(self, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            self.run()
        return time.perf_counter() - start


@dataclass
class Fastest:
    """The rate of the fastest of several ways to do the same."""

    ways: list[Timed]

    def __call__(self) -> float:
        """Clips/s."""
        return max(way() for way in self.ways)


def show(rates: pd.DataFrame, options: Options) -> None:
    """Print the medians, the ratios, the targets and the machine."""
    import tensorflow as tf

    ratios = ratios_to(rates)
    columns: list[Column] = [("model", options.models)]
    for what in (TRAINING, INFERENCE):
        ours = rates[rates["variant"] == OURS].groupby("model")[what].median()
        columns.append((f"{what}: clips/s", [f"{ours[model]:,.0f}" for model in options.models]))
        for baseline in (KERAS, TORCH):
            medians = [
                f"{ratios[model, baseline][what].median():.2f}" if (model, baseline) in ratios else "–"
                for model in options.models
            ]
            columns.append((f"of {baseline}", medians))
    print_table(columns, title="Training and inference", numeric=[heading for heading, _ in columns[1:]])
    console = Console()
    for (model, baseline, what), target in TARGETS.items():
        if (model, baseline) in ratios:
            say_ratio(f"{model}, {what}, of {baseline}", ratios[model, baseline][what], f"{target:g} or more")
    torch = "no PyTorch"
    if has_torch():
        torch = f"PyTorch {importlib.metadata.version('torch')}"
    console.print(
        f"{machine()}, TensorFlow {tf.__version__}, {torch}, {options.threads} threads,"
        f" batches of {options.batch}, median of {options.repeats} rounds",
        soft_wrap=True,
    )


def ratios_to(rates: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """By model and baseline: our rates of training and inference as ratios to its, a row per round."""
    ratios = {}
    for (model, variant), group in rates.groupby(["model", "variant"]):
        if variant != OURS:
            ours = rates[(rates["model"] == model) & (rates["variant"] == OURS)].set_index("round")
            theirs = group.set_index("round")
            ratios[str(model), str(variant)] = ours[[TRAINING, INFERENCE]] / theirs[[TRAINING, INFERENCE]]
    return ratios


if __name__ == "__main__":
    run(main)
