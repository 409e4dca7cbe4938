from __future__ import annotations

import os
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from kws_data.audio import UnreadableAudioError, read_header, read_pcm, resampled_length, to_int16

RATES = (8000, 16000, 22050, 44100, 48000)


def sine(frequency: float, rate: int, seconds: float = 1.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def written(folder: Path, samples: Any, rate: int = 16000, name: str = "clip.wav", **options: Any) -> Path:
    soundfile.write(folder / name, samples, rate, **options)
    return folder / name


def main_frequency(pcm: np.ndarray, rate: int = 16000) -> float:
    """Hz of the strongest bin."""
    middle = pcm[len(pcm) // 4 : 3 * len(pcm) // 4].astype(float)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 17))
    return float(spectrum.argmax() * rate / (1 << 17))


def read(path: Path) -> np.ndarray:
    """As the catalog and then the store do."""
    read_header(path)
    return read_pcm(path, 16000)


def refused(path: Path) -> str:
    """The reason that the catalog or the store would list; fails if the file goes through."""
    with pytest.raises(UnreadableAudioError) as info:
        read(path)
    assert str(info.value).strip(), "no reason"
    return str(info.value)


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


def test_float_beyond_full_scale_is_clipped_not_wrapped(tmp_path: Path) -> None:
    path = written(tmp_path, np.array([1.5, -1.5, 1.0, -1.0] * 100), subtype="FLOAT")
    assert read_pcm(path, 16000)[:4].tolist() == [32767, -32768, 32767, -32768]


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


def test_a_wav_of_no_samples_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, np.zeros(0), 16000)
    assert "no samples" in refused(path)


def test_every_truncation_of_a_wav_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.wav"
    soundfile.write(whole, sine(300, 16000, 0.01), 16000)
    content, path = whole.read_bytes(), tmp_path / "cut.wav"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert refused(path)


@pytest.mark.parametrize("kept", [0.01, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".opus"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    whole = tmp_path / f"whole{suffix}"
    noise = np.random.default_rng(0).normal(0, 0.1, 8 * 48000)  # several Ogg pages
    options = {"format": "OGG", "subtype": "OPUS"} if suffix == ".opus" else {}
    soundfile.write(whole, noise, 48000, **options)
    assert abs(len(read_pcm(whole, 16000)) - 8 * 16000) <= 1
    content = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(content[: int(len(content) * kept)])
    assert refused(cut)


def test_truncation_is_seen_behind_a_large_chunk_of_tags(tmp_path: Path) -> None:
    plain = tmp_path / "plain.wav"
    soundfile.write(plain, sine(300, 16000, 0.1), 16000)
    content = plain.read_bytes()
    tags = b"JUNK" + struct.pack("<I", 9001) + bytes(9002)  # odd sizes are padded to even ones
    tagged = content[:12] + tags + content[12:]
    path = tmp_path / "tagged.wav"
    path.write_bytes(tagged)
    assert read_header(path) == (1600, 16000)
    np.testing.assert_array_equal(read_pcm(path, 16000), read_pcm(plain, 16000))
    path.write_bytes(tagged[:-800])
    assert "cut short" in refused(path)


@pytest.mark.parametrize(("riff_size", "size"), [(8, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000)])
def test_wavs_streamed_to_a_pipe_run_to_the_end_of_the_file(tmp_path: Path, riff_size: int, size: int) -> None:
    path = written(tmp_path, sine(300, 16000, 0.1), 16000)
    expected = read_pcm(path, 16000)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)
    content[4:8] = struct.pack("<I", riff_size)
    path.write_bytes(content)
    assert read_header(path).num_samples == 1600
    np.testing.assert_array_equal(read_pcm(path, 16000), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    samples = sine(300, 16000, 0.1)
    samples[800] = value
    path = written(tmp_path, samples, subtype="FLOAT")
    assert "not finite" in refused(path)


@pytest.mark.parametrize("total", [0, 2**36 - 1])
def test_a_flac_without_a_plausible_length_is_refused(tmp_path: Path, total: int) -> None:
    path = written(tmp_path, sine(300, 16000), 16000, name="clip.flac")
    content = bytearray(path.read_bytes())
    # STREAMINFO begins at byte 8; the total is the low 36 bits of its bytes 10 to 17
    field = int.from_bytes(content[18:26], "big")
    content[18:26] = (field >> 36 << 36 | total).to_bytes(8, "big")
    path.write_bytes(content)
    assert refused(path)


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
