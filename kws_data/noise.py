"""Background noise: recordings cut in time into a part for each split, and random windows of them.

A recording's first 80 % is heard in training only, the next 10 % in validation, the last 10 % in testing; of many short
recordings each is heard in one split.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kws_data.audio import to_int16
from kws_data.draws import Draws
from kws_data.splits import SPLITS, TESTING, TRAINING, VALIDATION, hash_split

_PART_ENDS = {TRAINING: (0.0, 0.8), VALIDATION: (0.8, 0.9), TESTING: (0.9, 1.0)}
GENERATED_SECONDS = 60
GENERATED_RMS = 0.01  # -40 dB of full scale: a quiet room


class NoiseBank:
    """The noise recordings of a run.

    Args:
        recordings: each [samples] int16 at the run's sample rate, at least 10 samples long.
        chances: how often each is heard, relative to the others; None: all alike.
        whole_below: recordings of fewer samples are not cut but belong to one split, by the hash rule on their `names`;
            unless that leaves a split without noise.
        names: of the recordings, needed with `whole_below`.
        generated: whether they were made up because the data set has none.
    """

    def __init__(
        self,
        recordings: Sequence[np.ndarray],
        *,
        chances: Sequence[float] | None = None,
        whole_below: int = 0,
        names: Sequence[str] = (),
        generated: bool = False,
    ) -> None:
        self.generated = generated
        home = [
            hash_split(names[place], 10, 10) if len(recording) < whole_below else None
            for place, recording in enumerate(recordings)
        ]
        if any(all(split not in (None, wanted) for split in home) for wanted in SPLITS):
            home = [None] * len(recordings)
        chances = [1.0] * len(recordings) if chances is None else chances
        self._parts: dict[str, list[np.ndarray]] = {}
        self._ends: dict[str, np.ndarray] = {}
        for wanted in SPLITS:
            heard = [place for place, split in enumerate(home) if split in (None, wanted)]
            self._parts[wanted] = [
                recordings[place] if home[place] else _part(recordings[place], wanted) for place in heard
            ]
            ends = np.cumsum([chances[place] for place in heard])
            self._ends[wanted] = ends / ends[-1]

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
        chance = draws.uniform(f"{stage} recording")[:, 0]
        chosen = np.minimum(np.searchsorted(self._ends[split], chance, side="right"), len(parts) - 1)
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
