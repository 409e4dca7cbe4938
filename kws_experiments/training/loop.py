"""The training loop: steps over a stream of numbered batches, evaluations, and a state that can be resumed exactly.

All decisions (early stopping, which evaluation is best) are functions of the history's rows, so the weights, the
optimizer's variables and the history are the whole state.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from kws_data.text import to_csv
from kws_experiments.evaluation.detection import miss_rate
from kws_experiments.evaluation.predict import Inference, predict
from kws_experiments.experiment.schedules import Schedule
from kws_experiments.experiment.settings import TrainerSettings, best_row
from kws_experiments.runs import checkpoint
from kws_experiments.runs.folder import TrainingFiles, write_text
from kws_experiments.training.distillation import Distillation
from kws_experiments.training.progress import TrainingConsole
from kws_experiments.training.step import FrontEndFunction, TrainingStep

log = logging.getLogger(__name__)

CHECK_EVERY = 20  # steps; each check waits for the device

Evaluated = Callable[[dict[str, Any], np.ndarray], None]  # called with the history's new row and a confusion matrix


class Diverged(Exception):
    """The loss, its gradients or the weights were not finite.

    Attributes:
        step: steps before this one.
        learning_rate: of this step.
        ids: example ids of its batch.
    """

    def __init__(self, step: int, learning_rate: float, ids: np.ndarray) -> None:
        super().__init__(f"the loss, its gradients or the weights are not finite in step {step + 1}")
        self.step, self.learning_rate, self.ids = step, learning_rate, ids


class Trainer:
    """Trains a model; a training that stops can be resumed.

    Args:
        model: features to logits, built; trained in place.
        optimizer: its learning rate is the result of `schedule.rates`.
        settings: see TrainerSettings.
        schedule: of the learning rate; applied after each evaluation.
        learning_rate: the configured rate, before any schedule.
        labels: class names.
        class_weights: [labels], a factor on the losses of each label.
        word_labels: [targets] int32, the label of each target in the batches, where all words are told apart; None:
            the batches have labels.
        distillation: keeps outputs that the training starts with; None: it does not.
        false_accept_rate: of other clips, at which the history has the keywords' misses.
        files: see TrainingFiles.
        front_end: turns the stream's batches into model inputs inside the training step, so on its device; None if
            the stream yields model inputs.
        callbacks: called after each evaluation.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        settings: TrainerSettings,
        *,
        schedule: Schedule,
        learning_rate: float,
        labels: Sequence[str],
        class_weights: Sequence[float],
        word_labels: np.ndarray | None = None,
        distillation: Distillation | None = None,
        false_accept_rate: float,
        files: TrainingFiles,
        front_end: FrontEndFunction | None = None,
        callbacks: Sequence[Evaluated] = (),
    ) -> None:
        self.model, self.optimizer, self.settings, self.files = model, optimizer, settings, files
        self._schedule, self._learning_rate = schedule, learning_rate
        self._labels, self._class_weights, self._word_labels = labels, class_weights, word_labels
        self._distillation = distillation
        self._false_accept_rate = false_accept_rate
        self._front_end, self._callbacks = front_end, callbacks
        self._progress = checkpoint.Progress(0, [], 0.0)
        self._started = 0.0
        self._recent: deque[tuple[tf.Tensor, tf.Tensor]] = deque(maxlen=CHECK_EVERY)  # example ids and learning rate

    def fit(
        self,
        stream: Callable[[int], tf.data.Dataset],
        validation: tf.data.Dataset,
        *,
        steps_per_epoch: int,
        total_steps: int,
    ) -> pd.DataFrame:
        """Train, from the state in `files` if there is one, and set the model to its best weights.

        Args:
            stream: from a step's number to the batches from that step on, as `pipeline.batches` makes them.
            validation: batches to evaluate on.
            steps_per_epoch: for the history's epoch column.
            total_steps: steps of the whole training.

        Returns:
            the history: a row per evaluation.

        Raises:
            Diverged: the loss, the gradients or the weights are not finite; the last checkpoint is from before.
            KeyboardInterrupt: after the state was saved; the same call resumes from there.
        """
        batches = self._resume(stream, total_steps)
        progress, step = self._progress, self._step
        eval_every = self.settings.eval_every or steps_per_epoch
        infer = Inference(self.model, validation)
        console = TrainingConsole(
            self._labels, progress.step, total_steps, print_confusion=self.settings.print_confusion
        )
        with _Interrupts() as interrupts, console:
            for batch in batches:
                if _should_stop(progress.history, self.settings):
                    break
                step(batch)
                self._recent.append((batch["ids"], step.learning_rate))
                progress.step += 1
                console.advance(batch["labels"].shape[0])
                evaluating = progress.step % eval_every == 0 or progress.step == total_steps
                stopping = interrupts.pending
                saving = evaluating or stopping or progress.step % self.settings.checkpoint_every == 0
                if saving or progress.step % CHECK_EVERY == 0:
                    self._require(step.since_bad())
                if saving:  # finite gradients can still make too large a step
                    self._require(0 if _finite(self._state) else 1)
                evaluated = self._evaluate(infer, validation, progress.step / steps_per_epoch) if evaluating else None
                if saving:
                    self._save()
                if evaluated is not None:
                    console.evaluated(*evaluated)
                if stopping:
                    break
            if interrupts.pending:  # the state was saved by this step, or by the evaluation that ended training
                raise KeyboardInterrupt
        if self.settings.restore_best:
            checkpoint.load_weights(self.files.best, self.model.weights)
        elif step.average:
            step.average.put()
        return pd.DataFrame(progress.history)

    def _resume(self, stream: Callable[[int], tf.data.Dataset], total_steps: int) -> tf.data.Dataset:
        """Build the step and its state, load the state of an earlier session, and return the remaining batches."""
        batches = stream(0)
        self._step = TrainingStep(
            self.model, self.optimizer, self.settings,
            spec=batches.element_spec, front_end=self._front_end, class_weights=self._class_weights,
            word_labels=self._word_labels, distillation=self._distillation,
        )  # fmt: skip
        self.optimizer.build(self._step.trained)
        self._state = [*self.model.variables, *self.optimizer.variables, *self._step.state]
        if self.files.state.is_file():
            self._progress = checkpoint.load(self.files.state, self._state)
            batches = stream(self._progress.step)
            log.info("resuming at step %d of %d", self._progress.step, total_steps)
            if self._progress.step == total_steps or _should_stop(self._progress.history, self.settings):
                log.info("the training is complete: going on with the evaluation")
        self._started = time.monotonic() - self._progress.seconds
        return batches

    def _evaluate(
        self, infer: Inference, validation: tf.data.Dataset, epoch: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Add a row to the history, save the weights if they are the best, and set the next learning rate.

        Returns:
            the row, and the confusion matrix [labels, labels].
        """
        history, step = self._progress.history, self._step
        with step.average.in_place() if step.average else nullcontext():
            scores, confusion = evaluate(infer, validation, self._labels, self._false_accept_rate)
            row = {"step": self._progress.step, "epoch": epoch} | step.take() | scores
            row["learning_rate"] = float(step.learning_rate)
            row["seconds"] = round(time.monotonic() - self._started, 3)
            history.append(row)
            if best_row(history, self.settings.monitor) == len(history) - 1:
                checkpoint.save_weights(self.files.best, self.model.weights)
        write_text(self.files.history, to_csv(pd.DataFrame(history)))
        for callback in self._callbacks:
            callback(row, confusion)
        next_rate = self._schedule.rate_after(history, self._learning_rate)
        if next_rate is not None:
            self.optimizer.learning_rate = next_rate
        return row, confusion

    def _save(self) -> None:
        self._progress.seconds = time.monotonic() - self._started
        checkpoint.save(self.files.state, self._state, self._progress)

    def _require(self, since_bad: int) -> None:
        """Raise Diverged for the step that is so many steps back, 1 for the last one, unless 0."""
        if since_bad:
            ids, learning_rate = self._recent[-since_bad]
            raise Diverged(self._progress.step - since_bad, float(learning_rate), ids.numpy())


def evaluate(
    infer: Inference, batches: tf.data.Dataset, labels: Sequence[str], false_accept_rate: float
) -> tuple[dict[str, float], np.ndarray]:
    """Evaluate all clips.

    Returns:
        mean loss, accuracy and the keywords' `miss_rate` as `val_loss`, `val_accuracy` and `val_miss_rate`, and the
        confusion matrix [labels, labels], a row per true label.
    """
    logits, truth, _ = predict(infer, batches)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits).numpy()
    predicted = logits.argmax(1)
    row = {
        "val_loss": float(losses.mean(dtype=np.float64)),
        "val_accuracy": float((predicted == truth).mean()),
        "val_miss_rate": miss_rate(softmax(logits, axis=1), truth, labels, false_accept_rate),
    }
    return row, confusion_matrix(truth, predicted, labels=np.arange(len(labels)))


class _Interrupts:
    """Turns Ctrl-C and SIGTERM into a flag, so that a step is always completed; a second Ctrl-C ends at once."""

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


def _finite(variables: Sequence[Any]) -> bool:
    return all(np.isfinite(np.asarray(variable)).all() for variable in variables)


def _should_stop(history: list[dict[str, Any]], settings: TrainerSettings) -> bool:
    if settings.early_stopping is None or not history:
        return False
    return len(history) - 1 - best_row(history, settings.monitor) >= settings.early_stopping
