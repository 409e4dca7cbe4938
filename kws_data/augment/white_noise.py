"""Add low-level white noise."""

from __future__ import annotations

import functools

import numpy as np

from kws_data.augment.stage import SAMPLES, ClipBatch, Shapes, StageContext, Tensor, WaveformStage
from kws_data.checks import check_probability, check_range
from kws_data.draws import Draws

_SECONDS = 20  # of noise to cut windows from: as good as fresh noise, and 100 times as fast
_PEAK = 8.0  # Gaussian samples beyond ±8 standard deviations don't occur in 20 seconds


class WhiteNoise(WaveformStage):
    """Add Gaussian noise at a level uniform in `level_db` = [low, high] dB of full scale (RMS).

    It is added to a fraction `probability` of the clips; rows of the silence class are noise already and stay.
    """

    def __init__(self, level_db: tuple[float, float], probability: float = 1.0) -> None:
        self.low_db, self.high_db = check_range("level_db", level_db, -120, 0)
        self.probability = check_probability("probability", probability)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """`noise`: [batch, samples] int16; `scale`: [batch] float32, from int16 to the level."""
        room = context.room(batch)
        noise = _long_noise(_SECONDS * context.sample_rate)
        starts = draws.integers("white noise start", np.maximum(len(noise) - room, 0) + 1)
        chance, fraction = draws.uniform("white noise", 2).T
        level = 10 ** ((self.low_db + fraction * (self.high_db - self.low_db)) / 20)
        scale = np.where((chance < self.probability) & ~batch.silence, level * _PEAK / 32767, 0.0)
        windows = np.zeros_like(batch.pcm)
        for window, start, length in zip(windows, starts, room, strict=True):
            part = noise[start : start + length]
            window[:length] = part if len(part) == length else np.resize(part, length)
        return {"noise": windows, "scale": scale.astype(np.float32)}

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"noise": ("int16", (SAMPLES,)), "scale": ("float32", ())}

    def apply(self, waveform: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, samples] float32 → the same."""
        import tensorflow as tf

        return waveform + tf.cast(parameters["noise"], tf.float32) * parameters["scale"][:, None]


@functools.cache
def _long_noise(count: int) -> np.ndarray:
    samples = np.random.Generator(np.random.Philox(key=0)).standard_normal(count)
    return np.rint(samples.clip(-_PEAK, _PEAK) * (32767 / _PEAK)).astype(np.int16)
