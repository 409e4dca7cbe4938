"""The TensorFlow module that a SavedModel holds: a file name or waveforms in."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from kws_experiments.export.trained import Trained


class KeywordSpotter(tf.Module):
    """A file name, a vector of these, or waveforms [batch, samples] float32 in [-1, 1] of any length → a dict.

    `predictions` [batch, labels] float32 (logits, like the tutorial's), `class_ids` [batch] int64 and `class_names`
    [batch] string. Clips are padded with zeros at their end, or cut, to the model's length; where the model keeps
    lengths, all of a batch's samples count.

    Args:
        trained: the model.
        read: (a file's bytes, the model's rate) → [samples] float32.

    Attributes:
        serving: its signatures, the graphs by which clients other than Python's loader call it.
    """

    def __init__(self, trained: Trained, read: Callable[[tf.Tensor, int], tf.Tensor]) -> None:
        super().__init__()
        self._read, self._trained = read, trained
        # The variables themselves: of layers, Keras saves others under the graph's names, and only Python's loader
        # finds the right ones
        variables = [*trained.features.variables, *trained.network.variables]
        self._variables = [variable.value for variable in variables]
        self._labels = tf.constant(trained.facts.labels)
        self.serving = {
            "serving_default": self.__call__.get_concrete_function(
                tf.TensorSpec([None, None], tf.float32, name="waveform")
            ),
            "file_names": self.__call__.get_concrete_function(tf.TensorSpec(None, tf.string, name="file_names")),
        }

    @tf.function
    def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """See the class."""
        if x.dtype == tf.string:  # one by one: where the model keeps lengths, a batch has one length
            logits = tf.map_fn(self._of_file, tf.reshape(x, [-1]), fn_output_signature=tf.float32)
            logits = tf.ensure_shape(logits, [None, len(self._labels)])
        else:
            logits = self._of_waveforms(tf.debugging.check_numerics(x, "waveform"))
        class_ids = tf.argmax(logits, axis=-1)
        return {"predictions": logits, "class_ids": class_ids, "class_names": tf.gather(self._labels, class_ids)}

    def _of_file(self, name: tf.Tensor) -> tf.Tensor:
        return self._of_waveforms(self._read(tf.io.read_file(name), self._trained.facts.sample_rate)[tf.newaxis])[0]

    def _of_waveforms(self, waveforms: tf.Tensor) -> tf.Tensor:
        clip_samples = self._trained.facts.clip_samples
        if clip_samples is not None:
            waveforms = waveforms[:, :clip_samples]
            waveforms = tf.pad(waveforms, [[0, 0], [0, clip_samples - tf.shape(waveforms)[1]]])
            waveforms = tf.ensure_shape(waveforms, [None, clip_samples])
        return self._trained.logits(self._trained.features(waveforms))


def read_wav(content: tf.Tensor, sample_rate: int) -> tf.Tensor:
    """[samples] float32 of a 16-bit WAV at the model's rate; channels are averaged."""
    audio, rate = tf.audio.decode_wav(content)
    tf.debugging.assert_equal(rate, sample_rate, f"the file must have {sample_rate} samples a second")
    return tf.reduce_mean(audio, axis=-1)
