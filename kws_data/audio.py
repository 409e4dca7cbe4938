"""Read one audio file: its header for the catalog, its samples for everything else.

What is decoded counts, not what a header says: a file is decoded in blocks up to its end, and all that came is kept. A
file is refused if it is cut short, if the decoder reports a defect, if it holds nothing, or if it is outside the bounds
of `AudioRules`. However large a file claims to be, reading it takes the memory of a few seconds.
"""

from __future__ import annotations

import io
import os
import stat
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from kws_data.clip_format import DEFAULT_RULES, LONGEST_STREAM_S, AudioRules, ClipFormat
from kws_data.containers.file_bytes import ContainerError, CutShortError
from kws_data.containers.parts import MOST_SAMPLES_PER_BYTE, Part, find_parts, unread_ogg_codec

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"})
INT16_SCALE = 32768.0  # as tf.audio.decode_wav: -32768 is -1.0
BLOCK_S = 5

# libsndfile's names of the containers in which a file that was cut short is recognised
_CONTAINERS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "SVX", "NIST", "FLAC", "OGG", "MP3"})
_BLOCK_SAMPLES = 1 << 20  # the most in a block, over all channels
_FAR = 1 << 40  # bytes by which a file without an end is longer
_TAG_BYTES = 128  # at the end of an MP3 (ID3v1)
_FEW = 100  # samples
_OVERSHOOT = 1.5  # of float files: what a mix or a decoder may go beyond full scale, which is clipped
_MOST_GAIN = 256.0  # beyond it, a float file holds integers rather than a loud mix
_FULL_SCALES = (2.0**15, 2.0**23, 2.0**31)  # of integers that were written as floats


class UnreadableAudioError(Exception):
    """The file cannot be used; the message is the reason for the catalog."""


class AudioHeader(NamedTuple):
    """Of a file: samples per channel, and their rate in Hz."""

    num_samples: int
    sample_rate: int


def read_header(path: Path) -> AudioHeader:
    """Length and rate of a file; it is decoded only where its header has no length.

    Raises:
        UnreadableAudioError: not audio, no samples, or cut short.
    """
    suffix = path.suffix.lower()
    if suffix not in AUDIO_SUFFIXES:
        raise UnreadableAudioError(f"not an audio file of a known kind ({', '.join(sorted(AUDIO_SUFFIXES))})")
    with _one_error(), _parts(path) as (file, parts):
        headers = [AudioHeader(*part.length) if part.length else _measured(file, part) for part in parts]
    # Parts may differ in rate.
    header = AudioHeader(
        sum(resampled_length(*part, headers[0].sample_rate) for part in headers), headers[0].sample_rate
    )
    if header.num_samples <= 0:
        raise UnreadableAudioError("holds no samples")
    return header


def read_pcm(path: Path, sample_rate: int, rules: AudioRules = DEFAULT_RULES) -> np.ndarray:
    """Decode, mix to mono and resample one file.

    Returns:
        [samples] int16 at `sample_rate` Hz. 16-bit mono files at that rate come through unchanged.

    Raises:
        UnreadableAudioError: broken, cut short, outside the rules, or not finite (float files).
    """
    return AudioFile(path, sample_rate, rules).pcm()


def read_blocks(path: Path, sample_rate: int, rules: AudioRules = DEFAULT_RULES) -> Iterator[np.ndarray]:
    """Yield the samples of a file of any length in order: [samples] float32 at `sample_rate` Hz, a few seconds each.

    Raises:
        UnreadableAudioError: as `read_pcm`; raised when the defect is reached.
    """
    for block in AudioFile(path, sample_rate, rules, max_seconds=LONGEST_STREAM_S).blocks():
        yield block / np.float32(INT16_SCALE) if block.dtype == np.int16 else block


