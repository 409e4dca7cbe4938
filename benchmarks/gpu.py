"""Training on a GPU: clips/s of the whole pipeline with the step, of the step alone, and PyTorch's bare step beside it.

    python -m benchmarks.gpu [--models ds_cnn_s,bc_resnet_1] [--batches 100,512] [--seconds 5]

Each variant lives in a process of its own, one after the other, on random clips with each model's own features: the
front end on the host, the front end in the step (`pipeline.on_device=true`), and the faster of the two with the step
compiled by XLA or not. *First step* counts from the end of `import tensorflow`: data in memory, network, tracing and
compilation. PyTorch, where it is installed, trains the same network on one batch of features that lies on the card.
Where there is no GPU the benchmark says so and ends.

Targets: the whole pipeline at no less than 0.9 of PyTorch's bare step; the first step within 15 s.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from benchmarks.options import Models, chosen_models, run, table
from benchmarks.random_clips import random_clips
from benchmarks.training import TORCH_MODELS, has_torch
from kws_data.errors import KwsError
from kws_experiments.console.output import say
from kws_experiments.console.tables import Console
from kws_experiments.reports import model_table

TARGET, FIRST_STEP_TARGET = 0.9, 15.0
OURS = {  # overrides of each variant
    "host": ["pipeline.on_device=false"],
    "host, no XLA": ["pipeline.on_device=false", "trainer.jit_compile=false"],
    "on device": ["pipeline.on_device=true"],
}
TORCH = "PyTorch"
_READ_EVERY = 20  # steps, as in training: the host waits for the card no more often


def main(
    models: Models = "ds_cnn_s,bc_resnet_1",
    batches: Annotated[str, typer.Option(help="sizes, separated by commas")] = "100,512",
    seconds: Annotated[float, typer.Option(min=0.01, help="of each measurement, about")] = 5.0,
    overrides: Annotated[list[str] | None, typer.Argument(help="as train.py takes them: augment=…")] = None,
    device: Annotated[str, typer.Option(help="gpu, or cpu to try the benchmark itself")] = "gpu",
    variant: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Training on a GPU: clips/s of pipeline and step, of the step alone, and PyTorch's bare step beside it."""
    given = ["augment=original", *(overrides or [])]
    if variant is not None:
        model, batch = chosen_models(models)[0], int(batches)
        measure = _torch if variant == TORCH else _ours
        say(json.dumps(measure(model, batch, seconds, given + OURS.get(variant, []), device)))
        return
    sizes = [_size(text) for text in batches.split(",")]
    if device == "gpu" and not _gpu():
        say("no GPU: TensorFlow sees none here; nothing was measured")
        return
    cases = [
        (model, size, name)
        for model in chosen_models(models)
        for size in sizes
        for name in [*OURS, *([TORCH] if has_torch() and model in TORCH_MODELS else [])]
    ]
    rows = []
    for model, size, name in tqdm(cases, unit="variant", disable=None):
        options = [f"--models={model}", f"--batches={size}", f"--seconds={seconds}", f"--device={device}"]
        rows.append((model, size, name, _in_process([*options, f"--variant={name}", *given])))
    show(rows)


