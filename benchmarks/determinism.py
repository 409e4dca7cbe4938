"""What TensorFlow's deterministic ops cost: training clips/s with them, as a ratio to without, in one run.

    python -m benchmarks.determinism [--models ds_cnn_s,conv] [--batch 100] [--threads N] [--rounds 5]

They can't be switched off once they are on, so each variant lives in a process of its own. The two take turns on the
same batch, round after round, so that another program's load falls on both alike. Two measurements for each model:

- *step*: the training step that `train.py` runs, on one batch of random features;
- *whole*: the input pipeline before it, with `augment=original`: gather, noise, time shift, features. On random clips.

It also says whether two processes without deterministic ops came to the same weights: on this machine, that is.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import pandas as pd
from tqdm import tqdm

from benchmarks.options import (
    ALL_CORES,
    Batch,
    Models,
    Options,
    Repeats,
    Seconds,
    Threads,
    chosen_models,
    machine,
    run,
    table,
)
from benchmarks.random_clips import random_clips
from kws_data.errors import KwsError
from kws_data.splits import TRAINING
from kws_experiments.config import tensorflow_setup
from kws_experiments.console.tables import Console
from kws_experiments.reports import model_table

STEP, WHOLE, WEIGHTS = "step", "whole", "weights"
WITH, WITHOUT, AGAIN = "with", "without", "without, again"
_WARM_UP_STEPS = 3


def main(
    models: Models = "ds_cnn_s,conv",
    batch: Batch = 100,
    threads: Threads = ALL_CORES,
    rounds: Repeats = 5,
    seconds: Seconds = 0.5,
) -> None:
    """What TensorFlow's deterministic ops cost: training clips/s with them, as a ratio to without, in one run."""
    options = Options(chosen_models(models), threads, rounds, seconds, batch)
    show(*measure(options), options)


def measure(options: Options) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clips/s, a row per model, measurement, round and variant; and the final weights of each model and variant."""
    context = multiprocessing.get_context("spawn")  # TensorFlow doesn't survive a fork
    rows, digests = [], []
    bar = tqdm(total=len(options.models) * (options.repeats + 1), unit="round", disable=None)
    with bar:
        for model in options.models:
            bar.set_description(model)
            workers: dict[str, Connection] = {}
            processes = []
            for variant in (WITH, WITHOUT, AGAIN):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, model, variant == WITH, options), daemon=True)
                process.start()
                theirs.close()
                workers[variant] = ours
                processes.append(process)
            ready = [_answer(connection, STEP, 1) for connection in workers.values()]
            # as many steps for every variant, so that their weights can be compared
            steps = math.ceil(options.seconds * max(ready) / options.batch)
            for round_number in range(options.repeats + 1):
                for measured in (STEP, WHOLE):
                    for variant, connection in workers.items():
                        rate = _answer(connection, measured, steps)
                        if round_number:  # the first warms up
                            rows.append(
                                {"model": model, "measured": measured, "round": round_number, "variant": variant,
                                 "rate": rate}
                            )  # fmt: skip
                bar.update()
            for variant, connection in workers.items():
                digests.append({"model": model, "variant": variant, "weights": _answer(connection, WEIGHTS)})
                connection.close()
            for process in processes:
                process.join()
    return pd.DataFrame(rows), pd.DataFrame(digests)


def _answer(connection: Connection, question: str, steps: int = 0) -> Any:
    try:
        connection.send((question, steps))
        answer = connection.recv()
    except (EOFError, BrokenPipeError) as error:
        raise KwsError("a measuring process ended") from error
    if isinstance(answer, KwsError):
        raise answer
    return answer


def _serve(connection: Connection, model: str, deterministic: bool, options: Options) -> None:
    """Answer the other process's questions until it hangs up: in a process with deterministic ops, or without."""
    tensorflow_setup.quiet()
    try:
        trainer = _Trainer(model, deterministic, options)
    except KwsError as error:
        connection.recv()
        connection.send(error)
        return
    answers = {STEP: trainer.step_rate, WHOLE: trainer.whole_rate, WEIGHTS: lambda _: trainer.digest()}
    try:
        while True:
            question, steps = connection.recv()
            connection.send(answers[question](steps))
    except (EOFError, KeyboardInterrupt):
        return


