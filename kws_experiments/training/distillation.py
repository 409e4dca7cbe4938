"""Training that keeps the outputs of the network it starts from: distillation."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf


class Distillation:
    """A loss for being unlike the network that the training starts from: Learning without Forgetting, arXiv:1606.09282.

    Args:
        before: features → logits, with the weights that the training starts with; it stays as it is.
        known: [labels] bool, which outputs are those of the run that this one starts from. The others' are not used.
        share: of the loss of clips whose labels are known; the rest is that of their labels.
    """

    def __init__(self, before: keras.Model, known: np.ndarray, share: float) -> None:
        self._before, self._share = before, share
        self._known = tf.constant(known)

    def losses(self, of_labels: tf.Tensor, logits: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Each clip's loss, [batch] float32: its share is the cross-entropy with what the network said before.

        A clip of a label that is not known, or mixed with one, has the loss of its labels alone.

        Args:
            of_labels: [batch] float32, the losses of `clip_losses`.
            logits: [batch, labels] float32.
            batch: `inputs`, and the others of `clip_losses`.
        """
        before = tf.cast(self._before(batch["inputs"], training=False), tf.float32)
        before = tf.nn.softmax(tf.where(self._known, before, before.dtype.min))
        kept = -tf.reduce_sum(tf.stop_gradient(before) * tf.nn.log_softmax(logits), -1)
        known = tf.gather(self._known, batch["labels"])
        known &= tf.gather(self._known, batch["second_labels"]) | (batch["label_weights"] >= 1.0)
        share = self._share * tf.cast(known, tf.float32)
        return (1.0 - share) * of_labels + share * kept
