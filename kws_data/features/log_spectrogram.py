"""Log power spectrograms over all frequency bins: the features of the R/Keras 30-word tutorial."""

from typing import Any

import keras
import tensorflow as tf

from kws_data.features.base import FeatureLayer, fft_size_for, require, samples_of_ms
from kws_data.features.spectrum import periodic_hann, power_spectrum


@keras.saving.register_keras_serializable(package="kws")
class LogSpectrogram(FeatureLayer):
    """log(magnitude² + ``log_offset``): [batch, frames, fft_size // 2 + 1].

    Args:
        sample_rate: Hz.
        window_ms: periodic Hann window.
        hop_ms: from frame to frame.
        fft_size: None for the next power of two.
        power: False takes the logarithm of magnitudes instead of squared ones.
        log_offset: added before the logarithm.
        normalise: per bin, by the training split's mean and variance.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        window_ms: float = 30.0,
        hop_ms: float = 10.0,
        fft_size: int | None = None,
        power: bool = True,
        log_offset: float = 0.01,
        normalise: bool = False,
        **kwargs: Any,
    ) -> None:
        frame_length = samples_of_ms("window_ms", window_ms, sample_rate)
        frame_step = samples_of_ms("hop_ms", hop_ms, sample_rate)
        fft_size = fft_size_for(fft_size, frame_length)
        require(log_offset > 0, "log_offset", "positive", log_offset)
        super().__init__(sample_rate, frame_length, frame_step, fft_size, normalise, **kwargs)
        self.window_ms = window_ms
        self.hop_ms = hop_ms
        self.power = bool(power)
        self.log_offset = log_offset
        self._window = periodic_hann(frame_length)

    @property
    def num_bins(self) -> int:
        """Frequency bins from 0 Hz to half of the sample rate."""
        return self.fft_size // 2 + 1

    @property
    def frames_are_independent(self) -> bool:
        """True."""
        return True

    def extract(self, waveform: tf.Tensor) -> tf.Tensor:
        """Log spectrograms of ``[clips, samples]``."""
        spectrum = power_spectrum(waveform, self._window, self.frame_step, self.fft_size)
        return tf.math.log((spectrum if self.power else tf.sqrt(spectrum)) + self.log_offset)
