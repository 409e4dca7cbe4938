"""Background noise: recordings cut in time into a part for each split, and random windows of them.

The first 80 % of a recording are used in training only, the next 10 % in validation, the last 10 % in testing. Of many
short recordings, each is used in one split.
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
        chances: how often each is used, relative to the others; None: all equally.
        whole_below: recordings of fewer samples are not cut but belong to one split, by the hash rule on their `names`;
            unless that leaves a split without noise.
        names: of the recordings, needed with `whole_below`.
        splits: of recordings that lie in the folder of a split, '' for the others; None: all are ''.
        generated: whether the noise was generated because the data set has none.
    """

    def __init__(
        self,
        recordings: Sequence[np.ndarray],
        *,
        chances: Sequence[float] | None = None,
        whole_below: int = 0,
        names: Sequence[str] = (),
        splits: Sequence[str] | None = None,
        generated: bool = False,
    ) -> None:
        self.generated = generated
        # The split of each recording; None for those that are cut into a part for each split.
        fixed = splits or [""] * len(recordings)
        home = [
            fixed[index] or (hash_split(names[index], 10, 10) if len(recording) < whole_below else None)
            for index, recording in enumerate(recordings)
        ]
        if any(fixed) and _leaves_one_empty(home):  # testing/ keeps its noise for itself where training/ has some
            home = [None if split == TRAINING else split for split in home]
        if _leaves_one_empty(home):
            home = [None] * len(recordings)
        self._parts: dict[str, list[np.ndarray]] = {}
        self._ends: dict[str, np.ndarray] = {}
        for wanted in SPLITS:
            used = [index for index, split in enumerate(home) if split in (None, wanted)]
            self._parts[wanted] = [
                recordings[index] if home[index] else _part(recordings[index], wanted) for index in used
            ]
            ends = np.cumsum([1.0 if chances is None else chances[index] for index in used])
            self._ends[wanted] = ends / ends[-1]

    @classmethod
    def low_level(cls, sample_rate: int, data_seed: int) -> NoiseBank:
        """Quiet pink noise, for data sets without `_background_noise_`."""
        count = GENERATED_SECONDS * sample_rate
        generator = np.random.Generator(np.random.Philox(key=data_seed % 2**64))  # a key is not negative
        spectrum = np.fft.rfft(generator.standard_normal(count))
        # 1/f power above 20 Hz; constant below, so that little of the level is at inaudible frequencies
        spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(count, 1 / sample_rate), 20.0))
        noise = np.fft.irfft(spectrum, count)
        return cls([to_int16(noise * (GENERATED_RMS / noise.std()))], generated=True)

    def windows(self, split: str, draws: Draws, stage: str, lengths: np.ndarray) -> np.ndarray:
        """A random window of a random recording for each clip, of the clip's length: [batch, longest] int16.

        A part shorter than the window is repeated. Zeros follow where another clip is longer, so that a clip's noise
        doesn't depend on the rest of the batch.
        """
        parts = self._parts[split]
        chance = draws.uniform(f"{stage} recording")[:, 0]
        chosen = np.minimum(np.searchsorted(self._ends[split], chance, side="right"), len(parts) - 1)
        sizes = np.array([len(part) for part in parts])[chosen]
        starts = draws.integers(f"{stage} start", np.maximum(sizes - lengths, 0) + 1)
        windows = np.zeros((len(chosen), int(lengths.max(initial=0))), np.int16)
        for window, index, start, length in zip(windows, chosen, starts, lengths, strict=True):
            part = parts[index][start : start + length]
            window[:length] = part if len(part) == length else np.resize(part, length)
        return windows


def _leaves_one_empty(home: Sequence[str | None]) -> bool:
    return any(all(split not in (None, wanted) for split in home) for wanted in SPLITS)


def _part(recording: np.ndarray, split: str) -> np.ndarray:
    begin, end = _PART_ENDS[split]
    count = len(recording)
    first = min(int(count * begin), count - 1)
    return recording[first : max(first + 1, int(count * end))]
