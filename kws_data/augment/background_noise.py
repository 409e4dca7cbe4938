"""Mix background noise into clips: by volume, or at a signal-to-noise ratio."""

from __future__ import annotations

import numpy as np

from kws_data.audio import INT16_SCALE
from kws_data.augment.stage import SAMPLES, ClipBatch, Shapes, StageContext, Tensor, WaveformStage
from kws_data.checks import check_probability, check_range
from kws_data.draws import Draws

_FRAME = 320  # samples; 20 ms at 16 kHz, about a syllable's detail
_ACTIVE = 1e-3  # of the loudest frame's power; a frame 30 dB below it counts as a pause


class BackgroundNoise(WaveformStage):
    """Add a random window of a random noise recording to a fraction `background_frequency` of the clips.

    With `background_volume`, as in the original example, the recording is scaled by a volume uniform in
    [0, `background_volume`). With `snr_db` = [low, high], the noise is added at a signal-to-noise ratio uniform in that
    range; the signal is measured where the clip is active (frames within 30 dB of its loudest). Rows of the silence
    class are noise already and stay as they are. So do silent clips when an SNR is asked for: they have none.
    """

    def __init__(
        self,
        background_volume: float | None,
        background_frequency: float,
        snr_db: tuple[float, float] | None = None,
    ) -> None:
        self.background_frequency = check_probability("background_frequency", background_frequency)
        if (background_volume is None) == (snr_db is None):
            raise ValueError(
                "background_volume and snr_db must not both be given or both be null,"
                f" got {background_volume} and {snr_db}"
            )
        self.background_volume = (
            None if background_volume is None else check_probability("background_volume", background_volume)
        )
        self.snr_db = None if snr_db is None else check_range("snr_db", snr_db, -60, 100)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """Draw the noise, its amount and its length.

        Returns:
            `noise`: [batch, samples] int16; `amount`: [batch] float32, volume or ratio of amplitudes, 0 for no noise;
            `length`: [batch] float32, samples.
        """
        chance, fraction = draws.uniform("background noise", 2).T
        if self.snr_db is None:
            amount = fraction * (self.background_volume or 0.0)
        else:
            low, high = self.snr_db
            amount = 10 ** (-(low + fraction * (high - low)) / 20)
        noisy = (chance < self.background_frequency) & ~batch.silence
        if context.noise.generated:
            noisy[:] = False
        room = context.room(batch)
        return {
            "noise": context.noise.windows(context.split, draws, "background noise", room),
            "amount": np.where(noisy, amount, 0.0).astype(np.float32),
            "length": room.astype(np.float32),
        }

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"noise": ("int16", (SAMPLES,)), "amount": ("float32", ()), "length": ("float32", ())}

    def apply(self, waveform: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, samples] float32 → the same."""
        import tensorflow as tf

        noise = tf.cast(parameters["noise"], tf.float32)
        if self.snr_db is None:
            return waveform + noise * (parameters["amount"] * (1.0 / INT16_SCALE))[:, None]
        power = tf.reduce_sum(tf.square(noise), axis=1) / parameters["length"]
        scale = tf.where(power > 0, tf.sqrt(active_power(waveform) / tf.maximum(power, 1e-20)), 0.0)
        return waveform + noise * (parameters["amount"] * scale)[:, None]


def active_power(waveform: Tensor) -> Tensor:
    """Mean power of the frames within 30 dB of each clip's loudest: [batch, samples] → [batch]; 0 for silence."""
    import tensorflow as tf

    padded = tf.pad(waveform, [[0, 0], [0, -tf.shape(waveform)[1] % _FRAME]])
    frames = tf.reshape(padded, [tf.shape(waveform)[0], -1, _FRAME])
    power = tf.reduce_mean(tf.square(frames), axis=2)
    active = tf.cast((power >= _ACTIVE * tf.reduce_max(power, axis=1, keepdims=True)) & (power > 0), tf.float32)
    return tf.reduce_sum(power * active, axis=1) / tf.maximum(tf.reduce_sum(active, axis=1), 1.0)
