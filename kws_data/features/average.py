"""Power spectra averaged along frequency: the 'average' features of TensorFlow's speech_commands example."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kws_data.checks import check_whole
from kws_data.features.base import frame_samples
from kws_data.features.spectrum import SpectrumLayer


@keras.saving.register_keras_serializable(package="kws")
class AveragePooledSpectrogram(SpectrumLayer):
    """The spectrogram, average-pooled along frequency with 'SAME' padding: [batch, frames, ceil(bins / pool_bins)].

    The original derives the pool width from the number of features (6 for 40 features of 257 bins).

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
        frames = frame_samples(window_ms, hop_ms, sample_rate)
        super().__init__(sample_rate, *frames, fft_size, power, normalise, **kwargs)
        self.window_ms = window_ms
        self.hop_ms = hop_ms
        self.pool_bins = check_whole("pool_bins", pool_bins, 1, self.spectrum_bins)
        self._pooling = pooling_matrix(self.spectrum_bins, pool_bins).astype(np.float32)

    @property
    def num_bins(self) -> int:
        """Pooled frequency bins."""
        return self._pooling.shape[1]

    def extract(self, waveform: tf.Tensor) -> tf.Tensor:
        """Pooled spectra of ``[clips, samples]``."""
        return tf.matmul(self.spectrum(waveform), self._pooling)


def pooling_matrix(num_bins: int, width: int) -> np.ndarray:
    """[num_bins, ceil(num_bins / width)] weights that average as ``tf.nn.avg_pool`` does with 'SAME' padding.

    The padding (the smaller half before the first bin) doesn't count in the averages.
    """
    num_pools = -(-num_bins // width)
    before = (num_pools * width - num_bins) // 2
    members = (np.arange(num_bins)[:, None] + before) // width == np.arange(num_pools)
    return members / members.sum(axis=0)
