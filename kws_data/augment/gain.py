"""Change the level of clips."""

from __future__ import annotations

import numpy as np

from kws_data.augment.stage import ClipBatch, Shapes, StageContext, Tensor, WaveformStage
from kws_data.checks import check_probability, check_range
from kws_data.draws import Draws


class Gain(WaveformStage):
    """Multiply by a gain uniform in `gain_db` = [low, high] dB, in a fraction `probability` of the clips.

    A loud clip may pass full scale; `augment.clipping` says what happens then.
    """

    def __init__(self, gain_db: tuple[float, float], probability: float = 1.0) -> None:
        self.low_db, self.high_db = check_range("gain_db", gain_db, -80, 80)
        self.probability = check_probability("probability", probability)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """`factor`: [batch] float32."""
        del batch, context
        chance, fraction = draws.uniform("gain", 2).T
        gain_db = self.low_db + fraction * (self.high_db - self.low_db)
        return {"factor": np.where(chance < self.probability, 10 ** (gain_db / 20), 1.0).astype(np.float32)}

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"factor": ("float32", ())}

    def apply(self, waveform: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, samples] float32 → the same."""
        return waveform * parameters["factor"][:, None]
