"""Log-mel features: the input of BC-ResNet and of most later keyword spotters."""

from typing import Any

import keras
import tensorflow as tf

from kws_data.checks import check_number
from kws_data.features.mel import MelLayer


@keras.saving.register_keras_serializable(package="kws")
class LogMel(MelLayer):
    """log(mel bands of the power spectrum + ``log_offset``): [batch, frames, num_mel_bins].

    Args:
        sample_rate: Hz.
        window_ms: periodic Hann window.
        hop_ms: from frame to frame.
        fft_size: None for the next power of two.
        num_mel_bins: bands, with the triangles of ``tf.signal.linear_to_mel_weight_matrix``.
        lower_hz: the lowest band's lower edge.
        upper_hz: the highest band's upper edge.
        power: False sums magnitudes instead of squared ones.
        log_offset: added before the logarithm.
        normalise: per bin, by the training split's mean and variance.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        window_ms: float = 30.0,
        hop_ms: float = 10.0,
        fft_size: int | None = None,
        num_mel_bins: int = 40,
        lower_hz: float = 20.0,
        upper_hz: float = 7600.0,
        power: bool = True,
        log_offset: float = 1e-6,
        normalise: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            sample_rate, window_ms, hop_ms, fft_size, num_mel_bins, lower_hz, upper_hz, power, normalise, **kwargs
        )
        self.log_offset = check_number("log_offset", log_offset, above=0)

    def extract(self, waveform: tf.Tensor) -> tf.Tensor:
        """Log-mel features of ``[clips, samples]``."""
        return tf.math.log(self.mel_bands(waveform) + self.log_offset)
