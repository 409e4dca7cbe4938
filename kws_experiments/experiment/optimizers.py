"""Optimizers: Keras's Adam and AdamW, bit for bit, with all weights updated together; what weight decay excludes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` that updates all weights together, as one vector.

    Keras repeats the update for each weight: some twenty small operations, which take more time than the arithmetic in
    them, since the weights of a small network have only a few thousand values. Joined end to end, all weights need
    these operations once. Arguments, state (so checkpoints) and formulas are those of Keras, and so is every bit of the
    results, since each value is computed by itself. Keras handles all other steps: `amsgrad`, sparse gradients, weights
    of several types.
    """

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        """Update the weights and their moments; gradients have the weights' shapes and are already clipped."""
        weights = [variable.value for variable in trainable_variables]
        if not self._can_join(grads, weights):
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        indices = [self._get_variable_index(weight) for weight in weights]
        momentums = [self._momentums[index].value for index in indices]
        velocities = [self._velocities[index].value for index in indices]
        dtype = weights[0].dtype
        step = tf.cast(self.iterations + 1, dtype)
        powers = [tf.pow(tf.cast(beta, dtype), step) for beta in (self.beta_1, self.beta_2)]
        alpha = tf.cast(learning_rate, dtype) * tf.sqrt(1 - powers[1]) / (1 - powers[0])

        gradient, momentum, velocity = (_joined(values) for values in (grads, momentums, velocities))
        momentum += (gradient - momentum) * (1 - self.beta_1)
        velocity += (tf.square(gradient) - velocity) * (1 - self.beta_2)
        change = momentum * alpha / (tf.sqrt(velocity) + self.epsilon)
        for variables, values in ((momentums, momentum), (velocities, velocity)):
            for variable, value in zip(variables, _parted(values, weights), strict=True):
                variable.assign(value)
        for weight, value in zip(weights, _parted(change, weights), strict=True):
            weight.assign_sub(value)

    def _can_join(self, gradients: Sequence[Any], weights: Sequence[tf.Variable]) -> bool:
        return (
            not self.amsgrad
            and len({value.dtype for value in [*gradients, *weights]}) == 1
            and not any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
        )


class AdamW(Adam, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, as `Adam`."""


def _joined(values: Sequence[Any]) -> tf.Tensor:
    """All values of tensors of any shapes, one after another: [values]."""
    return tf.concat([tf.reshape(value, [-1]) for value in values], 0)


def _parted(values: tf.Tensor, like: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """The reverse of `_joined`: tensors of the variables' shapes."""
    parts = tf.split(values, [variable.shape.num_elements() for variable in like])
    return [tf.reshape(part, variable.shape) for part, variable in zip(parts, like, strict=True)]


def norms_and_biases(network: keras.Model) -> list[keras.Variable]:
    """The weights that weight decay leaves alone: of one axis or none, and biases with two axes (of a GRU)."""
    return [
        variable
        for variable in network.trainable_variables
        if len(variable.shape) <= 1 or variable.name in ("bias", "gamma", "beta")
    ]
