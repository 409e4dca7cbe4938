from __future__ import annotations

import os
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from kws_data import audio
from kws_data.audio import (
    UnreadableAudioError,
    read_blocks,
    read_header,
    read_pcm,
    resampled_length,
    to_int16,
)
from kws_data.clip_format import AudioRules
from tests.conftest import SAMPLE_RATE

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


def apple_double() -> bytes:
    """What macOS writes as `._name` beside a file `name` on a disk of another system: Finder's data, an empty fork."""
    maps = struct.pack(">IIII", 256, 256, 0, 30)
    fork = maps + b"This resource fork intentionally left blank   ".ljust(240, b"\0") + maps + bytes(14)
    head = struct.pack(">II16sH", 0x00051607, 0x00020000, b"Mac OS X        ", 2)
    return head + struct.pack(">IIIIII", 9, 50, 32, 2, 82, len(fork)) + bytes(32) + fork


@pytest.mark.parametrize("beside", ["._clip{}", ".AppleDouble/clip{}"])
@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".flac", ".ogg"])
def test_what_macos_writes_beside_a_file_does_not_change_it(tmp_path: Path, suffix: str, beside: str) -> None:
    path = written(tmp_path, sine(440, 16000), name=f"clip{suffix}")
    alone, blocks = read(path), np.concatenate(list(read_blocks(path, 16000)))
    litter = tmp_path / beside.format(suffix)
    litter.parent.mkdir(exist_ok=True)
    litter.write_bytes(apple_double())
    assert np.array_equal(read(path), alone)
    assert np.array_equal(np.concatenate(list(read_blocks(path, 16000))), blocks)


def test_an_mp3_file_that_begins_with_other_bytes_is_known_by_its_suffix(tmp_path: Path) -> None:
    path = written(tmp_path, sine(440, 16000), name="clip.mp3")
    alone = read(path)
    path.write_bytes(bytes(300) + path.read_bytes())
    assert np.array_equal(read(path), alone)


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


@pytest.mark.parametrize("total", [0, 2000, 2**36 - 1])
def test_a_flac_without_a_plausible_length_is_read_to_its_end(tmp_path: Path, total: int) -> None:
    path = written(tmp_path, sine(300, 16000), 16000, name="clip.flac")
    expected = read(path)
    content = bytearray(path.read_bytes())
    # STREAMINFO begins at byte 8; the total is the low 36 bits of its bytes 10 to 17
    field = int.from_bytes(content[18:26], "big")
    content[18:26] = (field >> 36 << 36 | total).to_bytes(8, "big")
    path.write_bytes(content)
    assert read_header(path) == (2000 if total == 2000 else 16000, 16000)
    np.testing.assert_array_equal(read(path), expected)


def test_what_follows_the_audio_does_not_matter(tmp_path: Path) -> None:
    for suffix in (".wav", ".flac", ".mp3"):
        path = written(tmp_path, sine(300, 16000), 16000, name=f"clip{suffix}")
        expected = read(path)
        content = path.read_bytes()
        for tail in (b"TAG" + b"x" * 125, bytes(1000), np.random.default_rng(0).bytes(1000)):
            path.write_bytes(content + tail)
            np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("size", [2, 4000, 20000])
def test_samples_that_a_wrong_size_leaves_out_are_read(real_data: Path, tmp_path: Path, size: int) -> None:
    path = patched(written(tmp_path, speech(real_data)), (40, struct.pack("<I", size)))
    np.testing.assert_array_equal(read(path), speech(real_data))


@pytest.mark.parametrize("container", ["WAV", "RF64", "AIFF"])
@pytest.mark.parametrize("chunk", [b"", b"LIST" + struct.pack("<I", 4) + b"INFO"])
def test_much_that_follows_a_whole_file_is_no_audio(
    real_data: Path, tmp_path: Path, container: str, chunk: bytes
) -> None:
    path = written(tmp_path, speech(real_data), 16000, format=container, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    if container == "WAV":
        content[4:8] = struct.pack("<I", len(content) + len(chunk) - 8)
        content += chunk
    for tail in (b"APETAGEX" + bytes(5000), b'{"a": 1}' * 1000, np.random.default_rng(0).bytes(20001)):
        path.write_bytes(content + tail)
        np.testing.assert_array_equal(read(path), speech(real_data))


def test_many_tags_before_the_audio_are_refused_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, sine(300, 16000), name="clip.mp3")
    content, tag = path.read_bytes(), b"ID3\4" + bytes(6)
    path.write_bytes(99 * tag + content)
    assert len(read(path))
    path.write_bytes(100_000 * tag + content)
    assert refused(path) == "cannot be decoded: 100 or more ID3 tags follow each other"


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


