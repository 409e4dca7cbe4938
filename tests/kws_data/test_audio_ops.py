from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from kws_data.audio import read_pcm

pytest.importorskip("tensorflow_io", reason="the stack without tensorflow-io")

import tensorflow as tf

from kws_data import audio_ops

WAV = b"RIFF\x28\0\0\0WAVEfmt \x10\0\0\0%bdata\x04\0\0\0abcd"
READ = tf.function(lambda content: audio_ops.read(content, 16000), input_signature=[tf.TensorSpec([], tf.string)])


def read(path: Path) -> np.ndarray:
    """[samples] int16, as the graph reads a file."""
    return np.rint(READ(path.read_bytes()).numpy() * 32768).astype(np.int16)


def speech(real_data: Path, rate: int, number: int = 0) -> np.ndarray:
    samples, own_rate = soundfile.read(sorted(real_data.glob("yes/*.wav"))[number])
    return soxr.resample(samples, own_rate, rate, quality="VHQ")


def same(path: Path, steps: int) -> None:
    """The graph's samples are those that clips get, within some steps of 16 bits."""
    ours, theirs = read_pcm(path, 16000), read(path)
    assert len(ours) == len(theirs)
    assert np.abs(ours.astype(int) - theirs).max() <= steps


@pytest.mark.parametrize(
    ("suffix", "subtype", "steps"),
    [
        (".wav", "PCM_U8", 0), (".wav", "PCM_16", 0), (".wav", "PCM_24", 0), (".wav", "PCM_32", 0),
        (".wav", "FLOAT", 0), (".flac", "PCM_S8", 0), (".flac", "PCM_16", 0), (".flac", "PCM_24", 0),
        (".ogg", "VORBIS", 1), (".mp3", "MPEG_LAYER_III", 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 2])
def test_every_encoding_is_decoded_as_clips_are(
    real_data: Path, tmp_path: Path, suffix: str, subtype: str, steps: int, channels: int
) -> None:
    samples = speech(real_data, 16000)
    path = tmp_path / f"clip{suffix}"
    soundfile.write(path, np.stack([samples, 0.3 * samples][:channels], axis=1), 16000, subtype=subtype)
    same(path, steps)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 32000, 44100, 48000, 44099])
def test_any_rate_is_resampled_as_soxr_does(real_data: Path, tmp_path: Path, rate: int) -> None:
    for number in range(4):
        path = tmp_path / f"clip{number}.wav"
        soundfile.write(path, speech(real_data, rate, number), rate)
        same(path, 8)  # of 32768; a delay of a tenth of a sample would show as hundreds


@pytest.mark.parametrize("rate", [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000])
def test_the_rate_of_every_mp3_is_found(real_data: Path, tmp_path: Path, rate: int) -> None:
    path = tmp_path / "clip.mp3"
    soundfile.write(path, speech(real_data, rate), rate)
    same(path, 8)
    tag = b"ID3\x04\0\0" + bytes([0, 0, 60, 5]) + bytes(60 * 128 + 5)
    path.write_bytes(tag + path.read_bytes())
    same(path, 8)


def test_what_lies_above_the_lower_nyquist_frequency_is_removed() -> None:
    tone = np.sin(2 * np.pi * 9000 / 48000 * np.arange(48000)).astype(np.float32)
    resampled = audio_ops.resample(tf.constant(tone), tf.constant(48000), 16000).numpy()
    assert np.abs(resampled[1000:-1000]).max() < 1e-5


def test_an_extensible_header_after_other_chunks_is_read(real_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, speech(real_data, 16000), 16000, format="WAVEX", subtype="PCM_24")
    same(path, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"RIFF", "the WAV has no format"),
        (b"text\n" * 100, "neither WAV, FLAC, Ogg nor MP3"),
        (b"OggS", "not supported: an Ogg file of Opus"),
        (WAV % struct.pack("<HHIIHH", 1, 1, 0, 0, 2, 16), "rate"),
        (WAV % struct.pack("<HHIIHH", 1, 2561, 8000, 24000, 3, 24), "the WAV has frames of a wrong size"),
        (WAV % struct.pack("<HHIIHH", 6, 1, 8000, 8000, 1, 8), "not supported: a WAV of encoding"),
    ],
)
def test_what_cannot_be_decoded_is_an_error_that_says_so(content: bytes, message: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        READ(content)
