"""Mel bands of waveforms, and the cosine transform that turns their logarithms into MFCC."""

import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from kws_data.checks import check_number, check_whole, require
from kws_data.features.base import frame_samples
from kws_data.features.spectrum import SpectrumLayer


class MelLayer(SpectrumLayer):
    """The base of layers made of mel bands: the parameters of the bands, and ``mel_bands``.

    Args:
        sample_rate: Hz.
        window_ms: Hann window.
        hop_ms: from frame to frame.
        fft_size: None for the next power of two.
        num_mel_bins: bands.
        lower_hz: the lowest band's lower edge.
        upper_hz: the highest band's upper edge.
        power: True sums squared magnitudes, False magnitudes.
        normalise: per bin, by the training split's mean and variance.
        as_mfcc_op: see ``mel_weights``.
        kwargs: further arguments of ``SpectrumLayer``.
    """

    def __init__(
        self,
        sample_rate: int,
        window_ms: float,
        hop_ms: float,
        fft_size: int | None,
        num_mel_bins: int,
        lower_hz: float,
        upper_hz: float,
        power: bool,
        normalise: bool,
        *,
        as_mfcc_op: bool = False,
        **kwargs: Any,
    ) -> None:
        frames = frame_samples(window_ms, hop_ms, sample_rate)
        check_bands(sample_rate, num_mel_bins, lower_hz, upper_hz)
        super().__init__(sample_rate, *frames, fft_size, power, normalise, **kwargs)
        self.window_ms = window_ms
        self.hop_ms = hop_ms
        self.num_mel_bins = num_mel_bins
        self.lower_hz = lower_hz
        self.upper_hz = upper_hz
        weights = mel_weights(self.fft_size, sample_rate, num_mel_bins, lower_hz, upper_hz, as_mfcc_op=as_mfcc_op)
        self._used_bins, self._mel = weights[0], weights[1].astype(np.float32)

    @property
    def num_bins(self) -> int:
        """Mel bands."""
        return self.num_mel_bins

    def mel_bands(self, waveform: tf.Tensor) -> tf.Tensor:
        """[clips, samples] to [clips, frames, num_mel_bins], before the logarithm."""
        return tf.matmul(self.spectrum(waveform, self._used_bins), self._mel)


def hz_to_mel(frequency_hz: np.ndarray) -> np.ndarray:
    """HTK's mel scale, in its natural-logarithm form: 1127 ln(1 + f / 700 Hz)."""
    return 1127.0 * np.log1p(np.asarray(frequency_hz, np.float64) / 700.0)


def check_bands(sample_rate: int, num_mel_bins: int, lower_hz: float, upper_hz: float) -> None:
    """Raise ValueError for an impossible filter bank."""
    check_whole("num_mel_bins", num_mel_bins, 1)
    check_number("lower_hz", lower_hz, 0)
    half = sample_rate / 2
    check_number("upper_hz", upper_hz)
    require(upper_hz <= half, "upper_hz", f"at most half of sample_rate ({half:g} Hz)", upper_hz)
    require(lower_hz < upper_hz, "lower_hz", f"below upper_hz ({upper_hz:g} Hz)", lower_hz)


def mel_weights(
    fft_size: int, sample_rate: int, num_mel_bins: int, lower_hz: float, upper_hz: float, *, as_mfcc_op: bool = False
) -> tuple[slice, np.ndarray]:
    """Triangular mel bands over the bins of an rFFT; peaks are 1, triangles are straight on the mel scale.

    The bands are those of ``tf.signal.linear_to_mel_weight_matrix``, without 0 Hz. ``tf.raw_ops.Mfcc``
    (``as_mfcc_op``) has the same triangles but starts later: a bin less than half a bin above ``lower_hz`` is left out.

    Returns:
        The bins that the bands use, and their weights: [len(bins), num_mel_bins] float64.
    """
    hz_per_bin = sample_rate / fft_size
    bin_hz = np.arange(fft_size // 2 + 1) * hz_per_bin
    bin_mel = hz_to_mel(bin_hz)[:, None]
    edges = np.linspace(hz_to_mel(np.array(lower_hz)), hz_to_mel(np.array(upper_hz)), num_mel_bins + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    weights = np.minimum((bin_mel - lower) / (centre - lower), (upper - bin_mel) / (upper - centre)).clip(min=0.0)
    weights[0] = 0.0
    if as_mfcc_op:
        weights[: int(1.5 + lower_hz / hz_per_bin)] = 0.0
        weights[int(upper_hz / hz_per_bin) + 1 :] = 0.0
    used = np.flatnonzero(weights.any(axis=1))
    require(len(used) > 0, "upper_hz", f"at least one FFT bin ({hz_per_bin:g} Hz) above lower_hz", upper_hz)
    empty = int((~weights.any(axis=0)).sum())
    if empty:
        warnings.warn(
            f"{empty} of num_mel_bins={num_mel_bins} bands hold no FFT bin and stay constant: "
            f"fft_size={2 * fft_size} or fewer bands would fill them",
            stacklevel=3,
        )
    bins = slice(int(used[0]), int(used[-1]) + 1)
    return bins, weights[bins]


def dct_weights(num_mel_bins: int, num_coefficients: int) -> np.ndarray:
    """[num_mel_bins, num_coefficients] of the DCT-II with the factor √(2/N) on every row, including the first.

    Both ``tf.raw_ops.Mfcc`` and ``tf.signal.mfccs_from_log_mel_spectrograms`` scale it so.
    """
    wanted = f"from 1 to num_mel_bins ({num_mel_bins})"
    require(1 <= num_coefficients <= num_mel_bins, "num_coefficients", wanted, num_coefficients)
    angles = np.pi / num_mel_bins * (np.arange(num_mel_bins) + 0.5)[:, None] * np.arange(num_coefficients)
    return np.sqrt(2 / num_mel_bins) * np.cos(angles)
