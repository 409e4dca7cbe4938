"""Read one audio file: its header for the catalog, its samples for the store."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

# Formats in which a file that was cut short is recognised (libsndfile reads cut AIFF and AU files without an error).
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"})
_STREAMED_BYTES = 0x7FFFF000  # sox; ffmpeg writes 0xFFFFFFFF
_OGG_SUFFIXES = frozenset({".ogg", ".oga", ".opus"})
# PCM, float, A-law, mu-law, extensible: frames have one size, so the bytes give the number of samples (not in ADPCM)
_WAV_FIXED_SIZE_ENCODINGS = frozenset({1, 3, 6, 7, 0xFFFE})
# FLAC packs silence as blocks of up to 65,535 samples in some 14 bytes. A header with more samples is wrong, or has no
# length at all (2^63 - 1), and reading would allocate memory for all of them.
_MOST_SAMPLES_PER_BYTE = 5000
_OGG_PAGE_BYTES = 65_307  # the largest possible
INT16_SCALE = 32768.0  # as tf.audio.decode_wav: -32768 is -1.0


class UnreadableAudioError(Exception):
    """The file cannot be used; the message is the reason for the catalog."""


class AudioHeader(NamedTuple):
    """Of a file: samples per channel, and their rate in Hz."""

    num_samples: int
    sample_rate: int


@contextmanager
def open_sound(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a file with libsndfile by its descriptor: given a path, it reads macOS's `._name` beside `name` as well.

    Raises:
        OSError: the file cannot be opened.
        soundfile.LibsndfileError: libsndfile refuses it.
    """
    with path.open("rb") as file:
        try:
            sound = soundfile.SoundFile(file.fileno(), closefd=False)
        except soundfile.LibsndfileError:
            sound = soundfile.SoundFile(path)  # by its suffix it knows an MP3 file that begins with other bytes
        with sound:
            yield sound


def read_header(path: Path) -> AudioHeader:
    """Length and rate of a file, without decoding it.

    Raises:
        UnreadableAudioError: not audio, no samples, or a WAV shorter than its header says.
    """
    suffix = path.suffix.lower()
    if suffix not in AUDIO_SUFFIXES:
        raise UnreadableAudioError(f"not an audio file of a known kind ({', '.join(sorted(AUDIO_SUFFIXES))})")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block until it is written to
            raise UnreadableAudioError("cannot be read: not a regular file")
        if status.st_size == 0:
            raise UnreadableAudioError("holds no samples: the file is empty")
        with path.open("rb") as file:
            if suffix in _OGG_SUFFIXES:
                _check_ogg_end(file, status.st_size)
            header = _read_wav_header(file, status.st_size) if suffix == ".wav" else None
        if header is None:
            with open_sound(path) as sound:
                header = AudioHeader(sound.frames, sound.samplerate)
    except soundfile.LibsndfileError as error:
        raise UnreadableAudioError(decoding_reason(error)) from error
    except OSError as error:
        raise UnreadableAudioError(f"cannot be read: {error.strerror or error}") from error
    if header.num_samples <= 0:
        raise UnreadableAudioError("holds no samples")
    if header.num_samples > _MOST_SAMPLES_PER_BYTE * status.st_size:
        raise UnreadableAudioError("cannot be decoded: its header has no plausible length")
    return header


