"""Short-time spectra of waveforms: the part that all float features share.

The rFFT is taken of every frame in full, also where the features need only its lower half: computed a few clips at a
time (see ``FeatureLayer``) it measured as fast as a matrix product with the needed bins' sines and cosines folded about
the window's centre, and it is exact, small in a saved model, and a TFLite built-in.
"""

import numpy as np
import tensorflow as tf


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
