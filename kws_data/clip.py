"""How a file becomes a clip: its rate, its length, and which part of a longer file is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kws_data.audio import DEFAULT_RULES, INT16_SCALE, AudioFile, AudioRules
from kws_data.checks import check_choice

LONGEST_CLIP_S = 10  # where clips keep their lengths: an hour's recording would pad its whole batch to an hour
CLIP_FROM = ("auto", "start", "loudest", "centre")
NOMINAL_MS = 1000  # where clips keep their lengths: the length of silence rows, and of windows of long recordings
_LONG = 1.5  # times the clip's length: 'auto' takes the loudest part of files that are longer
_FRAMES_PER_S = 100  # in which loudness is measured


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


class ReadClip(NamedTuple):
    """A clip of a file.

    Attributes:
        samples: [samples] float32 in [-1, 1].
        longer: whether the file is longer.
        full_scale: what its float samples were divided by, or None; see `AudioFile`.
    """

    samples: np.ndarray
    longer: bool
    full_scale: float | None


def read_clip(path: Path, form: ClipFormat) -> ReadClip:
    """The clip of a file, cut as in training.

    Raises:
        UnreadableAudioError: see `kws_data.audio.read_pcm`.
    """
    audio = AudioFile(path, form.sample_rate, form.rules)
    pcm = np.concatenate(list(audio.pcm_blocks()))
    start = form.start_in(pcm)
    clip = pcm[start : start + form.longest]
    return ReadClip(clip / np.float32(INT16_SCALE), len(pcm) > len(clip), audio.full_scale)


def _loudest(pcm: np.ndarray, length: int, frame: int) -> int:
    """The start of the window of `length` samples with the most energy, in steps of `frame`; the first of several."""
    count = len(pcm) // frame
    frames = pcm[: count * frame].reshape(count, frame)
    # float64 holds the sums of squares of 16-bit samples exactly
    sums = np.concatenate([[0.0], np.cumsum(np.einsum("ij,ij->i", frames, frames, dtype=np.float64))])
    window = min(count, -(-length // frame))
    energy = sums[window:] - sums[:-window]
    return min(int(energy.argmax()) * frame, len(pcm) - length)
