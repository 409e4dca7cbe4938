"""Log power spectrograms over all frequency bins: the features of the R/Keras 30-word tutorial."""

from typing import Any

import keras
import tensorflow as tf

from kws_data.checks import check_number
from kws_data.features.base import frame_samples
from kws_data.features.spectrum import SpectrumLayer


@keras.saving.register_keras_serializable(package="kws")
class LogSpectrogram(SpectrumLayer):
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
        frames = frame_samples(window_ms, hop_ms, sample_rate)
        super().__init__(sample_rate, *frames, fft_size, power, normalise, **kwargs)
        self.window_ms = window_ms
        self.hop_ms = hop_ms
        self.log_offset = check_number("log_offset", log_offset, above=0)

    def extract(self, waveform: tf.Tensor) -> tf.Tensor:
        """Log spectrograms of ``[clips, samples]``."""
        return tf.math.log(self.spectrum(waveform) + self.log_offset)
