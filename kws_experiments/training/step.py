"""One step of training: loss, gradients, update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kws_experiments.experiment.settings import TrainerSettings
from kws_experiments.training.distillation import Distillation
from kws_experiments.training.word_outputs import WordOutputs

FrontEndFunction = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]


def clip_losses(
    logits: tf.Tensor, batch: Mapping[str, tf.Tensor], label_smoothing: float, class_weights: tf.Tensor
) -> tf.Tensor:
    """Cross-entropy of each clip with its label, or two where clips are mixed: [batch] float32.

    Args:
        logits: [batch, labels] float32.
        batch: `labels` and `second_labels` ([batch] int32), `label_weights` ([batch] float32: the first one's part).
        label_smoothing: the part of each label that is spread evenly over all labels (arXiv:1512.00567).
        class_weights: [labels] float32, a factor on the losses of each label.
    """

    def loss(labels: tf.Tensor) -> tf.Tensor:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if label_smoothing:
            to_all = -tf.reduce_mean(tf.nn.log_softmax(logits), -1)
            losses = (1 - label_smoothing) * losses + label_smoothing * to_all
        return tf.gather(class_weights, labels) * losses

    first = batch["label_weights"]
    return first * loss(batch["labels"]) + (1.0 - first) * loss(batch["second_labels"])


class WeightAverage:
    """Exponential moving average of a model's trainable weights.

    The momentum is at most (1 + n) / (10 + n) in step n, so that the initial weights are soon forgotten (as in
    `tf.train.ExponentialMovingAverage`). The statistics of batch norms, themselves averages, are not averaged.
    """

    def __init__(self, model: keras.Model, momentum: float) -> None:
        self._weights = model.trainable_variables
        self._momentum = momentum
        self.variables = [tf.Variable(weight.value, trainable=False) for weight in self._weights]

    def update(self, step: tf.Tensor) -> None:
        """Move the averages towards the weights; `step` counts the updates before this one."""
        step = tf.cast(step, tf.float32)
        momentum = tf.minimum(self._momentum, (1.0 + step) / (10.0 + step))
        for average, weight in zip(self.variables, self._weights, strict=True):
            average.assign_add(tf.cast(1.0 - momentum, average.dtype) * (weight.value - average))

    def put(self) -> None:
        """Set the weights to their averages."""
        for average, weight in zip(self.variables, self._weights, strict=True):
            weight.assign(average)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Use the averages as the model's weights while the context lasts."""
        trained = [np.array(weight) for weight in self._weights]
        self.put()
        try:
            yield
        finally:
            for weight, value in zip(self._weights, trained, strict=True):
                weight.assign(value)


class TrainingStep:
    """One step of training as a graph.

    A call reads nothing back, so that a GPU never waits for Python: whether all was finite is asked now and then.

    Attributes:
        state: its own variables, besides those of the model and the optimizer: the totals since `take` (sum of losses,
            correct clips and clips, float64), the average of the weights, and the outputs of words.
        trained: the variables that the optimizer updates.
        learning_rate: of the last step, [] float32.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        settings: TrainerSettings,
        *,
        spec: Any,
        front_end: FrontEndFunction | None,
        class_weights: Sequence[float],
        word_labels: np.ndarray | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        """The arguments are those of `Trainer`; `spec` is the element spec of the stream's batches."""
        self._model, self._optimizer, self._front_end = model, optimizer, front_end
        self._label_smoothing = settings.label_smoothing
        self._class_weights = tf.constant(class_weights, tf.float32)
        self._words = None if word_labels is None else WordOutputs(model, word_labels)
        self._word_loss, self._distillation = settings.word_loss, distillation
        self._totals = tf.Variable(tf.zeros(3, tf.float64))
        self._since_bad = tf.Variable(tf.zeros((), tf.int64))
        self.learning_rate = tf.constant(float("nan"))
        self.average = WeightAverage(model, settings.ema_momentum) if settings.ema_momentum is not None else None
        self.trained = [*model.trainable_variables, *(self._words.variables if self._words else [])]
        self.state = [
            self._totals,
            *(self.average.variables if self.average else []),
            *(self._words.variables if self._words else []),
        ]
        compiled = settings.jit_compile
        if compiled is None:
            compiled = bool(tf.config.list_logical_devices("GPU"))
        # The front end is not compiled: its loop over clips has no static shapes, and XLA lacks some of its ops.
        self._update = self._forward_and_update
        if compiled:
            self._update = tf.function(self._forward_and_update, jit_compile=True, autograph=False)
        # One graph for batches of any size: a graph traced for the first batch's own shape rounds differently in the
        # last bits, and a resumed run may start with an epoch's smaller last batch.
        # AutoGraph has nothing to do here, and takes as long as tracing.
        self._graph = tf.function(self._step, input_signature=[spec], autograph=False)

    def __call__(self, batch: dict[str, tf.Tensor]) -> None:
        """Train on a batch."""
        self.learning_rate = self._graph(batch)

    def since_bad(self) -> int:
        """0 if loss and gradients were finite in all steps; else the steps since the first where not, it included."""
        return int(self._since_bad.numpy())

    def take(self) -> dict[str, float]:
        """Loss and accuracy since the last call."""
        loss, correct, count = self._totals.numpy()
        self._totals.assign(tf.zeros_like(self._totals))
        return {"loss": float(loss / count), "accuracy": float(correct / count)}

    def _step(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        learning_rate = tf.cast(self._optimizer.learning_rate, tf.float32)  # before the update counts a step
        sums, finite = self._update(batch if self._front_end is None else self._front_end(batch))
        self._totals.assign_add(sums)
        self._since_bad.assign_add(tf.cast((self._since_bad > 0) | ~finite, tf.int64))
        if self.average:
            self.average.update(self._optimizer.iterations.value - 1)
        return learning_rate

    def _forward(self, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(labels [batch], logits [batch, labels], losses [batch])."""
        if self._words is None:
            logits = tf.cast(self._model(batch["inputs"], training=True), tf.float32)
            return batch["labels"], logits, self._label_losses(logits, batch)
        logits, word_logits = self._words(batch["inputs"])
        logits, labelled = tf.cast(logits, tf.float32), self._words.with_labels(batch)
        of_labels = self._label_losses(logits, labelled)
        of_words = clip_losses(word_logits, batch, self._label_smoothing, tf.ones(self._words.targets))
        losses = (1 - self._word_loss) * of_labels + self._word_loss * of_words
        return labelled["labels"], logits, losses

    def _label_losses(self, logits: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        losses = clip_losses(logits, batch, self._label_smoothing, self._class_weights)
        return losses if self._distillation is None else self._distillation.losses(losses, logits, batch)

    def _forward_and_update(self, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Update the weights: (sum of losses, correct clips, clips), and whether loss and gradients are finite."""
        variables = self.trained
        clips = tf.cast(tf.shape(batch["labels"])[0], tf.float32)
        with tf.GradientTape() as tape:
            labels, logits, losses = self._forward(batch)
            penalty = tf.add_n([tf.cast(loss, tf.float32) for loss in [*self._model.losses, 0.0]])
            loss = tf.reduce_sum(losses) / clips + penalty
            scaled = self._optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        finite = tf.math.is_finite(loss)
        self._optimizer.apply(gradients, variables)
        if isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer):
            # It skips steps whose gradients are not finite, and halves the scale, from 2^15: below 1 after 16 steps.
            finite &= self._optimizer.dynamic_scale.value >= 1.0
        else:
            finite &= tf.math.is_finite(tf.linalg.global_norm(gradients))
        correct = tf.cast(tf.equal(tf.argmax(logits, -1, output_type=labels.dtype), labels), tf.float32)
        sums = tf.stack([tf.reduce_sum(losses) + penalty * clips, tf.reduce_sum(correct), clips])
        return tf.cast(sums, tf.float64), finite
