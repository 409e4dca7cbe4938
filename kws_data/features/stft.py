"""STFT magnitudes, framed in samples: the features of TensorFlow's simple_audio tutorial."""

from typing import Any

import keras
import tensorflow as tf

from kws_data.checks import check_whole
from kws_data.features.spectrum import SpectrumLayer, tf_signal_hann


@keras.saving.register_keras_serializable(package="kws")
class Stft(SpectrumLayer):
    """``tf.abs(tf.signal.stft(waveform))``, or its square: [batch, frames, fft_size // 2 + 1].

    The tutorial (tensorflow.org/tutorials/audio/simple_audio) uses frames of 255 samples with a step of 128.

    Args:
        sample_rate: Hz; the features don't depend on it.
        frame_length: samples of the window (tf.signal's Hann).
        frame_step: hop in samples.
        fft_size: None for the next power of two.
        power: squared magnitudes instead of magnitudes.
        normalise: per bin, by the training split's mean and variance.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        frame_length: int = 255,
        frame_step: int = 128,
        fft_size: int | None = None,
        power: bool = False,
        normalise: bool = False,
        **kwargs: Any,
    ) -> None:
        check_whole("sample_rate", sample_rate, 1)
        check_whole("frame_length", frame_length, 1)
        check_whole("frame_step", frame_step, 1)
        super().__init__(
            sample_rate, frame_length, frame_step, fft_size, power, normalise, hann=tf_signal_hann, **kwargs
        )

    def extract(self, waveform: tf.Tensor) -> tf.Tensor:
        """Magnitudes or powers of ``[clips, samples]``."""
        return self.spectrum(waveform)
