"""Shift each clip in time."""

from __future__ import annotations

import numpy as np

from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.checks import check_number
from kws_data.draws import Draws


class TimeShift(WaveformStage):
    """Shift by a time uniform in ±`time_shift_ms`, with zeros at the free end, as the original example does.

    A large shift pushes part of the word out of the clip; 100 ms suits one-second clips of single words. Rows of the
    silence class stay as they are: a zero-filled edge would give them away.
    """

    def __init__(self, time_shift_ms: float) -> None:
        self.time_shift_ms = check_number("time_shift_ms", time_shift_ms, 0)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """Move the samples: within the padded clip where all clips have one length, else within the clip itself."""
        limit = int(self.time_shift_ms * context.sample_rate / 1000)
        room = context.room(batch)
        shifts = np.where(batch.silence, 0, draws.integers("time shift", 2 * limit + 1) - limit)
        for row, length, shift in zip(batch.pcm, room, np.clip(shifts, -room, room), strict=True):
            if shift > 0:
                row[shift:length] = row[: length - shift].copy()
                row[:shift] = 0
            elif shift < 0:
                row[: length + shift] = row[-shift:length].copy()
                row[length + shift : length] = 0
        return {}
