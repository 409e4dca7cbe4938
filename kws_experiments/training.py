"""The training loop: steps over a stream of numbered batches, evaluations, and a state that can be resumed exactly.

What decides (early stopping, which evaluation is best) is a function of the history's rows, so that the weights, the
optimizer's slots and the history are all there is to save.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kws_data.atomic import replace_file
from kws_data.checks import check_flag, check_whole
from kws_experiments import checkpoint
from kws_experiments.folder import TrainingFiles

log = logging.getLogger(__name__)

MONITORS = {"val_accuracy": 1, "val_loss": -1}  # and whether more or less is better


@dataclass(frozen=True)
class TrainerSettings:
    """What `conf/trainer/` chooses; the YAML says what each key means."""

    batch_size: int
    epochs: int | None
    steps: int | None
    eval_every: int | None
    checkpoint_every: int
    early_stopping: int | None
    monitor: str
    restore_best: bool
    jit_compile: bool
    tensorboard: bool

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                "epochs and steps must not both be given or both be null,"
                f" got {self.epochs} and {self.steps}; trainer.epochs=null trains by steps"
            )
        for name in ("batch_size", "epochs", "steps", "eval_every", "checkpoint_every", "early_stopping"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        for name in ("restore_best", "jit_compile", "tensorboard"):
            check_flag(name, getattr(self, name))
        if self.monitor not in MONITORS:
            raise ValueError(f"monitor must be one of {', '.join(MONITORS)}, got '{self.monitor}'")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole training."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch


def train(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    settings: TrainerSettings,
    *,
    stream: Callable[[int], tf.data.Dataset],
    validation: tf.data.Dataset,
    front_end: Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]] | None,
    steps_per_epoch: int,
    total_steps: int,
    files: TrainingFiles,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> pd.DataFrame:
    """Train `model` in place, from the state in `files` if there is one.

    Args:
        model: features to logits.
        optimizer: its learning rate may be a schedule.
        settings: see TrainerSettings.
        stream: from a first step to the batches from there on, as `pipeline.batches` makes them.
        validation: batches to evaluate on.
        front_end: what makes model inputs of the stream's batches, inside the training step and so on its device; None
            where the stream has done so.
        steps_per_epoch: for the history's epoch column.
        total_steps: where training ends.
        files: see TrainingFiles.
        callbacks: Keras's; an 'epoch' is an evaluation to them.

    Returns:
        the history: a row per evaluation.

    Raises:
        KeyboardInterrupt: after the state was saved; the same call goes on from there.
    """
    optimizer.build(model.trainable_variables)
    totals = tf.Variable(tf.zeros(3, tf.float64))
    state_variables = [*model.variables, *optimizer.variables]
    progress = checkpoint.Progress(0, [], 0.0, np.zeros(3))
    if files.state.is_file():
        progress = checkpoint.load(files.state, state_variables)
        totals.assign(progress.totals)
        log.info("resuming at step %d of %d", progress.step, total_steps)
    batches = stream(progress.step)
    train_step = _train_step(model, optimizer, totals, settings.jit_compile, batches.element_spec, front_end)
    eval_every = settings.eval_every or steps_per_epoch
    callback_list = keras.callbacks.CallbackList(list(callbacks), model=model)
    started = time.monotonic() - progress.seconds

    def save() -> None:
        progress.totals = totals.numpy()
        progress.seconds = time.monotonic() - started
        checkpoint.save(files.state, state_variables, progress)

    infer = inference(model, validation)
    callback_list.on_train_begin()
    with _Interrupts() as interrupts, _ProgressBar(progress.step, total_steps) as bar:
        for batch in batches:
            if interrupts.pending or _should_stop(progress.history, settings):
                break
            train_step(batch)
            progress.step += 1
            bar.advance()
            evaluated = progress.step % eval_every == 0 or progress.step == total_steps
            if evaluated:
                row = {"step": progress.step, "epoch": progress.step / steps_per_epoch}
                row |= _take(totals) | evaluate(infer, validation)
                row["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
                row["seconds"] = round(time.monotonic() - started, 3)
                progress.history.append(row)
                _log_row(row)
                if best_row(progress.history, settings.monitor) == len(progress.history) - 1:
                    checkpoint.save_weights(files.best, model)
                with replace_file(files.history) as temporary:
                    pd.DataFrame(progress.history).to_csv(temporary, index=False)
                metrics = {name: row[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
                callback_list.on_epoch_end(len(progress.history) - 1, metrics)
            if evaluated or progress.step % settings.checkpoint_every == 0:
                save()
        if interrupts.pending and progress.step < total_steps:
            save()
            raise KeyboardInterrupt
    callback_list.on_train_end()
    if settings.restore_best:
        checkpoint.load_weights(files.best, model)
    return pd.DataFrame(progress.history)


Infer = Callable[[Any], tf.Tensor]


def inference(model: keras.Model, batches: tf.data.Dataset) -> Infer:
    """The model as a graph for inputs as `batches` has them: inputs → logits, without dropout."""
    return tf.function(lambda inputs: model(inputs, training=False), [batches.element_spec["inputs"]])


def evaluate(infer: Infer, batches: tf.data.Dataset) -> dict[str, float]:
    """Mean loss and accuracy over all clips, as `val_loss` and `val_accuracy`."""
    logits, labels, _ = predict(infer, batches)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()
    return {
        "val_loss": float(losses.mean(dtype=np.float64)),
        "val_accuracy": float((logits.argmax(1) == labels).mean()),
    }


def predict(infer: Infer, batches: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits [clips, labels] float32, labels [clips] int32, example ids [clips] int64), in the batches' order."""
    parts = [(infer(batch["inputs"]).numpy(), batch["labels"].numpy(), batch["ids"].numpy()) for batch in batches]
    logits, labels, ids = (np.concatenate(part) for part in zip(*parts, strict=True))
    return logits.astype(np.float32), labels, ids