class AudioFile:
    """A file to be decoded, mixed to mono and resampled.

    Attributes:
        full_scale: what the samples of a float file are divided by; None of others, and before the first block.
    """

    def __init__(
        self, path: Path, sample_rate: int, rules: AudioRules = DEFAULT_RULES, *, max_seconds: float | None = None
    ) -> None:
        self.path, self.sample_rate, self.rules = path, sample_rate, rules
        self.max_seconds = rules.max_seconds if max_seconds is None else max_seconds
        self.full_scale: float | None = None
        self._low, self._high = np.inf, -np.inf

    @property
    def muted(self) -> bool:
        """Whether all samples so far have one value."""
        return self._high - self._low < 1 / INT16_SCALE

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield [samples], at least one: int16 of a 16-bit mono file at the rate, else float32 in about [-1, 1].

        Raises:
            UnreadableAudioError: when the defect is reached, and of a file without a sample.
        """
        count, most = 0, self.max_seconds * self.sample_rate + 1  # as resampled lengths are rounded up
        with _one_error(), _parts(self.path) as (file, parts):
            for index in range(len(parts)):
                for block in self._decoded(file, parts, index):
                    count += len(block)
                    if count > most:
                        raise UnreadableAudioError(f"lasts longer than audio.max_seconds={self.max_seconds:g}")
                    if len(block):
                        yield block
        if not count:
            raise UnreadableAudioError(f"holds no samples at {self.sample_rate} Hz")

    def pcm_blocks(self) -> Iterator[np.ndarray]:
        """`blocks` as int16."""
        for block in self.blocks():
            yield block if block.dtype == np.int16 else to_int16(block)

    def pcm(self) -> np.ndarray:
        """All of `pcm_blocks` as one array."""
        samples = bytearray()  # grows in place, where joining arrays would take the memory twice
        for block in self.pcm_blocks():
            samples += block.data
        return np.frombuffer(samples, np.int16)

    def _decoded(self, file: BinaryIO, parts: list[Part], index: int) -> Iterator[np.ndarray]:
        part = parts[index]
        if part.plain is not None and part.length is not None and part.length[1] == self.sample_rate:
            self._check_bounds("WAV", self.sample_rate, 1)
            for block in _plain_blocks(file, part.plain, *part.length):
                self._note_range(block, INT16_SCALE)
                yield block
            return
        with _opened(file, part) as sound:
            self._check_bounds(sound.format, sound.samplerate, sound.channels)
            rate, is_float = sound.samplerate, sound.subtype in ("FLOAT", "DOUBLE")
            if is_float and self.full_scale is None:
                self.full_scale = self._full_scale(file, parts[index:])
                sound.seek(0)
            if sound.subtype == "PCM_16" and sound.channels == 1 and rate == self.sample_rate:
                for block, _ in _raw_blocks(sound, "int16"):
                    self._note_range(block, INT16_SCALE)
                    yield block
                return
            resampler = None
            if rate != self.sample_rate:
                resampler = soxr.ResampleStream(rate, self.sample_rate, 1, dtype="float32", quality="HQ")
            for block, last in _raw_blocks(sound, "float32"):
                _check_finite(block)
                mono = block[:, 0]
                if sound.channels > 1:
                    with np.errstate(over="ignore"):
                        mono = block.mean(axis=1)
                if is_float and self.full_scale != 1:
                    mono /= np.float32(self.full_scale)
                self._note_range(mono, 1.0)
                if resampler is not None:
                    mono = resampler.resample_chunk(mono, last=last)
                if resampler is not None or sound.channels > 1:
                    _check_finite(mono)
                yield mono

    def _check_bounds(self, container: str, rate: int, channels: int) -> None:
        rules = self.rules
        if container not in _CONTAINERS:
            raise UnreadableAudioError(
                f"a file of the kind {container}, in which a cut cannot be recognised; convert it to WAV"
            )
        if not rules.min_rate <= rate <= rules.max_rate:
            raise UnreadableAudioError(
                f"its rate of {rate} Hz is outside audio.min_rate={rules.min_rate} and audio.max_rate={rules.max_rate}"
            )
        if channels > rules.max_channels:
            raise UnreadableAudioError(f"its {channels} channels are more than audio.max_channels={rules.max_channels}")

    def _note_range(self, block: np.ndarray, scale: float) -> None:
        for samples in (block[:_FEW], block):  # a few samples show that most files are not muted
            if self.muted and len(samples):
                self._low = min(self._low, samples.min() / scale)
                self._high = max(self._high, samples.max() / scale)

    def _full_scale(self, file: BinaryIO, parts: list[Part]) -> float:
        """What to divide float samples by; only all of them show it."""
        if self.rules.levels == "clip":
            return 1.0
        peak, whole_numbers = 0.0, True
        for part in parts:
            with _opened(file, part) as sound:
                for block, _ in _raw_blocks(sound, "float32"):
                    _check_finite(block)
                    peak = max(peak, float(np.abs(block).max(initial=0)))
                    whole_numbers = whole_numbers and bool((block == np.rint(block)).all())
        if peak <= _OVERSHOOT:
            return 1.0
        if self.rules.levels == "set_aside" or peak > _FULL_SCALES[-1]:
            raise UnreadableAudioError(f"its samples reach {peak:.4g}, where 1 is full scale (audio.levels)")
        if whole_numbers or peak > _MOST_GAIN:
            return next(scale for scale in _FULL_SCALES if peak <= scale)
        return peak


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
    pcm = audio.pcm()
    start = form.start_in(pcm)
    clip = pcm[start : start + form.longest]
    return ReadClip(clip / np.float32(INT16_SCALE), len(pcm) > len(clip), audio.full_scale)


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Float in [-1, 1] (anything beyond is clipped) to int16, rounded."""
    with np.errstate(over="ignore"):  # of what is clipped
        return np.clip(np.rint(waveform * INT16_SCALE), -32768, 32767).astype(np.int16)


