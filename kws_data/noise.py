"""Background noise: recordings cut in time into a part for each split, and random windows of them.

A recording's first 80 % is heard in training only, the next 10 % in validation, the last 10 % in testing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kws_data.audio import to_int16
from kws_data.draws import Draws
from kws_data.splits import SPLITS, TESTING, TRAINING, VALIDATION

_PART_ENDS = {TRAINING: (0.0, 0.8), VALIDATION: (0.8, 0.9), TESTING: (0.9, 1.0)}
GENERATED_SECONDS = 60
GENERATED_RMS = 0.01  # -40 dB of full scale: a quiet room


class NoiseBank:
    """The noise recordings of a data set.

    Args:
        recordings: each [samples] int16 at the run's sample rate, at least 10 samples long.
        generated: whether they were made up because the data set has none.
    """

    def __init__(self, recordings: Sequence[np.ndarray], *, generated: bool = False) -> None:
        self.generated = generated
        self._parts = {split: [_part(recording, split) for recording in recordings] for split in SPLITS}

    @classmethod
    def low_level(cls, sample_rate: int, data_seed: int) -> NoiseBank:
        """Quiet pink noise, for data sets without `_background_noise_`."""
        count = GENERATED_SECONDS * sample_rate
        generator = np.random.Generator(np.random.Philox(key=data_seed))
        spectrum = np.fft.rfft(generator.standard_normal(count))
        # 1/f power above 20 Hz; constant below, so that the level isn't spent where nothing can be heard
        spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(count, 1 / sample_rate), 20.0))
        noise = np.fft.irfft(spectrum, count)
        return cls([to_int16(noise * (GENERATED_RMS / noise.std()))], generated=True)

    def windows(self, split: str, draws: Draws, stage: str, num_samples: int) -> np.ndarray:
        """A random window of a random recording for each clip: [batch, num_samples] int16.

        A part shorter than the window is repeated.
        """
        parts = self._parts[split]
        chosen = draws.integers(f"{stage} recording", len(parts))
        room = np.array([max(1, len(part) - num_samples + 1) for part in parts])
        starts = draws.integers(f"{stage} start", room[chosen])
        windows = np.empty((len(chosen), num_samples), np.int16)
        for row, (index, start) in enumerate(zip(chosen, starts, strict=True)):
            part = parts[index]
            if len(part) >= num_samples:
                windows[row] = part[start : start + num_samples]
            else:
                windows[row] = np.resize(part, num_samples)
        return windows


def _part(recording: np.ndarray, split: str) -> np.ndarray:
    begin, end = _PART_ENDS[split]
    count = len(recording)
    first = min(int(count * begin), count - 1)
    return recording[first : max(first + 1, int(count * end))]