def read_pcm(path: Path, sample_rate: int) -> np.ndarray:
    """Decode, mix to mono and resample one file.

    Returns:
        [samples] int16 at `sample_rate` Hz. 16-bit mono files at that rate come through unchanged.

    Raises:
        UnreadableAudioError: broken, cut short, or not finite (float files).
    """
    try:
        with open_sound(path) as sound:
            if sound.subtype == "PCM_16" and sound.channels == 1 and sound.samplerate == sample_rate:
                pcm = sound.read(dtype="int16")
                _check_decoded(len(pcm), sound.frames)
                return pcm
            samples = sound.read(dtype="float32", always_2d=True)
            _check_decoded(len(samples), sound.frames)
            rate = sound.samplerate
    except soundfile.LibsndfileError as error:
        raise UnreadableAudioError(decoding_reason(error)) from error
    except OSError as error:
        raise UnreadableAudioError(f"cannot be read: {error.strerror or error}") from error
    if not np.isfinite(samples).all():
        raise UnreadableAudioError("holds samples that are not finite (NaN or infinity)")
    mono = samples.mean(axis=1)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    if not len(mono):
        raise UnreadableAudioError(f"holds no samples at {sample_rate} Hz")
    return to_int16(mono)


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Float in [-1, 1] (anything beyond is clipped) to int16, rounded."""
    return np.clip(np.rint(waveform * INT16_SCALE), -32768, 32767).astype(np.int16)


def resampled_length(num_samples: Any, rate: Any, sample_rate: int) -> Any:
    """Samples at `sample_rate` Hz of a file of `num_samples` at `rate` Hz, rounded up; of numbers or arrays."""
    return -(-num_samples * sample_rate // rate)


def _check_decoded(num_decoded: int, num_expected: int) -> None:
    if num_decoded == 0:
        raise UnreadableAudioError("holds no samples")
    if num_decoded < num_expected:
        raise UnreadableAudioError(f"cut short: {num_decoded} of {num_expected} samples could be decoded")


def decoding_reason(error: soundfile.LibsndfileError) -> str:
    """The catalog's reason for a file that libsndfile refuses."""
    reason = error.error_string.strip()
    # libsndfile's message for a regular file without an MPEG frame
    if not reason or "not a regular file" in reason:
        reason = "Format not recognised."
    return f"cannot be decoded: {reason}"


def _read_wav_header(file: BinaryIO, file_bytes: int) -> AudioHeader | None:
    """Read a WAV's chunks up to its data; None where libsndfile has to decide.

    Four times as fast as opening the file with libsndfile, which also reads a truncated WAV without an error. Programs
    that write to a pipe give data sizes of 0, or of 2 GB and more; such data end with the file.
    """
    head = file.read(4096)

    def part(position: int, count: int) -> bytes:
        if position + count <= len(head):
            return head[position : position + count]
        file.seek(position)  # after a large chunk of tags or pictures
        return file.read(count)

    if len(head) < 12:
        raise UnreadableAudioError("cut short: no whole WAV header")
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    position, rate, frame_bytes = 12, 0, 0
    while position + 8 <= file_bytes:
        name, size = struct.unpack("<4sI", part(position, 8))
        position += 8
        if name == b"fmt " and position + 16 <= file_bytes:
            encoding, _, rate, _, frame_bytes = struct.unpack("<HHIIH", part(position, 14))
            if encoding not in _WAV_FIXED_SIZE_ENCODINGS:
                return None
        if name == b"data":
            present = file_bytes - position
            if size == 0 or size >= _STREAMED_BYTES:
                size = present
            if present < size:
                raise UnreadableAudioError(f"cut short: {present} of {size} bytes of audio are there")
            return AudioHeader(size // frame_bytes, rate) if rate and frame_bytes else None
        position += size + (size & 1)
    return None


def _check_ogg_end(file: BinaryIO, file_bytes: int) -> None:
    """Raise unless the last page is whole: libsndfile reads an Ogg file that was cut short as a shorter one."""
    start = max(0, file_bytes - _OGG_PAGE_BYTES)
    file.seek(start)
    tail = file.read()
    page = tail.rfind(b"OggS")
    if page < 0:
        return  # not Ogg at all, which libsndfile reports
    segments = tail[page + 27 : page + 27 + (tail[page + 26] if page + 26 < len(tail) else 255)]
    missing = page + 27 + len(segments) + sum(segments) - len(tail)
    if page + 26 >= len(tail) or len(segments) < tail[page + 26] or missing > 0:
        raise UnreadableAudioError("cut short: its last Ogg page is not whole")
