"""Keras's optimizers with the update of each weight as one of TensorFlow's fused operations.

Keras 3 writes an update out as some twenty small operations, which for every weight of a small network take more time
than the arithmetic in them. Arguments, state, formulas and so checkpoints are Keras's; results may differ from its in
their last bits.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam`; with `amsgrad`, and for sparse gradients, its own update."""

    _powers_known = False

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the weights."""
        self._powers_known = False
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one weight ([…], a `tf.Variable`) and its moments."""
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        if not self._powers_known:  # once a step, not once a weight
            step = tf.cast(self.iterations + 1, tf.float32)
            self._powers_known, self._beta_1_power, self._beta_2_power = True, self.beta_1**step, self.beta_2**step
        index, dtype = self._get_variable_index(variable), variable.dtype
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.cast(self._beta_1_power, dtype),
            beta2_power=tf.cast(self._beta_2_power, dtype),
            lr=tf.cast(learning_rate, dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, dtype),
        )


class AdamW(Adam, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, as `Adam`."""


class SGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD`; for sparse gradients, its own update."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one weight ([…], a `tf.Variable`) and its velocity."""
        if isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        rate, gradient = tf.cast(learning_rate, variable.dtype), tf.cast(gradient, variable.dtype)
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)
            return
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )
