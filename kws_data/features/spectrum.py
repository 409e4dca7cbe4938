"""Short-time spectra of waveforms, and the base of the layers that are made of them.

Every frame gets a full rFFT, also where the features need only its lower half: computed a few clips at a time (see
``FeatureLayer``) it measured as fast as a matrix product with the sines and cosines of the needed bins, folded about
the centre of the window. And it is exact, small in a saved model, and built into TFLite.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kws_data.features.base import FeatureLayer, fft_size_for


def periodic_hann(length: int) -> np.ndarray:
    """Hann window with the period ``length``, float64: that of ``tf.raw_ops.AudioSpectrogram``."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def tf_signal_hann(length: int) -> np.ndarray:
    """``tf.signal.hann_window``, float64: periodic for an even ``length``, but symmetric for an odd one."""
    if length == 1:
        return np.ones(1)
    return periodic_hann(length) if length % 2 == 0 else np.append(periodic_hann(length - 1), 0.0)


def power_spectrum(
    waveform: tf.Tensor, window: np.ndarray, frame_step: int, fft_size: int, bins: slice = slice(None)
) -> tf.Tensor:
    """Squared magnitudes of the windowed frames' rFFT.

    Args:
        waveform: [clips, samples] float32, samples >= len(window).
        window: [frame_length] float64, frame_length <= fft_size.
        frame_step: hop in samples.
        fft_size: length of the transform; frames are zero-padded to it at the end.
        bins: the frequency bins wanted, of fft_size // 2 + 1.

    Returns:
        [clips, frames, bins] float32.
    """
    # Frames are cut at the FFT's length, where the window has become zero: padding the frames would copy them.
    padding = fft_size - len(window)
    frames = tf.signal.frame(tf.pad(waveform, [[0, 0], [0, padding]]), fft_size, frame_step)
    spectrum = tf.signal.rfft(frames * np.pad(window, (0, padding)).astype(np.float32))
    # tf.abs of a complex tensor calls hypot for every value: several times slower. Slicing the complex tensor instead
    # of its parts would be 7 % faster for half of the bins, but does not convert to TFLite.
    return tf.square(tf.math.real(spectrum)[..., bins]) + tf.square(tf.math.imag(spectrum)[..., bins])


class SpectrumLayer(FeatureLayer):
    """A layer whose features are computed from the spectra of single frames.

    Args:
        sample_rate: Hz.
        frame_length: samples of the window.
        frame_step: hop in samples.
        fft_size: None for the next power of two.
        power: True for squared magnitudes, False for magnitudes.
        normalise: per bin, by the training split's mean and variance.
        hann: the definition of the window.
    """

    def __init__(
        self,
        sample_rate: int,
        frame_length: int,
        frame_step: int,
        fft_size: int | None,
        power: bool,
        normalise: bool,
        *,
        hann: Callable[[int], np.ndarray] = periodic_hann,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            sample_rate, frame_length, frame_step, fft_size_for(fft_size, frame_length), normalise, **kwargs
        )
        self.power = bool(power)
        self._window = hann(frame_length)

    @property
    def spectrum_bins(self) -> int:
        """Frequency bins from 0 Hz to half of the sample rate."""
        return self.fft_size // 2 + 1

    @property
    def num_bins(self) -> int:
        """All of `spectrum_bins`, unless a subclass combines them."""
        return self.spectrum_bins

    @property
    def frames_are_independent(self) -> bool:
        """True."""
        return True

    def spectrum(self, waveform: tf.Tensor, bins: slice = slice(None)) -> tf.Tensor:
        """[clips, frames, bins] of ``[clips, samples]``: magnitudes, squared if `power`."""
        power = power_spectrum(waveform, self._window, self.frame_step, self.fft_size, bins)
        return power if self.power else tf.sqrt(power)