def speech(real_data: Path) -> np.ndarray:
    samples, _ = soundfile.read(sorted((real_data / "yes").iterdir())[0], dtype="int16")
    return samples


def patched(path: Path, *changes: tuple[int, bytes]) -> Path:
    """The file with bytes replaced."""
    content = bytearray(path.read_bytes())
    for place, replacement in changes:
        content[place : place + len(replacement)] = replacement
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("align", [0, 1, 4, 16, 24, 32])
@pytest.mark.parametrize(("subtype", "channels"), [("PCM_16", 1), ("PCM_16", 2), ("PCM_24", 1), ("FLOAT", 1)])
def test_a_wrong_block_size_costs_no_sample(
    real_data: Path, tmp_path: Path, align: int, subtype: str, channels: int
) -> None:
    samples = speech(real_data) / 32768
    path = written(tmp_path, np.stack([samples] * channels, axis=1), subtype=subtype)
    expected = read(path)
    assert len(expected) == 16000
    patched(path, (32, struct.pack("<H", align)))
    assert read_header(path) == (16000, 16000)
    np.testing.assert_array_equal(read(path), expected)


ODD_CODECS = [
    ("WAV", "GSM610"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "G721_32"), ("WAV", "NMS_ADPCM_16"),
    ("WAV", "ULAW"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("W64", "GSM610"), ("AIFF", "PCM_16"), ("AIFF", "GSM610"),
    ("AU", "PCM_16"), ("AU", "G721_32"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("NIST", "PCM_16"), ("SVX", "PCM_16"),
]  # fmt: skip


@pytest.mark.parametrize(("container", "subtype"), ODD_CODECS)
@pytest.mark.parametrize("count", [16000, 11203])
def test_every_codec_and_container_is_read_under_any_name(
    real_data: Path, tmp_path: Path, container: str, subtype: str, count: int
) -> None:
    samples = speech(real_data)[:count]
    path = written(tmp_path, samples, format=container, subtype=subtype)
    pcm = read(path)
    assert count <= len(pcm) <= count + 1100  # codecs fill up their last block
    assert np.corrcoef(pcm[:count], samples)[0, 1] > 0.93
    if subtype == "PCM_16":
        np.testing.assert_array_equal(pcm, samples)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
@pytest.mark.parametrize(("container", "subtype"), ODD_CODECS)
def test_a_cut_is_seen_in_every_container_under_any_name(
    tmp_path: Path, container: str, subtype: str, kept: float
) -> None:
    path = written(tmp_path, sine(300, 16000), format=container, subtype=subtype)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "cut short" in refused(path)


@pytest.mark.parametrize("container", ["VOC", "MAT5", "AVR"])
def test_a_container_in_which_a_cut_cannot_be_seen_is_refused(tmp_path: Path, container: str) -> None:
    assert f"kind {container}" in refused(written(tmp_path, sine(300, 16000), format=container, subtype="PCM_16"))


@pytest.mark.parametrize(
    ("container", "chunk", "after", "count"),
    [
        ("WAV", b"data", 4, 4), ("RF64", b"ds64", 8, 24), ("AIFF", b"SSND", 4, 4), ("AU", b".snd", 8, 4),
        ("CAF", b"data", 4, 8),
    ],
)  # fmt: skip
def test_a_recording_that_was_stopped_is_read_to_the_files_end(
    real_data: Path, tmp_path: Path, container: str, chunk: bytes, after: int, count: int
) -> None:
    samples = speech(real_data)
    path = written(tmp_path, samples, format=container, subtype="PCM_16")
    patched(path, (path.read_bytes().index(chunk) + after, bytes(count)))
    np.testing.assert_array_equal(read(path), samples)


def test_a_wav_of_no_samples_before_other_chunks_is_empty(tmp_path: Path) -> None:
    path = written(tmp_path, np.zeros(0), 16000)
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert "no samples" in refused(path)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3"])
def test_joined_files_are_read_with_all_their_parts(tmp_path: Path, suffix: str) -> None:
    options = {"format": "OGG", "subtype": "OPUS"} if suffix == ".opus" else {}
    parts = [
        written(tmp_path, sine(frequency, rate, 0.7), rate, name=f"{frequency}{suffix}", **options)
        for frequency, rate in ((300, 16000), (700, 48000), (400, 16000))
    ]
    joined = tmp_path / f"joined{suffix}"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    np.testing.assert_array_equal(read(joined), np.concatenate([read(part) for part in parts]))
    assert abs(read_header(joined).num_samples - 3 * 0.7 * 16000) <= 3


def without_count(mp3: bytes) -> bytes:
    """An MP3 of 16 kHz without its first frame, which counts the others, as encoders write to a pipe."""
    assert b"Info" in mp3[:60] or b"Xing" in mp3[:60]
    kbit_s = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)[mp3[2] >> 4]
    return mp3[72 * 1000 * kbit_s // 16000 + (mp3[2] >> 1 & 1) :]


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0\0\0\x01\x48" + bytes(200)])
def test_an_mp3_without_a_count_of_frames_is_read_to_its_end(
    real_data: Path, tmp_path: Path, mode: str, tag: bytes
) -> None:
    # a soft beginning, so that the first frames of a variable rate say little about the others
    samples = np.concatenate([np.zeros(16000, np.int16), speech(real_data), speech(real_data)[::-1]])
    path = written(tmp_path, samples, 16000, name="clip.mp3", bitrate_mode=mode, compression_level=0.5)
    whole = read(path)
    path.write_bytes(tag + without_count(path.read_bytes()))
    pcm = read(path)
    assert len(whole) <= len(pcm) <= len(whole) + 3 * 1152
    lag = int(np.correlate(pcm.astype(float), whole.astype(float), "valid").argmax())
    np.testing.assert_allclose(pcm[lag : lag + len(whole)], whole, atol=700)
    assert read_header(path).num_samples == len(pcm)


def test_an_mp3_without_a_count_after_one_with_a_count_is_not_lost(tmp_path: Path) -> None:
    first = written(tmp_path, sine(300, 16000), name="first.mp3")
    second = written(tmp_path, sine(700, 16000), name="second.mp3")
    second.write_bytes(without_count(second.read_bytes()))
    joined = tmp_path / "joined.mp3"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    np.testing.assert_array_equal(read(joined), np.concatenate([read(first), read(second)]))


def test_a_resource_fork_beside_an_mp3_does_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path, sine(300, 16000), name="clip.mp3")
    expected = read(path)
    (tmp_path / "._clip.mp3").write_bytes(bytes.fromhex("00051607") + bytes(400))
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("full_scale", [2.0**15, 2.0**23, 2.0**31])
def test_integers_in_a_float_file_are_scaled_to_what_they_were(
    real_data: Path, tmp_path: Path, full_scale: float
) -> None:
    samples = speech(real_data)
    path = written(tmp_path, samples / 32768 * full_scale, subtype="FLOAT")
    np.testing.assert_array_equal(read(path), samples)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(path, 16000))), samples / np.float32(32768))