class _Trainer:
    """A model's training step, with a batch at hand, and with the pipeline that would make such batches."""

    def __init__(self, model: str, deterministic: bool, options: Options) -> None:
        choice = model_table.choose(model, [f"threads.intra_op={options.threads}"])
        experiment = choice.experiment
        experiment.start_tensorflow(deterministic=deterministic)
        import tensorflow as tf

        from kws_experiments.training.step import TrainingStep

        self.options = options
        self.model = choice.build()
        self.stream = _stream(choice, options)
        batch = next(self.stream)
        optimizer = experiment.build_optimizer(self.model, total_steps=1, steps_per_epoch=1)
        optimizer.build(self.model.trainable_variables)
        spec = {name: tf.TensorSpec((None, *value.shape[1:]), value.dtype) for name, value in batch.items()}
        self.step = TrainingStep(
            self.model, optimizer, experiment.settings, spec=spec, front_end=None,
            class_weights=[1.0] * choice.num_labels(),
        )  # fmt: skip
        self.batch = batch
        for _ in range(_WARM_UP_STEPS):
            self.step(batch)

    def step_rate(self, steps: int) -> float:
        """Clips/s of the step alone."""
        start = time.perf_counter()
        for _ in range(steps):
            self.step(self.batch)
        return self.options.batch * steps / (time.perf_counter() - start)

    def whole_rate(self, steps: int) -> float:
        """Clips/s of the pipeline and the step."""
        start = time.perf_counter()
        for _ in range(steps):
            self.step(next(self.stream))
        return self.options.batch * steps / (time.perf_counter() - start)

    def digest(self) -> str:
        """What names the weights now."""
        from kws_experiments.runs.saved_model import weights_digest

        return weights_digest(self.model.weights)


def _stream(choice: model_table.Choice, options: Options) -> Iterator[dict[str, Any]]:
    """Endless training batches of random clips, as `augment=original` and the model's features make them."""
    from kws_data.pipeline import batches, training_plan
    from kws_experiments.config.compose import compose
    from kws_experiments.experiment.experiment import Experiment

    source = random_clips(choice.num_labels(), choice.experiment.sample_rate)
    augmentation = Experiment(compose(["augment=original"])).augmentation
    plan = training_plan(source, options.batch)
    return iter(
        batches(
            source, TRAINING, plan, features=choice.experiment.features, augmentation=augmentation,
            steps=10**9, threads=options.threads,
        )
    )  # fmt: skip


def show(rates: pd.DataFrame, digests: pd.DataFrame, options: Options) -> None:
    """Print the medians, the ratios and the machine."""
    wide = rates.pivot_table(index=["model", "measured", "round"], columns="variant", values="rate").reset_index()
    numbers = ["clips/s with", "clips/s without", "with, of without", "lowest", "highest"]
    printed = table("Training with deterministic ops", ["model", "measured"], numbers)
    for model in options.models:
        for measured in (STEP, WHOLE):
            rows = wide[(wide["model"] == model) & (wide["measured"] == measured)]
            ratio = rows[WITH] / rows[WITHOUT]
            cells = [f"{rows[WITH].median():,.0f}", f"{rows[WITHOUT].median():,.0f}", f"{ratio.median():.2f}"]
            printed.add_row(model, measured, *cells, f"{ratio.min():.2f}", f"{ratio.max():.2f}")
    console = Console()
    console.print(printed)
    for model, group in digests.groupby("model", sort=False):
        weights = group.set_index("variant")["weights"]
        console.print(
            f"{model}: two processes without deterministic ops ended with"
            f" {'the same weights' if weights[WITHOUT] == weights[AGAIN] else 'different weights'}; the one with them"
            f" has {'those' if weights[WITH] in (weights[WITHOUT], weights[AGAIN]) else 'others'}",
            soft_wrap=True,
        )
    console.print(
        f"{machine()}, {options.threads} threads, batches of {options.batch}, median of {options.repeats} rounds",
        soft_wrap=True,
    )


if __name__ == "__main__":
    run(main)
