"""Invert the sign of clips."""

from __future__ import annotations

import numpy as np

from kws_data.augment.stage import ClipBatch, Shapes, StageContext, Tensor, WaveformStage
from kws_data.checks import check_probability
from kws_data.draws import Draws


class Polarity(WaveformStage):
    """Change the sign of a fraction `probability` of the clips.

    This makes no difference to power spectra, but does to raw waveforms and to clips with added noise.
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = check_probability("probability", probability)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """`sign`: [batch] float32, 1 or -1."""
        del batch, context
        return {"sign": np.where(draws.uniform("polarity")[:, 0] < self.probability, -1, 1).astype(np.float32)}

    def parameter_shapes(self) -> Shapes:
        """See `prepare`."""
        return {"sign": ("float32", ())}

    def apply(self, waveform: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """[batch, samples] float32 → the same."""
        return waveform * parameters["sign"][:, None]
