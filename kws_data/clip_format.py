"""How a file becomes a clip: what files may be, the clips' rate and length, and which part of a longer file is used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kws_data.checks import check_choice, check_number, check_whole

LONGEST_STREAM_S = 7 * 24 * 3600  # of a recording that is read in blocks and kept nowhere
LONGEST_CLIP_S = 10  # where clips keep their lengths: an hour's recording would pad its whole batch to an hour
CLIP_FROM = ("auto", "start", "loudest", "centre")
NOMINAL_MS = 1000  # where clips keep their lengths: the length of silence rows, and of windows of long recordings
_LONG = 1.5  # times the clip's length: 'auto' takes the loudest part of files that are longer
_NEARLY = 0.98
_FRAMES_PER_S = 100  # in which loudness is measured


@dataclass(frozen=True)
class AudioRules:
    """What audio files may be, and what is done with those that are not as they should be (`audio` in the config).

    Attributes:
        min_rate: Hz.
        max_rate: Hz.
        max_channels: they are mixed to one.
        max_seconds: of a clip or noise recording; recordings that are only listened to may be longer.
        levels: of a float file far beyond full scale (1.0): 'scale' divides it by the full scale of the integers that
            it seems to hold, else by its peak, 'set_aside' refuses it, 'clip' clips it.
        muted: clips in which all samples have one value: 'set_aside' or 'keep'.
    """

    min_rate: int = 1000
    max_rate: int = 768_000
    max_channels: int = 64
    max_seconds: float = 14_400
    levels: str = "scale"
    muted: str = "set_aside"

    def __post_init__(self) -> None:
        check_whole("min_rate", self.min_rate, 1, 192_000)
        check_whole("max_rate", self.max_rate, self.min_rate, 10_000_000)
        check_whole("max_channels", self.max_channels, 1, 1024)
        check_number("max_seconds", self.max_seconds, above=0, high=LONGEST_STREAM_S)
        check_choice("levels", self.levels, ("scale", "set_aside", "clip"))
        check_choice("muted", self.muted, ("set_aside", "keep"))


DEFAULT_RULES = AudioRules()


@dataclass(frozen=True)
class ClipFormat:
    """What all clips of a run have in common.

    Attributes:
        sample_rate: Hz; files at other rates are resampled.
        clip_samples: the length of all clips; None if they keep their own, up to ten seconds.
        clip_from: the part of a longer file: 'start', 'centre', 'loudest', or 'auto': the start, but the loudest part
            of files of more than 1.5 times the length.
        rules: what files may be.
    """

    sample_rate: int
    clip_samples: int | None
    clip_from: str = "auto"
    rules: AudioRules = DEFAULT_RULES

    def __post_init__(self) -> None:
        check_choice("clip_from", self.clip_from, CLIP_FROM)

    @property
    def longest(self) -> int:
        """Samples of the longest clip."""
        return self.clip_samples or LONGEST_CLIP_S * self.sample_rate

    @property
    def window(self) -> int:
        """Samples of a clip that is cut from a long recording."""
        return self.clip_samples or NOMINAL_MS * self.sample_rate // 1000

    def start_in(self, pcm: np.ndarray) -> int:
        """Where the clip begins in a file's samples."""
        spare = len(pcm) - self.longest
        if spare <= 0 or self.clip_from == "start":
            return 0
        if self.clip_from == "centre":
            return spare // 2
        if self.clip_from == "auto" and len(pcm) <= _LONG * self.longest:
            return 0
        return _loudest(pcm, self.longest, max(1, self.sample_rate // _FRAMES_PER_S))


def _loudest(pcm: np.ndarray, length: int, frame: int) -> int:
    """The start of the window of `length` samples with the most energy, in steps of `frame`.

    Of neighbouring windows with nearly as much energy the middle one, so that a short word is in the middle of it.
    """
    count = len(pcm) // frame
    frames = pcm[: count * frame].reshape(count, frame)
    # float64 holds the sums of squares of 16-bit samples exactly
    sums = np.concatenate([[0.0], np.cumsum(np.einsum("ij,ij->i", frames, frames, dtype=np.float64))])
    window = min(count, -(-length // frame))
    energy = sums[window:] - sums[:-window]
    best = int(energy.argmax())
    weaker = np.flatnonzero(energy < _NEARLY * energy[best])
    first = int(weaker[weaker < best].max(initial=-1)) + 1
    last = int(weaker[weaker > best].min(initial=len(energy))) - 1
    return min((first + last) // 2 * frame, len(pcm) - length)