def resampled_length(num_samples: Any, rate: Any, sample_rate: int) -> Any:
    """Samples at `sample_rate` Hz of a file of `num_samples` at `rate` Hz, rounded up; of numbers or arrays."""
    return -(-num_samples * sample_rate // rate)


@contextmanager
def _one_error() -> Iterator[None]:
    """Whatever a decoder, soxr or NumPy raises over one file becomes one kind of error, so that no command ends."""
    try:
        yield
    except UnreadableAudioError:
        raise
    except CutShortError as error:
        raise UnreadableAudioError(f"cut short: {error}") from error
    except ContainerError as error:
        raise UnreadableAudioError(f"cannot be decoded: {error}") from error
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().removeprefix("Error : ")
        # libsndfile's message for a regular file without an MPEG frame
        if not reason or "not a regular file" in reason:
            reason = "Format not recognised."
        raise UnreadableAudioError(f"cannot be decoded: {reason}") from error
    except OSError as error:
        raise UnreadableAudioError(f"cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise UnreadableAudioError(f"cannot be decoded: {type(error).__name__}: {error}") from error


@contextmanager
def _parts(path: Path) -> Iterator[tuple[BinaryIO, list[Part]]]:
    """A file, open, and the files that it consists of."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block until it is written to
        raise UnreadableAudioError("cannot be read: not a regular file")
    if status.st_size == 0:
        raise UnreadableAudioError("holds no samples: the file is empty")
    with path.open("rb", buffering=0) as file:
        try:
            yield file, find_parts(file, status.st_size)
        except soundfile.LibsndfileError as error:
            file.seek(0)
            if codec := unread_ogg_codec(file.read(512)):
                raise UnreadableAudioError(
                    f"cannot be decoded: {codec} in an Ogg container; convert it to FLAC or WAV"
                ) from error
            raise


def _measured(file: BinaryIO, part: Part) -> AudioHeader:
    with _opened(file, part) as sound:
        if sound.declared:
            return AudioHeader(sound.declared, sound.samplerate)
        count, most = 0, DEFAULT_RULES.max_seconds * sound.samplerate
        for block, _ in _raw_blocks(sound, "float32"):
            count += len(block)
            if count > most:  # a catalog needs no more
                break
        return AudioHeader(count, sound.samplerate)


class _Forward(soundfile.SoundFile):
    """A sound file that is only read forwards: seeking after each read, as soundfile does, fails in some codecs."""

    declared = 0  # samples that the header says there are; 0 where it does not, or cannot be right

    def seekable(self) -> bool:
        return False


@contextmanager
def _opened(file: BinaryIO, part: Part) -> Iterator[_Forward]:
    # Not by its path, with which libsndfile would also look at a file `._NAME` that macOS left beside it.
    whole = part.start == 0 and not part.repairs and not part.endless and part.end == os.fstat(file.fileno()).st_size
    file.seek(0)
    try:
        sound = _Forward(file.fileno() if whole else _PartFile(file, part), closefd=False)
    except soundfile.LibsndfileError:
        if not whole:
            raise
        sound = _Forward(file.name)  # by its suffix it knows an MP3 file that begins with other bytes
    with sound:
        if part.endless and sound.format != "MP3":  # which would be decoded without end
            raise UnreadableAudioError("cannot be decoded: Format not recognised.")
        declared = sound.frames
        if part.length and (sound.format == "FLAC" or sound.subtype == "GSM610"):
            declared = part.length[0]  # libsndfile counts an odd number of blocks of GSM as one more
        sound.declared = declared if 0 < declared <= MOST_SAMPLES_PER_BYTE * (part.end - part.start) else 0
        yield sound


class _PartFile(io.RawIOBase):
    """A part of a file as a file of its own, with its repairs.

    An endless part says that it is very long, so that libsndfile decodes to where the bytes end.
    """

    def __init__(self, file: BinaryIO, part: Part) -> None:
        self._file, self._part, self._at = file, part, 0
        self._size = part.end - part.start + (_FAR if part.endless else 0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        position = self._part.start + self._at
        count = max(0, min(len(buffer), self._part.end - position))
        if self._part.endless and self._size - self._at <= _TAG_BYTES:  # mpg123 looks for a tag at the end
            count = min(len(buffer), self._size - self._at)
            buffer[:count] = bytes(count)
        else:
            self._file.seek(position)
            content = bytearray(self._file.read(count))
            for place, repair in self._part.repairs:
                for index, byte in enumerate(repair, place - position):
                    if 0 <= index < len(content):
                        content[index] = byte
            count = len(content)
            buffer[:count] = content
        self._at += count
        return count


def _raw_blocks(sound: _Forward, dtype: str) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield the samples, and whether they are the last: int16 [samples] or float32 [samples, channels]."""
    most = max(1, min(BLOCK_S * sound.samplerate, _BLOCK_SAMPLES // sound.channels))
    decoded, last = 0, False
    while not last:
        rest = sound.declared - decoded
        wanted = min(most, rest) if rest > 0 else most
        try:
            block = sound.read(wanted, dtype=dtype, always_2d=dtype == "float32")
        except soundfile.LibsndfileError:
            if rest > 0 or not sound.declared:
                raise
            block = np.zeros((0, sound.channels) if dtype == "float32" else 0, dtype)  # something behind the audio
        decoded += len(block)
        last = len(block) < wanted or (decoded == sound.declared and sound.format != "FLAC")
        if last and decoded < sound.declared:
            raise UnreadableAudioError(f"cut short: {decoded} of {sound.declared} samples could be decoded")
        yield block, last


def _plain_blocks(file: BinaryIO, position: int, count: int, rate: int) -> Iterator[np.ndarray]:
    """16-bit samples as they are in the file, which takes half the time that libsndfile does for a short clip."""
    file.seek(position)
    for start in range(0, count, BLOCK_S * rate):
        wanted = min(BLOCK_S * rate, count - start)
        block = np.frombuffer(file.read(2 * wanted), "<i2")
        if len(block) < wanted:
            raise UnreadableAudioError(f"cut short: {start + len(block)} of {count} samples are there")
        yield block


def _check_finite(samples: np.ndarray) -> None:
    if not np.isfinite(samples).all():
        raise UnreadableAudioError("holds samples that are not finite (NaN or infinity)")


def write_wav(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write [samples] int16 as a mono WAV."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())