def test_levels_far_beyond_full_scale_follow_the_rule(real_data: Path, tmp_path: Path) -> None:
    samples = speech(real_data) / np.abs(speech(real_data)).max()
    path = written(tmp_path, 4.0 * samples, subtype="FLOAT")
    np.testing.assert_allclose(read(path), to_int16(samples), atol=1)
    with pytest.raises(UnreadableAudioError, match=r"reach 4.*audio\.levels"):
        read_pcm(path, 16000, AudioRules(levels="set_aside"))
    np.testing.assert_array_equal(
        read_pcm(path, 16000, AudioRules(levels="clip")), to_int16((4.0 * samples).astype(np.float32))
    )
    little = written(tmp_path, 1.4 * samples, subtype="FLOAT")
    np.testing.assert_array_equal(
        read_pcm(little, 16000, AudioRules(levels="set_aside")), to_int16((1.4 * samples).astype(np.float32))
    )


@pytest.mark.parametrize("levels", ["scale", "set_aside", "clip"])
@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_the_largest_floats_never_become_samples(tmp_path: Path, levels: str, rate: int, subtype: str) -> None:
    samples = np.array([3.4e38, -3.4e38] * (rate // 2)) * (1e200 if subtype == "DOUBLE" else 1)
    path = written(tmp_path, samples, rate, subtype=subtype)
    rules = AudioRules(levels=levels)
    if levels == "clip" and rate == 16000 and subtype == "FLOAT":
        assert set(read_pcm(path, 16000, rules).tolist()) == {-32768, 32767}
        return
    for reader in (read_pcm, lambda *arguments: list(read_blocks(*arguments))):
        with pytest.raises(UnreadableAudioError, match=r"not finite|reach"):
            reader(path, 16000, rules)


@pytest.mark.parametrize(
    ("place", "number", "reason"),
    [
        (24, struct.pack("<I", 1), "rate of 1 Hz .*audio.min_rate=1000"),
        (24, struct.pack("<I", 2**32 - 1), "rate of .*audio.max_rate=768000|not plausible|cannot be decoded"),
        (22, struct.pack("<H", 65535), "65535 channels .*audio.max_channels=64|cannot be decoded"),
    ],
)
def test_rates_and_channels_are_bounded(tmp_path: Path, place: int, number: bytes, reason: str) -> None:
    path = patched(written(tmp_path, np.tile(sine(300, 16000), 9), 16000), (place, number))
    for reader in (read_pcm, lambda *arguments: list(read_blocks(*arguments))):
        with pytest.raises(UnreadableAudioError, match=reason):
            reader(path, 16000)


def test_clips_may_last_as_long_as_the_rules_say(tmp_path: Path) -> None:
    for subtype in ("PCM_16", "PCM_24"):
        path = written(tmp_path, sine(300, 16000, 3), subtype=subtype)
        assert len(read_pcm(path, 16000, AudioRules(max_seconds=3))) == 48000
        with pytest.raises(UnreadableAudioError, match=r"audio\.max_seconds=2\.5"):
            read_pcm(path, 16000, AudioRules(max_seconds=2.5))
        assert sum(map(len, read_blocks(path, 16000, AudioRules(max_seconds=2.5)))) == 48000  # streams may be long
    path.write_bytes(3 * path.read_bytes())  # joined files count together
    with pytest.raises(UnreadableAudioError, match=r"audio\.max_seconds=8"):
        read_pcm(path, 16000, AudioRules(max_seconds=8))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min_rate", 0), ("max_rate", 500), ("max_channels", 1.5), ("max_seconds", 0), ("max_seconds", "long"),
        ("levels", "louder"), ("muted", True),
    ],
)  # fmt: skip
def test_wrong_rules_are_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{key} must be"):
        AudioRules(**{key: value})


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


