"""Read long audio files in blocks, mixed to mono and resampled, in the memory of a few seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from kws_data.audio import UnreadableAudioError, decoding_reason, open_sound, read_header

BLOCK_S = 5


def read_blocks(path: Path, sample_rate: int) -> Iterator[np.ndarray]:
    """Yield the file's samples in order: [samples] float32 in [-1, 1] at `sample_rate` Hz, a few seconds each.

    In MP3 files, some samples at the start of a block can differ a little from those of the whole file, as soundfile
    seeks between reads and the decoder starts again.

    Raises:
        UnreadableAudioError: no audio, cut short, or not finite; raised when the defect is reached.
    """
    read_header(path)  # raises for WAV and Ogg files that were cut short
    try:
        with open_sound(path) as sound:
            rate, expected, decoded = sound.samplerate, sound.frames, 0
            resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
            while decoded < expected:
                wanted = min(BLOCK_S * rate, expected - decoded)
                block = sound.read(wanted, dtype="float32", always_2d=True)
                decoded += len(block)
                if len(block) < wanted:
                    raise UnreadableAudioError(f"cut short: {decoded} of {expected} samples could be decoded")
                if not np.isfinite(block).all():
                    raise UnreadableAudioError("holds samples that are not finite (NaN or infinity)")
                mono = block.mean(axis=1)
                yield mono if rate == sample_rate else resampler.resample_chunk(mono, last=decoded == expected)
    except soundfile.LibsndfileError as error:
        raise UnreadableAudioError(decoding_reason(error)) from error
    except OSError as error:
        raise UnreadableAudioError(f"cannot be read: {error.strerror or error}") from error


def read_start(path: Path, sample_rate: int, num_samples: int) -> tuple[np.ndarray, bool]:
    """The first `num_samples` of a file (fewer where it is shorter), and whether there are more.

    Raises:
        UnreadableAudioError: as `read_blocks`, and of a file without a sample at this rate.
    """
    parts, count = [], 0
    for block in read_blocks(path, sample_rate):
        parts.append(block)
        count += len(block)
        if count > num_samples:
            break
    if not count:
        raise UnreadableAudioError(f"holds no samples at {sample_rate} Hz")
    return np.concatenate(parts)[:num_samples], count > num_samples
