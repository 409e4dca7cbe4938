"""The TensorFlow module that a SavedModel holds: a file name or waveforms in."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from kws_experiments.export.trained import Trained


class KeywordSpotter(tf.Module):
    """A file name, or waveforms [batch, samples] float32 in [-1, 1] of any length → a dict.

    `predictions` [batch, labels] float32 (logits, like the tutorial's), `class_ids` [batch] int64 and `class_names`
    [batch] string. Clips are padded with zeros at their end, or cut, to the model's length; where the model keeps
    lengths, all of a batch's samples count.

    Args:
        trained: the model.
        read: (a file's bytes, the model's rate) → [samples] float32.
    """

    def __init__(self, trained: Trained, read: Callable[[tf.Tensor, int], tf.Tensor]) -> None:
        super().__init__()
        self._read = read
        self._features, self._network = trained.features, trained.network  # so that their variables are saved
        self._logits = trained.logits
        self._labels = tf.constant(trained.facts.labels)
        self._sample_rate, self._clip_samples = trained.facts.sample_rate, trained.facts.clip_samples
        self.__call__.get_concrete_function(tf.TensorSpec([], tf.string))
        self.serving = self.__call__.get_concrete_function(tf.TensorSpec([None, None], tf.float32, name="waveform"))

    @tf.function
    def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """See the class."""
        if x.dtype == tf.string:
            waveforms = self._read(tf.io.read_file(x), self._sample_rate)[tf.newaxis]
        else:
            waveforms = tf.debugging.check_numerics(x, "waveform")
        if self._clip_samples is not None:
            waveforms = waveforms[:, : self._clip_samples]
            waveforms = tf.pad(waveforms, [[0, 0], [0, self._clip_samples - tf.shape(waveforms)[1]]])
            waveforms = tf.ensure_shape(waveforms, [None, self._clip_samples])
        logits = self._logits(self._features(waveforms))
        class_ids = tf.argmax(logits, axis=-1)
        return {"predictions": logits, "class_ids": class_ids, "class_names": tf.gather(self._labels, class_ids)}


def read_wav(content: tf.Tensor, sample_rate: int) -> tf.Tensor:
    """[samples] float32 of a 16-bit WAV at the model's rate; channels are averaged."""
    audio, rate = tf.audio.decode_wav(content)
    tf.debugging.assert_equal(rate, sample_rate, f"the file must have {sample_rate} samples a second")
    return tf.reduce_mean(audio, axis=-1)
