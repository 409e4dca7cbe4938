"""Shift each clip in time."""

from __future__ import annotations

import numpy as np

from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.draws import Draws


class TimeShift(WaveformStage):
    """Shift by a time uniform in ±`time_shift_ms`, zero-filled, as the original example does.

    A large shift pushes part of the word out of the clip; 100 ms suits one-second clips of single words. Rows of the
    silence class stay: their noise has no place in time, and a zero-filled edge would give them away.
    """

    def __init__(self, time_shift_ms: float) -> None:
        if not 0 <= time_shift_ms < float("inf"):
            raise ValueError(f"time_shift_ms must be at least 0, got {time_shift_ms}")
        self.time_shift_ms = time_shift_ms

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """Move the samples, within the padding where all clips have one length, else within the clip's own."""
        limit = int(self.time_shift_ms * context.sample_rate / 1000)
        shifts = np.where(batch.silence, 0, draws.integers("time shift", 2 * limit + 1) - limit)
        for row, length, shift in zip(batch.pcm, context.room(batch), shifts, strict=True):
            shift = int(np.clip(shift, -length, length))
            if shift > 0:
                row[shift:length] = row[: length - shift].copy()
                row[:shift] = 0
            elif shift < 0:
                row[: length + shift] = row[-shift:length].copy()
                row[length + shift : length] = 0
        return {}
