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
        generator = np.random.Generator(np.random.Philox(key=data_seed % 2**64))  # a key is not negative
        spectrum = np.fft.rfft(generator.standard_normal(count))
        # 1/f power above 20 Hz; constant below, so that the level isn't spent where nothing can be heard
        spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(count, 1 / sample_rate), 20.0))
        noise = np.fft.irfft(spectrum, count)
        return cls([to_int16(noise * (GENERATED_RMS / noise.std()))], generated=True)

    def windows(self, split: str, draws: Draws, stage: str, lengths: np.ndarray) -> np.ndarray:
        """A random window of a random recording for each clip, of the clip's length: [batch, longest] int16.

        A part shorter than the window is repeated. Zeros follow where another clip is longer, so that a clip's noise
        doesn't depend on what stands beside it.
        """
        parts = self._parts[split]
        chosen = draws.integers(f"{stage} recording", len(parts))
        sizes = np.array([len(part) for part in parts])[chosen]
        starts = draws.integers(f"{stage} start", np.maximum(sizes - lengths, 0) + 1)
        windows = np.zeros((len(chosen), int(lengths.max(initial=0))), np.int16)
        for window, index, start, length in zip(windows, chosen, starts, lengths, strict=True):
            part = parts[index]
            if len(part) >= length:
                window[:length] = part[start : start + length]
            else:
                window[:length] = np.resize(part, length)
        return windows


def _part(recording: np.ndarray, split: str) -> np.ndarray:
    begin, end = _PART_ENDS[split]
    count = len(recording)
    first = min(int(count * begin), count - 1)
    return recording[first : max(first + 1, int(count * end))]
