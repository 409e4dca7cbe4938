"""What is decoded from each container: cut, joined, with wrong sizes, and with other bytes before and behind."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_data.audio import UnreadableAudioError, read_blocks, read_header, read_pcm
from tests.kws_data.audio_files import apple_double, patched, read, refused, sine, speech, without_count, written


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


def test_a_resource_fork_beside_an_mp3_does_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path, sine(300, 16000), name="clip.mp3")
    expected = read(path)
    (tmp_path / "._clip.mp3").write_bytes(bytes.fromhex("00051607") + bytes(400))
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize(("begin", "codec"), [(b"\x7fFLAC\x01\0\0\x01fLaC", "FLAC"), (b"Speex   1.2rc1", "Speex")])
def test_a_codec_in_ogg_that_is_not_read_is_named(begin: bytes, codec: str, tmp_path: Path) -> None:
    """As ffmpeg and some recorders write it."""
    pages = [b"OggS\0" + bytes([flags]) + bytes(20) + bytes([1, 99]) + begin.ljust(99, b"\0") for flags in (2, 4)]
    (tmp_path / "a.ogg").write_bytes(b"".join(pages))
    for reader in (read_header, lambda path: read_pcm(path, 16000)):
        with pytest.raises(UnreadableAudioError, match=f"{codec} in an Ogg container; convert it to FLAC or WAV"):
            reader(tmp_path / "a.ogg")
