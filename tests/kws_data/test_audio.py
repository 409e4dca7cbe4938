"""Samples: decoded, resampled and mixed down, whole and in blocks; and files that are no audio."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_data import audio
from kws_data.audio import UnreadableAudioError, read_blocks, read_header, read_pcm, resampled_length, to_int16
from tests.conftest import SAMPLE_RATE
from tests.kws_data.audio_files import refused, sine, written

RATES = (8000, 16000, 22050, 44100, 48000)


def main_frequency(pcm: np.ndarray, rate: int = 16000) -> float:
    """Hz of the strongest bin."""
    middle = pcm[len(pcm) // 4 : 3 * len(pcm) // 4].astype(float)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 17))
    return float(spectrum.argmax() * rate / (1 << 17))


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        (".wav", "PCM_U8", 1 / 100), (".wav", "PCM_16", 1e-4), (".wav", "PCM_24", 1e-4), (".wav", "PCM_32", 1e-4),
        (".wav", "FLOAT", 1e-4), (".wav", "DOUBLE", 1e-4), (".flac", "PCM_16", 1e-4), (".flac", "PCM_24", 1e-4),
        (".ogg", "VORBIS", 0.05), (".mp3", "MPEG_LAYER_III", 0.05),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 2])
def test_decodes_every_encoding_to_the_same_samples(
    tmp_path: Path, suffix: str, subtype: str, tolerance: float, channels: int
) -> None:
    samples = sine(440, 16000)
    path = written(tmp_path, np.stack([samples] * channels, axis=1), subtype=subtype, name=f"clip{suffix}")
    assert read_header(path) == (16000, 16000)
    pcm = read_pcm(path, 16000)
    assert pcm.dtype == np.int16
    assert len(pcm) == 16000
    inner = slice(2000, -2000)  # the edges of lossy codecs ring
    assert np.abs(pcm[inner] / 32768 - samples[inner]).max() < tolerance


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_resampled_clips_keep_length_pitch_and_level(tmp_path: Path, suffix: str, rate: int) -> None:
    path = written(tmp_path, sine(1000, rate, 0.8), rate, name=f"clip{suffix}")
    header = read_header(path)
    assert header.sample_rate == rate
    pcm = read_pcm(path, 16000)
    assert abs(len(pcm) - 12800) <= 1
    assert len(pcm) <= resampled_length(header.num_samples, rate, 16000)
    assert main_frequency(pcm) == pytest.approx(1000, abs=2)
    middle = pcm[4000:8000] / 32768
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.5, rel=0.05)


def test_resampling_removes_what_the_lower_rate_cannot_hold(tmp_path: Path) -> None:
    path = written(tmp_path, sine(11000, 48000), 48000, subtype="FLOAT")
    assert np.abs(read_pcm(path, 16000)[2000:-2000]).max() < 10  # an alias would stand at 5 kHz with level 16384


def test_stereo_is_the_mean_of_its_channels(tmp_path: Path) -> None:
    left, right = sine(300, 16000, level=0.4), sine(2000, 16000, level=0.2)
    path = written(tmp_path, np.stack([left, right], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(read_pcm(path, 16000), to_int16((left + right) / 2), atol=1)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_16_bit_mono_at_the_rate_comes_through_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    samples[:2] = (-32768, 32767)
    path = written(tmp_path, samples, subtype="PCM_16", name=f"clip{suffix}")
    np.testing.assert_array_equal(read_pcm(path, 16000), samples)


def test_16_bit_stereo_of_equal_channels_comes_through_bit_for_bit(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    path = written(tmp_path, np.stack([samples, samples], axis=1), subtype="PCM_16")
    np.testing.assert_array_equal(read_pcm(path, 16000), samples)


def test_real_clips_come_through_bit_for_bit(real_data: Path) -> None:
    for path in sorted(real_data.glob("*/*.wav"))[::50]:
        with wave.open(str(path)) as file:
            expected = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        np.testing.assert_array_equal(read_pcm(path, 16000), expected)
        assert read_header(path) == (len(expected), 16000)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".opus"])
def test_empty_files_and_text_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(b"")
    assert "no samples" in refused(path)
    path.write_text("this is not audio\n" * 100)
    assert "decoded" in refused(path)


def test_long_silence_as_flac_is_not_taken_for_a_broken_header(tmp_path: Path) -> None:
    path = written(tmp_path, np.zeros(60 * 16000, np.int16), 16000, name="clip.flac")
    assert len(read_pcm(path, read_header(path).sample_rate)) == 60 * 16000


def test_a_clip_that_vanishes_in_resampling_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, np.array([0.5]), 48000)
    assert "no samples" in refused(path)


def test_other_suffixes_folders_links_and_pipes_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("notes")
    assert ".wav" in refused(text)  # says what is known
    (tmp_path / "folder.wav").mkdir()
    assert refused(tmp_path / "folder.wav")
    (tmp_path / "link.flac").symlink_to("nowhere.flac")
    assert "No such file" in refused(tmp_path / "link.flac")
    os.mkfifo(tmp_path / "pipe.wav")
    assert "regular" in refused(tmp_path / "pipe.wav")


def test_suffixes_count_in_any_case(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.WAV", sine(300, 16000, 0.1), 16000)
    assert read_header(tmp_path / "clip.WAV").num_samples == 1600


def test_an_unreadable_file_is_refused_with_the_systems_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, sine(300, 16000, 0.1), 16000, name="clip.flac")

    def deny(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", deny)  # root may read everything
    assert refused(path) == "cannot be read: Permission denied"


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "BLOCK_S", 1)


def noise(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2), (22050, 1)])
def test_blocks_are_the_whole_file(short_blocks: None, tmp_path: Path, suffix: str, rate: int, channels: int) -> None:
    path = tmp_path / f"clip{suffix}"
    soundfile.write(path, noise(3.3, rate, channels), rate)

    blocks = list(read_blocks(path, SAMPLE_RATE))

    assert len(blocks) >= 4
    assert all(block.dtype == np.float32 and block.ndim == 1 for block in blocks)
    whole = read_pcm(path, SAMPLE_RATE) / 32768
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=0.01 if suffix == ".mp3" else 1e-4)


def test_16_bit_samples_come_through_unchanged(tmp_path: Path, real_data: Path) -> None:
    path = next((real_data / "yes").iterdir())
    (block,) = read_blocks(path, SAMPLE_RATE)
    np.testing.assert_array_equal(block * 32768, read_pcm(path, SAMPLE_RATE))


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    good = tmp_path / "good.wav"
    soundfile.write(good, noise(3.3, SAMPLE_RATE), SAMPLE_RATE)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(good.read_bytes()[:50_000])
    flac = tmp_path / "whole.flac"
    soundfile.write(flac, noise(3.3, SAMPLE_RATE), SAMPLE_RATE)
    cut_flac = tmp_path / "cut.flac"
    cut_flac.write_bytes(flac.read_bytes()[:50_000])
    nan = tmp_path / "nan.wav"
    samples = noise(3.3, SAMPLE_RATE)
    samples[2 * SAMPLE_RATE] = np.nan
    soundfile.write(nan, samples, SAMPLE_RATE, subtype="FLOAT")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "empty.wav").write_bytes(b"")
    for name, message in {
        "cut.wav": "cut short", "cut.flac": "c", "nan.wav": "not finite", "folder.wav": "not a regular file",
        "empty.wav": "the file is empty", "absent.wav": "No such file",
    }.items():  # fmt: skip
        with pytest.raises(UnreadableAudioError, match=message):
            list(read_blocks(tmp_path / name, SAMPLE_RATE))


@pytest.mark.parametrize(
    "error", [ValueError("array is too big"), MemoryError(), RuntimeError("soxr"), AssertionError()]
)
def test_whatever_a_decoder_raises_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    path = written(tmp_path, sine(300, 16000), 16000, name="clip.flac")
    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    assert type(error).__name__ in refused(path)
