"""Mix background noise into clips, by volume and frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kws_data.audio import INT16_SCALE
from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.draws import Draws

if TYPE_CHECKING:
    import tensorflow as tf


class BackgroundNoise(WaveformStage):
    """Add a random window of a random noise recording at a volume uniform in [0, `background_volume`).

    As the original example: a fraction `background_frequency` of the clips gets noise, each its own window and volume.
    The volume scales the recording as it is; what signal-to-noise ratio comes of it depends on both levels. Rows of the
    silence class are noise already and get none.
    """

    def __init__(self, background_volume: float, background_frequency: float) -> None:
        if not 0 <= background_volume <= 1:
            raise ValueError(f"background_volume must be from 0 to 1, got {background_volume}")
        if not 0 <= background_frequency <= 1:
            raise ValueError(f"background_frequency must be from 0 to 1, got {background_frequency}")
        self.background_volume = background_volume
        self.background_frequency = background_frequency

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """`noise`: [batch, samples] int16; `volume`: [batch] float32, 0 where no noise is added."""
        chance, volume = draws.uniform("background noise", 2).T
        noisy = (chance < self.background_frequency) & ~batch.silence
        if context.noise.generated:
            noisy[:] = False
        return {
            "noise": context.noise.windows(context.split, draws, "background noise", context.room(batch)),
            "volume": np.where(noisy, volume * self.background_volume, 0.0).astype(np.float32),
        }

    def parameter_shapes(self) -> dict[str, tuple[str, int]]:
        """See `prepare`."""
        return {"noise": ("int16", 2), "volume": ("float32", 1)}

    def apply(self, waveform: tf.Tensor, parameters: dict[str, tf.Tensor]) -> tf.Tensor:
        """[batch, samples] float32 → the same, noise added and clipped to [-1, 1]."""
        import tensorflow as tf

        noise = tf.cast(parameters["noise"], tf.float32)
        scale = parameters["volume"][:, None] * (1.0 / INT16_SCALE)
        return tf.clip_by_value(waveform + noise * scale, -1.0, 1.0)