def _size(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise KwsError(f"--batches must be whole numbers from 1, separated by commas, got '{text}'")
    return int(text)


def _gpu() -> bool:
    """Whether TensorFlow sees a GPU: asked in another process, which would keep its memory."""
    code = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return found.returncode == 0 and found.stdout.split()[-1:] not in ([], ["0"])


def _in_process(arguments: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise KwsError(f"a measuring process ended: {(ended.stderr.strip() or 'without a word').splitlines()[-1]}")
    return json.loads(ended.stdout.splitlines()[-1])


def _ours(model: str, batch: int, seconds: float, overrides: list[str], device: str) -> dict[str, float]:
    """`first_step` in seconds; `whole` and `step` in clips/s."""
    choice = model_table.choose(model, [*overrides, f"trainer.batch_size={batch}"])
    experiment = choice.experiment
    experiment.start_tensorflow()
    import tensorflow as tf

    begin = time.perf_counter()
    from kws_data.pipeline import training_plan
    from kws_experiments import train
    from kws_experiments.training.step import TrainingStep

    with tf.device(f"/{device}:0"):
        source = random_clips(choice.num_labels(), experiment.sample_rate)
        plan = training_plan(source, batch)
        network, optimizer = train.build_for_training(experiment, choice.num_labels(), total_steps=1, steps_per_epoch=1)
        optimizer.build(network.trainable_variables)
        stream = train.training_stream(experiment, source, plan, 10**9)(0)
        step = TrainingStep(
            network, optimizer, experiment.settings, spec=stream.element_spec,
            front_end=train.device_front_end(experiment), class_weights=[1.0] * choice.num_labels(),
        )  # fmt: skip
        endless = iter(stream)
        first = next(endless)
        step(first)
        step.since_bad()
        rates = {"first_step": time.perf_counter() - begin}
        rates["whole"] = _rate(lambda: step(next(endless)), step.since_bad, batch, seconds)
        rates["step"] = _rate(lambda: step(first), step.since_bad, batch, seconds)
    experiment.augmentation.close()
    return rates


def _torch(model: str, batch: int, seconds: float, overrides: list[str], device: str) -> dict[str, float]:
    """`step` in clips/s: the better memory order of two."""
    import torch

    from benchmarks import torch_models

    choice = model_table.choose(model, overrides)
    card = torch.device("cuda" if device == "gpu" else "cpu")
    generator = np.random.default_rng(0)
    features = torch.from_numpy(generator.normal(size=(batch, *choice.shape())).astype(np.float32)).to(card)
    labels = torch.from_numpy(generator.integers(0, choice.num_labels(), batch)).long().to(card)
    rates = []
    for channels_last in (False, True):
        network = torch_models.Network(
            torch_models.MODELS[model](choice.num_labels()).to(card), features, labels,
            learning_rate=choice.experiment.learning_rate, channels_last=channels_last,
        )  # fmt: skip
        wait = torch.cuda.synchronize if device == "gpu" else lambda: None
        rates.append(_rate(network.train, wait, batch, seconds / 2))
    return {"step": max(rates)}


def _rate(work: Callable[[], Any], wait: Callable[[], Any], batch: int, seconds: float) -> float:
    """Clips/s of `work`, after a warm-up of a third of the time; `wait` waits for the card."""
    steps, begin = 0, time.perf_counter()
    for length in (seconds / 3, seconds):
        steps, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < length:
            for _ in range(_READ_EVERY):
                work()
            wait()
            steps += _READ_EVERY
    return batch * steps / (time.perf_counter() - begin)


def show(rows: list[tuple[str, int, str, dict[str, float]]]) -> None:
    """Print the rates, ratios and targets."""
    bare = {(model, size): rates["step"] for model, size, name, rates in rows if name == TORCH}
    numbers = ["batch", "first step", "whole", "ratio", "step", "ratio"]
    title = (
        f"Training: seconds to the first step, clips/s of the whole pipeline and of the step, ratios to {TORCH}'s step"
    )
    printed = table(title, ["model", "variant"], numbers)
    for model, size, name, rates in rows:
        cells = [f"{rates['first_step']:.1f}" if "first_step" in rates else "–"]
        for what in ("whole", "step"):
            cells.append(f"{rates[what]:,.0f}" if what in rates else "–")
            known = what in rates and (model, size) in bare
            cells.append(f"{rates[what] / bare[model, size]:.2f}" if known else "–")
        printed.add_row(model, name, str(size), *cells)
    console = Console()
    console.print(printed)
    console.print(f"targets: whole {TARGET:g} of {TORCH}'s step or more; first step within {FIRST_STEP_TARGET:g} s")


if __name__ == "__main__":
    run(main)
