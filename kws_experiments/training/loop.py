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
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sklearn.metrics import confusion_matrix

from kws_data.storage.atomic import replace_file
from kws_experiments.experiment.schedules import Schedule
from kws_experiments.experiment.settings import TrainerSettings, best_row
from kws_experiments.runs import checkpoint
from kws_experiments.runs.folder import TrainingFiles
from kws_experiments.training.step import FrontEndFunction, TrainingStep

log = logging.getLogger(__name__)

Evaluated = Callable[[dict[str, Any], np.ndarray], None]  # called with the history's new row and a confusion matrix


class Diverged(Exception):
    """The loss, its gradients or the weights were not finite.

    Attributes:
        step: steps done before.
        learning_rate: at that step.
        ids: the batch's example ids.
    """

    def __init__(self, step: int, learning_rate: float, ids: np.ndarray) -> None:
        super().__init__(f"the loss, its gradients or the weights are not finite in step {step + 1}")
        self.step, self.learning_rate, self.ids = step, learning_rate, ids


def train(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    settings: TrainerSettings,
    *,
    schedule: Schedule,
    learning_rate: float,
    stream: Callable[[int], tf.data.Dataset],
    validation: tf.data.Dataset,
    front_end: FrontEndFunction | None,
    labels: Sequence[str],
    class_weights: Sequence[float],
    strategy: tf.distribute.Strategy,
    steps_per_epoch: int,
    total_steps: int,
    files: TrainingFiles,
    callbacks: Sequence[Evaluated] = (),
) -> pd.DataFrame:
    """Train `model` in place, from the state in `files` if there is one.

    Args:
        model: features to logits; built, as the optimizer, under `strategy`.
        optimizer: its learning rate is what `schedule.rates` gave.
        settings: see TrainerSettings.
        schedule: of the learning rate; asked after each evaluation.
        learning_rate: the configured one, before any schedule.
        stream: from a first step to the batches from there on, as `pipeline.batches` makes them.
        validation: batches to evaluate on.
        front_end: what makes model inputs of the stream's batches, inside the training step and so on its device; None
            where the stream has done so.
        labels: class names.
        class_weights: [labels], a factor on the losses of each.
        strategy: of devices.
        steps_per_epoch: for the history's epoch column.
        total_steps: where training ends.
        files: see TrainingFiles.
        callbacks: called after each evaluation.

    Returns:
        the history: a row per evaluation.

    Raises:
        Diverged: the loss, the gradients or the weights are no longer finite; the last checkpoint is from before.
        KeyboardInterrupt: after the state was saved; the same call goes on from there.
    """
    with strategy.scope():
        optimizer.build(model.trainable_variables)
    progress = checkpoint.Progress(0, [], 0.0)
    batches = stream(0)
    step = TrainingStep(
        model, optimizer, settings,
        spec=batches.element_spec, front_end=front_end, class_weights=class_weights, strategy=strategy,
    )  # fmt: skip
    state_variables = [*model.variables, *optimizer.variables, *step.state]
    if files.state.is_file():
        progress = checkpoint.load(files.state, state_variables)
        batches = stream(progress.step)
        log.info("resuming at step %d of %d", progress.step, total_steps)
    eval_every = settings.eval_every or steps_per_epoch
    started = time.monotonic() - progress.seconds

    def save() -> None:
        progress.seconds = time.monotonic() - started
        checkpoint.save(files.state, state_variables, progress)

    def check(finite: bool, batch: dict[str, Any], steps_before: int) -> None:
        if not finite:
            raise Diverged(steps_before, step.learning_rate, batch["ids"].numpy())

    averaged = step.average.in_place if step.average else nullcontext
    infer = inference(model, validation)
    with _Interrupts() as interrupts, _ProgressBar(progress.step, total_steps) as bar:
        for batch in batches:
            if _should_stop(progress.history, settings):
                break
            check(step(batch), batch, progress.step)
            progress.step += 1
            bar.advance()
            evaluated = progress.step % eval_every == 0 or progress.step == total_steps
            stopping = interrupts.pending
            saving = evaluated or stopping or progress.step % settings.checkpoint_every == 0
            if saving:  # finite gradients can still make too large a step
                check(_finite(state_variables), batch, progress.step - 1)
            if evaluated:
                with averaged():
                    row, confusion = evaluate(infer, validation, len(labels))
                    row = {"step": progress.step, "epoch": progress.step / steps_per_epoch} | step.take() | row
                    row["learning_rate"] = step.learning_rate
                    row["seconds"] = round(time.monotonic() - started, 3)
                    progress.history.append(row)
                    _log_row(row, confusion if settings.print_confusion else None)
                    if best_row(progress.history, settings.monitor) == len(progress.history) - 1:
                        checkpoint.save_weights(files.best, model.weights)
                with replace_file(files.history) as temporary:
                    pd.DataFrame(progress.history).to_csv(temporary, index=False)
                for callback in callbacks:
                    callback(row, confusion)
                next_rate = schedule.rate_after(progress.history, learning_rate)
                if next_rate is not None:
                    optimizer.learning_rate = next_rate
            if saving:
                save()
            if stopping:
                break
        if interrupts.pending:  # all is saved: by this step, or by the last evaluation, with which training ends
            raise KeyboardInterrupt
    if settings.restore_best:
        checkpoint.load_weights(files.best, model.weights)
    elif step.average:
        step.average.put()
    return pd.DataFrame(progress.history)


Infer = Callable[[Any], tf.Tensor]


def inference(model: keras.Model, batches: tf.data.Dataset) -> Infer:
    """The model as a graph for inputs as `batches` has them: inputs → logits, without dropout."""
    return tf.function(lambda inputs: model(inputs, training=False), [batches.element_spec["inputs"]])


def evaluate(infer: Infer, batches: tf.data.Dataset, num_labels: int) -> tuple[dict[str, float], np.ndarray]:
    """Mean loss and accuracy over all clips, as `val_loss` and `val_accuracy`, and the confusion matrix.

    The matrix is [labels, labels], a row per true label.
    """
    logits, labels, _ = predict(infer, batches)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()
    predicted = logits.argmax(1)
    row = {"val_loss": float(losses.mean(dtype=np.float64)), "val_accuracy": float((predicted == labels).mean())}
    return row, confusion_matrix(labels, predicted, labels=np.arange(num_labels))


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


def _finite(variables: Sequence[Any]) -> bool:
    return all(np.isfinite(np.asarray(variable)).all() for variable in variables)


def _should_stop(history: list[dict[str, Any]], settings: TrainerSettings) -> bool:
    if settings.early_stopping is None or not history:
        return False
    return len(history) - 1 - best_row(history, settings.monitor) >= settings.early_stopping


def _log_row(row: dict[str, Any], confusion: np.ndarray | None) -> None:
    log.info(
        "epoch %5.1f  step %6d  loss %.4f  accuracy %5.1f %%  validation: loss %.4f  accuracy %5.1f %%%s",
        row["epoch"], row["step"], row["loss"], 100 * row["accuracy"], row["val_loss"], 100 * row["val_accuracy"],
        "" if confusion is None else f"\nconfusion matrix (rows: labels, columns: predictions):\n{_printed(confusion)}",
    )  # fmt: skip


def _printed(matrix: np.ndarray) -> str:
    return np.array2string(matrix, threshold=sys.maxsize, max_line_width=sys.maxsize)
