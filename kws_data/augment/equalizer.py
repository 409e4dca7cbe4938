"""Change the balance of low and high tones, as another microphone would."""

from __future__ import annotations

import numpy as np

from kws_data.augment.stage import ClipBatch, Shapes, StageContext, Tensor, WaveformStage
from kws_data.checks import check_probability, check_range, check_whole
from kws_data.draws import Draws

_MEL_CORNER = 700 / 8000  # of the mel scale at 16 kHz, as a part of the highest frequency
_TAPS = 1024  # of a filter: at 16 kHz, 16 Hz from one tone to the next


class Equalizer(WaveformStage):
    """Filter clips by a drawn curve: gains at `points` frequencies, straight lines in dB between them.

    The frequencies are spaced evenly on the mel scale, the first is 0 and the last half the sample rate. FilterAugment
    (arXiv:2110.03282) does this to features, in one of its two forms. The filter has no delay. A fraction `probability`
    of the clips is filtered, but no silence rows.

    Args:
        gain_db: [lowest, highest].
        points: at least 2.
        probability: of the clips.
    """

    def __init__(self, gain_db: tuple[float, float] = (-9, 9), points: int = 5, probability: float = 0.8) -> None:
        self.gain_db = check_range("gain_db", gain_db, -60, 60)
        self.points = check_whole("points", points, 2)
        self.probability = check_probability("probability", probability)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """`gains_db`: [batch, points] float32, 0 for clips that stay; `length`: [batch] int32, samples."""
        chosen = (draws.uniform("equalizer")[:, 0] < self.probability) & ~batch.silence
        low, high = self.gain_db
        gains = low + draws.uniform("gains", self.points) * (high - low)
        return {
            "gains_db": np.where(chosen[:, None], gains, 0.0).astype(np.float32),
            "length": context.room(batch).astype(np.int32),
        }

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"gains_db": ("float32", (self.points,)), "length": ("int32", ())}

    def apply(self, waveform: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, samples] float32 → the same shape."""
        import tensorflow as tf

        tone = np.linspace(0, 1, _TAPS // 2 + 1)
        place = np.log1p(tone / _MEL_CORNER) / np.log1p(1 / _MEL_CORNER) * (self.points - 1)
        shares = np.maximum(1 - np.abs(place - np.arange(self.points)[:, None]), 0).astype(np.float32)
        curve = 10 ** (parameters["gains_db"] @ tf.constant(shares) / 20)
        taps = tf.roll(tf.signal.irfft(tf.cast(curve, tf.complex64)), _TAPS // 2, 1) * tf.signal.hann_window(_TAPS)
        count = tf.shape(waveform)[1]
        size = 2 * ((count + _TAPS + 1) // 2)
        spectra = [
            tf.signal.rfft(tf.pad(values, [[0, 0], [0, size - tf.shape(values)[1]]]), [size])
            for values in (waveform, taps)
        ]
        filtered = tf.signal.irfft(spectra[0] * spectra[1], [size])[:, _TAPS // 2 : _TAPS // 2 + count]
        filtered *= tf.sequence_mask(parameters["length"], count, tf.float32)
        return tf.where(tf.reduce_any(parameters["gains_db"] != 0, 1, keepdims=True), filtered, waveform)
