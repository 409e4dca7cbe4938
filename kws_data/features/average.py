"""Power spectra averaged along frequency: the 'average' features of TensorFlow's speech_commands example."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kws_data.features.base import FeatureLayer, fft_size_for, require, samples_of_ms
from kws_data.features.spectrum import periodic_hann, power_spectrum


@keras.saving.register_keras_serializable(package="kws")
class AveragePooledSpectrogram(FeatureLayer):
    """The spectrogram, average-pooled along frequency with 'SAME' padding: [batch, frames, ceil(bins / pool_bins)].

    The original derives the width from the number of features asked for (40 of 257 bins: 6).

    Args:
        sample_rate: Hz.
        window_ms: periodic Hann window.
        hop_ms: from frame to frame.
        fft_size: None for the next power of two.
        pool_bins: frequency bins that are averaged into one feature.
        power: False averages magnitudes instead of squared ones.
        normalise: per bin, by the training split's mean and variance.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        window_ms: float = 30.0,
        hop_ms: float = 10.0,
        fft_size: int | None = None,
        pool_bins: int = 6,
        power: bool = True,
        normalise: bool = False,
        **kwargs: Any,
    ) -> None:
        frame_length = samples_of_ms("window_ms", window_ms, sample_rate)
        frame_step = samples_of_ms("hop_ms", hop_ms, sample_rate)
        fft_size = fft_size_for(fft_size, frame_length)
        spectrum_bins = fft_size // 2 + 1
        wanted = f"from 1 to the spectrum's {spectrum_bins} bins"
        require(1 <= pool_bins <= spectrum_bins, "pool_bins", wanted, pool_bins)
        super().__init__(sample_rate, frame_length, frame_step, fft_size, normalise, **kwargs)
        self.window_ms = window_ms
        self.hop_ms = hop_ms
        self.pool_bins = pool_bins
        self.power = bool(power)
        self._window = periodic_hann(frame_length)
        self._pooling = pooling_matrix(spectrum_bins, pool_bins).astype(np.float32)

    @property
    def num_bins(self) -> int:
        """Pooled frequency bins."""
        return self._pooling.shape[1]

    @property
    def frames_are_independent(self) -> bool:
        """True."""
        return True

    def extract(self, waveform: tf.Tensor) -> tf.Tensor:
        """Pooled spectra of ``[clips, samples]``."""
        spectrum = power_spectrum(waveform, self._window, self.frame_step, self.fft_size)
        return tf.matmul(spectrum if self.power else tf.sqrt(spectrum), self._pooling)


def pooling_matrix(num_bins: int, width: int) -> np.ndarray:
    """[num_bins, ceil(num_bins / width)] weights that average as ``tf.nn.avg_pool`` does with 'SAME' padding.

    The padding (the smaller half before the first bin) is not counted in the averages.
    """
    num_pools = -(-num_bins // width)
    before = (num_pools * width - num_bins) // 2
    members = (np.arange(num_bins)[:, None] + before) // width == np.arange(num_pools)
    return members / members.sum(axis=0)