class _Interrupts:
    """Ctrl-C and SIGTERM as a flag, so that a step is never left half done; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.pending = False

    def __enter__(self) -> _Interrupts:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: object) -> None:
        del frame
        self.pending = True
        signal.signal(number, self._before[number])

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _ProgressBar:
    """Steps done and to go, for a person at a terminal."""

    def __init__(self, done: int, total: int) -> None:
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(
            *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        )
        self._task = self._progress.add_task("training", total=total, completed=done)

    def __enter__(self) -> _ProgressBar:
        self._progress.start()
        return self

    def advance(self) -> None:
        self._progress.advance(self._task)

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


def _train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    totals: tf.Variable,
    jit_compile: bool,
    spec: Any,
    front_end: Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]] | None,
) -> Callable[[dict[str, tf.Tensor]], None]:
    # One graph for batches of any size: a graph traced for the first batch's own shape rounds differently in the last
    # bits, and a resumed run may start with an epoch's smaller last batch.
    @tf.function(input_signature=[spec], jit_compile=jit_compile)
    def step(batch: dict[str, tf.Tensor]) -> None:
        if front_end is not None:
            batch = front_end(batch)
        labels, second, weights = batch["labels"], batch["second_labels"], batch["label_weights"]
        with tf.GradientTape() as tape:
            logits = model(batch["inputs"], training=True)
            logits = tf.cast(logits, tf.float32)
            losses = weights * tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            losses += (1.0 - weights) * tf.nn.sparse_softmax_cross_entropy_with_logits(second, logits)
            loss = tf.reduce_mean(losses) + sum(model.losses, tf.zeros(()))
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)
        correct = tf.equal(tf.argmax(logits, -1, output_type=labels.dtype), labels)
        count = tf.cast(tf.shape(labels)[0], tf.float64)
        sums = [tf.cast(loss, tf.float64) * count, tf.reduce_sum(tf.cast(correct, tf.float64)), count]
        totals.assign_add(tf.stack(sums))

    return step


def _take(totals: tf.Variable) -> dict[str, float]:
    """Loss and accuracy since the last call."""
    loss, correct, count = totals.numpy()
    totals.assign(tf.zeros_like(totals))
    return {"loss": float(loss / count), "accuracy": float(correct / count)}


def best_row(history: list[dict[str, Any]], monitor: str) -> int:
    """The place of the best evaluation; of equally accurate ones the one with the lower loss, then the first."""
    sign = MONITORS[monitor]
    keys = [(sign * row[monitor], -row["val_loss"]) for row in history]
    return max(range(len(keys)), key=keys.__getitem__)


def _should_stop(history: list[dict[str, Any]], settings: TrainerSettings) -> bool:
    if settings.early_stopping is None or not history:
        return False
    return len(history) - 1 - best_row(history, settings.monitor) >= settings.early_stopping


def _log_row(row: dict[str, Any]) -> None:
    log.info(
        "epoch %5.1f  step %6d  loss %.4f  accuracy %5.1f %%  validation: loss %.4f  accuracy %5.1f %%",
        row["epoch"], row["step"], row["loss"], 100 * row["accuracy"], row["val_loss"], 100 * row["val_accuracy"],
    )  # fmt: skip