def test_a_clip_of_one_value_is_known_as_muted(real_data: Path, tmp_path: Path) -> None:
    def muted(samples: np.ndarray, rate: int = 16000, **options: Any) -> bool:
        file = audio.AudioFile(written(tmp_path, samples, rate, **options), 16000)
        list(file.blocks())
        return file.muted

    assert muted(np.zeros(16000))
    assert muted(np.full(16000, 0.25))
    assert muted(np.full(44100, 0.25), 44100)
    assert muted(np.zeros((16000, 2)), subtype="FLOAT")
    late = np.zeros(16000)
    late[15000] = 1 / 32768
    assert not muted(late)
    assert not muted(speech(real_data))


@pytest.mark.parametrize(("begin", "codec"), [(b"\x7fFLAC\x01\0\0\x01fLaC", "FLAC"), (b"Speex   1.2rc1", "Speex")])
def test_a_codec_in_ogg_that_is_not_read_is_named(begin: bytes, codec: str, tmp_path: Path) -> None:
    """As ffmpeg and some recorders write it."""
    pages = [b"OggS\0" + bytes([flags]) + bytes(20) + bytes([1, 99]) + begin.ljust(99, b"\0") for flags in (2, 4)]
    (tmp_path / "a.ogg").write_bytes(b"".join(pages))
    for read in (read_header, lambda path: read_pcm(path, 16000)):
        with pytest.raises(UnreadableAudioError, match=f"{codec} in an Ogg container; convert it to FLAC or WAV"):
            read(tmp_path / "a.ogg")
