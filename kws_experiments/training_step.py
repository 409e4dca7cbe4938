"""One step of training: loss, gradients, update, on one device or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kws_experiments.settings import TrainerSettings

FrontEndFunction = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]


def device_strategy(name: str) -> tf.distribute.Strategy:
    """`trainer.strategy` as TensorFlow's: the default one, or a mirrored one over this machine's accelerators."""
    if name == "none":
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def clip_losses(
    logits: tf.Tensor, batch: Mapping[str, tf.Tensor], label_smoothing: float, class_weights: tf.Tensor
) -> tf.Tensor:
    """Cross-entropy of each clip with its label, or two where clips are mixed: [batch] float32.

    Args:
        logits: [batch, labels] float32.
        batch: `labels` and `second_labels` ([batch] int32), `label_weights` ([batch] float32: the first one's part).
        label_smoothing: the part of each label that is spread evenly over all of them (arXiv:1512.00567).
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
    `tf.train.ExponentialMovingAverage`). Batch norms' statistics, averages themselves, are left as they are.
    """

    def __init__(self, model: keras.Model, momentum: float) -> None:
        self._weights = model.trainable_variables
        self._momentum = momentum
        self.variables = [tf.Variable(weight.value, trainable=False) for weight in self._weights]

    def update(self, step: tf.Tensor) -> None:
        """Move towards the weights; `step`: updates made before this one."""
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
        """The model with its averages for weights, for as long as the context lasts."""
        trained = [np.array(weight) for weight in self._weights]
        self.put()
        try:
            yield
        finally:
            for weight, value in zip(self._weights, trained, strict=True):
                weight.assign(value)


class TrainingStep:
    """One step of training as a graph.

    Attributes:
        state: what it keeps between steps, beside the model's and the optimizer's variables: the totals since `take`
            (sum of losses, correct clips and clips, float64), and the weights' average.
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
        strategy: tf.distribute.Strategy,
    ) -> None:
        """Args are as of `training.train`; `spec`: of the stream's batches."""
        self._model, self._optimizer, self._front_end = model, optimizer, front_end
        self._label_smoothing = settings.label_smoothing
        self._class_weights = tf.constant(class_weights, tf.float32)
        self._strategy = strategy
        self._totals = tf.Variable(tf.zeros(3, tf.float64))
        self.average = WeightAverage(model, settings.ema_momentum) if settings.ema_momentum is not None else None
        self.state = [self._totals, *(self.average.variables if self.average else [])]
        compiled = settings.jit_compile
        if compiled is None:
            compiled = bool(tf.config.list_logical_devices("GPU")) and strategy.num_replicas_in_sync == 1
        # One graph for batches of any size: a graph traced for the first batch's own shape rounds differently in the
        # last bits, and a resumed run may start with an epoch's smaller last batch.
        self._graph = tf.function(self._step, input_signature=[spec], jit_compile=compiled)

    def __call__(self, batch: dict[str, tf.Tensor]) -> bool:
        """Train on a batch; False if its loss or gradients were not finite."""
        return bool(self._graph(batch))

    def take(self) -> dict[str, float]:
        """Loss and accuracy since the last call."""
        loss, correct, count = self._totals.numpy()
        self._totals.assign(tf.zeros_like(self._totals))
        return {"loss": float(loss / count), "accuracy": float(correct / count)}

    def _step(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        if self._strategy.num_replicas_in_sync == 1:
            sums, finite = self._on_one_device(batch)
        else:
            shards = self._strategy.run(self._on_shard, (batch,))
            sums, finite = (self._strategy.reduce("SUM", value, axis=None) for value in shards)
        self._totals.assign_add(sums)
        if self.average:
            self.average.update(self._optimizer.iterations.value - 1)
        return finite >= self._strategy.num_replicas_in_sync

    def _on_shard(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """This device's part of the batch: every n-th clip."""
        context = tf.distribute.get_replica_context()
        size = tf.shape(batch["labels"])[0]
        rows = tf.range(context.replica_id_in_sync_group, size, context.num_replicas_in_sync)
        # a device without a clip (the last batch of an epoch may be tiny) takes another's, and gives it no weight
        spare = tf.equal(tf.size(rows), 0)
        rows = tf.cond(spare, lambda: tf.zeros(1, tf.int32), lambda: rows)
        shard = tf.nest.map_structure(lambda values: tf.gather(values, rows), batch)
        weight = tf.where(spare, 0.0, 1.0)
        return self._on_one_device(shard, weight, size)

    def _on_one_device(
        self, batch: Mapping[str, tf.Tensor], weight: tf.Tensor | float = 1.0, batch_size: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Update the weights: (sum of losses, correct clips, clips), and 1 if loss and gradients are finite."""
        if self._front_end is not None:
            batch = self._front_end(batch)
        labels = batch["labels"]
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            logits = tf.cast(self._model(batch["inputs"], training=True), tf.float32)
            losses = weight * clip_losses(logits, batch, self._label_smoothing, self._class_weights)
            count = tf.shape(labels)[0] if batch_size is None else batch_size
            penalty = sum(self._model.losses, tf.zeros(()))
            loss = tf.reduce_sum(losses) / tf.cast(count, tf.float32) + penalty / self._strategy.num_replicas_in_sync
            scaled = self._optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        self._optimizer.apply(gradients, variables)
        finite = tf.math.is_finite(loss)
        if not isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer):  # which skips such steps itself
            finite &= tf.math.is_finite(tf.linalg.global_norm(gradients))
        correct = tf.cast(tf.equal(tf.argmax(logits, -1, output_type=labels.dtype), labels), tf.float32)
        clips = tf.cast(tf.shape(labels)[0], tf.float32) * weight
        penalties = penalty * clips
        sums = tf.stack([tf.reduce_sum(losses) + penalties, weight * tf.reduce_sum(correct), clips])
        return tf.cast(sums, tf.float64), tf.cast(finite, tf.int32)
