"""MFCC in two dialects: TensorFlow's ``audio_spectrogram`` + ``mfcc`` ops, and tf.signal's as MLPerf Tiny uses it."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kws_data.checks import check_number
from kws_data.features.mel import MelLayer, dct_weights
from kws_data.features.spectrum import tf_signal_hann

# The quietest clip that is scaled up to full scale, as MLPerf Tiny does: one step of 16-bit PCM.
_MIN_PEAK = 1 / 32768


@keras.saving.register_keras_serializable(package="kws")
class Mfcc(MelLayer):
    """``tf.raw_ops.AudioSpectrogram`` + ``tf.raw_ops.Mfcc``, batched: [batch, frames, num_coefficients].

    The features of the speech_commands example (30/10 ms, 40 coefficients) and of Hello Edge (40/20 ms, 10). The ops'
    mel bands lie over magnitudes, although the spectrogram passed between them holds squares.

    Args:
        sample_rate: Hz.
        window_ms: periodic Hann window.
        hop_ms: from frame to frame.
        fft_size: None for the next power of two.
        num_mel_bins: bands.
        num_coefficients: of the cosine transform, counted from the zeroth.
        lower_hz: the lowest band's lower edge.
        upper_hz: the highest band's upper edge.
        power: True sums squared magnitudes, which the ops do not.
        log_floor: smaller band values are raised to this before the logarithm.
        normalise: per coefficient, by the training split's mean and variance.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        window_ms: float = 30.0,
        hop_ms: float = 10.0,
        fft_size: int | None = None,
        num_mel_bins: int = 40,
        num_coefficients: int = 40,
        lower_hz: float = 20.0,
        upper_hz: float = 4000.0,
        power: bool = False,
        log_floor: float = 1e-12,
        normalise: bool = False,
        **kwargs: Any,
    ) -> None:
        mel = num_mel_bins, lower_hz, upper_hz
        super().__init__(sample_rate, window_ms, hop_ms, fft_size, *mel, power, normalise, as_mfcc_op=True, **kwargs)
        self.num_coefficients = num_coefficients
        self.log_floor = check_number("log_floor", log_floor, above=0)
        self._dct = dct_weights(num_mel_bins, num_coefficients).astype(np.float32)

    @property
    def num_bins(self) -> int:
        """Coefficients."""
        return self.num_coefficients

    def extract(self, waveform: tf.Tensor) -> tf.Tensor:
        """MFCC of ``[clips, samples]``."""
        return tf.matmul(tf.math.log(tf.maximum(self.mel_bands(waveform), self.log_floor)), self._dct)


@keras.saving.register_keras_serializable(package="kws")
class MlperfTinyMfcc(MelLayer):
    """MLPerf Tiny's keyword-spotting features, by tf.signal's definitions: [batch, frames, num_coefficients].

    Each clip is divided by its maximum (its largest value, not its largest magnitude), so that the features do not
    depend on its level; a clip whose maximum is almost 0, such as digital silence, is not scaled (there the reference
    divides 0 by 0). Source: mlcommons/tiny, benchmark/training/keyword_spotting/get_dataset.py.

    Args:
        sample_rate: Hz.
        window_ms: tf.signal's Hann window.
        hop_ms: from frame to frame.
        fft_size: None for the next power of two.
        num_mel_bins: bands, over magnitudes.
        num_coefficients: of the cosine transform, counted from the zeroth.
        lower_hz: the lowest band's lower edge.
        upper_hz: the highest band's upper edge.
        power: True sums squared magnitudes, which the reference does not.
        log_offset: added before the logarithm.
        divide_by_maximum: False leaves the clips at their level.
        normalise: per coefficient, by the training split's mean and variance.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        window_ms: float = 30.0,
        hop_ms: float = 20.0,
        fft_size: int | None = None,
        num_mel_bins: int = 40,
        num_coefficients: int = 10,
        lower_hz: float = 20.0,
        upper_hz: float = 4000.0,
        power: bool = False,
        log_offset: float = 1e-6,
        divide_by_maximum: bool = True,
        normalise: bool = False,
        **kwargs: Any,
    ) -> None:
        mel = num_mel_bins, lower_hz, upper_hz
        super().__init__(
            sample_rate, window_ms, hop_ms, fft_size, *mel, power, normalise, hann=tf_signal_hann, **kwargs
        )
        self.num_coefficients = num_coefficients
        self.log_offset = check_number("log_offset", log_offset, above=0)
        self.divide_by_maximum = bool(divide_by_maximum)
        self._dct = dct_weights(num_mel_bins, num_coefficients).astype(np.float32)

    @property
    def num_bins(self) -> int:
        """Coefficients."""
        return self.num_coefficients

    @property
    def frames_are_independent(self) -> bool:
        """True unless every frame is divided by the clip's maximum."""
        return not self.divide_by_maximum

    def extract(self, waveform: tf.Tensor) -> tf.Tensor:
        """MFCC of ``[clips, samples]``."""
        if self.divide_by_maximum:
            # In the reference a negative maximum changes the sign, which makes no difference to magnitudes.
            peak = tf.abs(tf.reduce_max(waveform, axis=1, keepdims=True))
            waveform = waveform / tf.maximum(peak, _MIN_PEAK)
        return tf.matmul(tf.math.log(self.mel_bands(waveform) + self.log_offset), self._dct)
