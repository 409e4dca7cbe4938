"""STFT magnitudes, framed in samples: the features of TensorFlow's simple_audio tutorial."""

from typing import Any

import keras
import tensorflow as tf

from kws_data.features.base import FeatureLayer, fft_size_for, require
from kws_data.features.spectrum import power_spectrum, tf_signal_hann


@keras.saving.register_keras_serializable(package="kws")
class Stft(FeatureLayer):
    """``tf.abs(tf.signal.stft(waveform))``, or its square: [batch, frames, fft_size // 2 + 1].

    The tutorial (tensorflow.org/tutorials/audio/simple_audio) uses frames of 255 samples with a step of 128.

    Args:
        sample_rate: Hz; only kept for the record.
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
        require(sample_rate > 0, "sample_rate", "positive", sample_rate)
        require(frame_length >= 1, "frame_length", "at least 1 sample", frame_length)
        require(frame_step >= 1, "frame_step", "at least 1 sample", frame_step)
        fft_size = fft_size_for(fft_size, frame_length)
        super().__init__(sample_rate, frame_length, frame_step, fft_size, normalise, **kwargs)
        self.power = bool(power)
        self._window = tf_signal_hann(frame_length)

    @property
    def num_bins(self) -> int:
        """Frequency bins from 0 Hz to half of the sample rate."""
        return self.fft_size // 2 + 1

    @property
    def frames_are_independent(self) -> bool:
        """True."""
        return True

    def extract(self, waveform: tf.Tensor) -> tf.Tensor:
        """Magnitudes or powers of ``[clips, samples]``."""
        power = power_spectrum(waveform, self._window, self.frame_step, self.fft_size)
        return power if self.power else tf.sqrt(power)
