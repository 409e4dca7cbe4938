"""One step of training: loss, gradients, update, on one device or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kws_experiments.experiment.settings import TrainerSettings

FrontEndFunction = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]


def device_strategy(name: str) -> tf.distribute.Strategy:
    """`trainer.strategy` as TensorFlow's: the default one, or a mirrored one over all GPUs (without any, all CPUs)."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if name == "none" or len(devices) == 1:
        return tf.distribute.get_strategy()
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
        learning_rate: the last step's.
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
        self.learning_rate = float("nan")
        self.average = WeightAverage(model, settings.ema_momentum) if settings.ema_momentum is not None else None
        self.state = [self._totals, *(self.average.variables if self.average else [])]
        self._replicas = ReplicaState(model, strategy) if strategy.num_replicas_in_sync > 1 else None
        compiled = settings.jit_compile
        if compiled is None:
            compiled = bool(tf.config.list_logical_devices("GPU")) and self._replicas is None
        # The front end stays outside: its loop over clips has no static shapes, and some of its ops no XLA kernel.
        self._update = tf.function(self._forward_and_update, jit_compile=True) if compiled else self._forward_and_update
        # One graph for batches of any size: a graph traced for the first batch's own shape rounds differently in the
        # last bits, and a resumed run may start with an epoch's smaller last batch.
        self._graph = tf.function(self._step, input_signature=[spec])

    def __call__(self, batch: dict[str, tf.Tensor]) -> bool:
        """Train on a batch; False if its loss or gradients were not finite."""
        finite, learning_rate = self._graph(batch)
        self.learning_rate = float(learning_rate)
        return bool(finite)

    def take(self) -> dict[str, float]:
        """Loss and accuracy since the last call."""
        loss, correct, count = self._totals.numpy()
        self._totals.assign(tf.zeros_like(self._totals))
        return {"loss": float(loss / count), "accuracy": float(correct / count)}

    def _step(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        learning_rate = tf.cast(self._optimizer.learning_rate, tf.float32)  # before the update counts a step
        if self._replicas is None:
            sums, finite = self._on_one_device(batch, 1.0, tf.shape(batch["labels"])[0])
        else:
            shards = self._strategy.run(self._on_shard, (batch,))
            sums, finite = (self._strategy.reduce("SUM", value, axis=None) for value in shards)
        self._totals.assign_add(sums)
        if self.average:
            self.average.update(self._optimizer.iterations.value - 1)
        return finite >= self._strategy.num_replicas_in_sync, learning_rate

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
        assert self._replicas is not None
        with self._replicas.kept_alike(weight):
            return self._on_one_device(shard, weight, size)

    def _on_one_device(
        self, batch: Mapping[str, tf.Tensor], weight: tf.Tensor | float, batch_size: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Update the weights: (sum of losses, correct clips, clips), and 1 if loss and gradients are finite.

        Args:
            batch: this device's part.
            weight: of its clips, 1 or 0.
            batch_size: the clips of all devices' parts.
        """
        if self._front_end is not None:
            batch = self._front_end(batch)
        return self._update(batch, weight, batch_size)

    def _forward_and_update(
        self, batch: Mapping[str, tf.Tensor], weight: tf.Tensor | float, batch_size: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        labels, variables = batch["labels"], self._model.trainable_variables
        with tf.GradientTape() as tape:
            logits = tf.cast(self._model(batch["inputs"], training=True), tf.float32)
            losses = weight * clip_losses(logits, batch, self._label_smoothing, self._class_weights)
            penalty = tf.add_n([tf.cast(loss, tf.float32) for loss in [*self._model.losses, 0.0]])
            # optimizers add the devices' gradients up
            loss = tf.reduce_sum(losses) / tf.cast(batch_size, tf.float32)
            loss += penalty / self._strategy.num_replicas_in_sync
            scaled = self._optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        finite = tf.math.is_finite(loss)
        if isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer):
            self._optimizer.apply(gradients, variables)
            # It skips steps whose gradients are not finite, and halves the scale: 2^15 at first, so 16 such in a row.
            finite &= self._optimizer.dynamic_scale.value >= 1.0
        else:
            finite &= tf.math.is_finite(tf.linalg.global_norm(gradients))
            self._optimizer.apply(self._clipped_as_one(gradients), variables)
        correct = tf.cast(tf.equal(tf.argmax(logits, -1, output_type=labels.dtype), labels), tf.float32)
        clips = tf.cast(tf.shape(labels)[0], tf.float32) * weight
        sums = tf.stack([tf.reduce_sum(losses) + penalty * clips, weight * tf.reduce_sum(correct), clips])
        return tf.cast(sums, tf.float64), tf.cast(finite, tf.int32)

    def _clipped_as_one(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """With several devices: a part of the whole batch's clipped gradient; Keras clips each device's by itself."""
        clips = (self._optimizer.global_clipnorm, self._optimizer.clipnorm, self._optimizer.clipvalue)
        if self._replicas is None or not any(clips):
            return gradients
        context = tf.distribute.get_replica_context()
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        # the optimizer clips such a part too, which changes nothing, and adds them up again
        return [gradient / context.num_replicas_in_sync for gradient in self._optimizer._clip_gradients(total)]


class ReplicaState:
    """What a mirrored strategy leaves to each device: dropout's draws, and the statistics of batch norms.

    Keras mirrors the draws' seeds, so that the k-th clip of every device would get the same dropout, and updates each
    device's statistics from its own clips, of which only the first device's are saved and evaluated with.
    """

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        variables = model.non_trainable_variables
        self._seeds = [variable for variable in variables if variable.path.endswith("seed_generator_state")]
        self._statistics = [variable for variable in variables if tf.as_dtype(variable.dtype).is_floating]

    @contextmanager
    def kept_alike(self, weight: tf.Tensor) -> Iterator[None]:
        """In a replica's context: draws of its own, and afterwards the same state on all devices.

        Args:
            weight: of this device's statistics, 0 or 1; at least one device's is 1.
        """
        context = tf.distribute.get_replica_context()
        before = [tf.identity(variable.value) for variable in self._statistics]
        offset = tf.cast(context.replica_id_in_sync_group, tf.int64) * 1_000_003
        self._shift_seeds(offset)
        yield
        self._shift_seeds(-offset)
        if not self._statistics:
            return
        changes = [weight * (new.value - old) for new, old in zip(self._statistics, before, strict=True)]
        *changes, weights = context.all_reduce(tf.distribute.ReduceOp.SUM, [*changes, weight])
        for variable, old, change in zip(self._statistics, before, changes, strict=True):
            variable.assign(old + change / weights)

    def _shift_seeds(self, offset: tf.Tensor) -> None:
        for variable in self._seeds:
            seed, count = tf.unstack(variable.value)
            variable.assign(tf.stack([seed + tf.cast(offset, seed.dtype), count]))
