"""Outputs that a network has in training alone: one for each word, those of the unknown class too.

A label that stands for many words teaches little about any of them. Told apart, they teach what distinguishes a keyword
from each (an auxiliary task, as in Caruana 1997, Multitask Learning).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kws_data.errors import KwsError


class WordOutputs:
    """A dense layer beside the network's last one, for the targets of `kws_data.task.WordTargets`.

    Attributes:
        variables: its weights.
        targets: how many.

    Raises:
        KwsError: the network's last layer is not dense.
    """

    def __init__(self, network: keras.Model, labels: np.ndarray) -> None:
        """The arguments are the network, features → logits, and the label of each target: [targets] int32."""
        last = network.layers[-1]
        if not isinstance(last, keras.layers.Dense):
            raise KwsError(
                f"trainer.word_loss: needs a network whose last layer is dense, and this one's is {type(last).__name__}"
            )
        inputs = network.inputs if isinstance(network, keras.Sequential) else network.input  # which may be a dict
        self._both = keras.Model(inputs, [*network.outputs, last.input])
        self._labels, self.targets = tf.constant(labels), len(labels)
        # the seed is its own, so that the network's initial weights are those without it
        initializer = keras.initializers.GlorotUniform(seed=0)
        self._dense = keras.layers.Dense(self.targets, kernel_initializer=initializer, dtype="float32")
        self._dense.build(last.input.shape)
        self.variables = self._dense.trainable_variables

    def __call__(self, inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The network's logits [batch, labels] and those of the targets [batch, targets], in training."""
        logits, before = self._both(inputs, training=True)
        return logits, self._dense(before)

    def with_labels(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The batch with labels in place of targets."""
        changed = {name: tf.gather(self._labels, batch[name]) for name in ("labels", "second_labels")}
        return {**batch, **changed}
