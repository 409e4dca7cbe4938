"""Files that consist of several, of one kind or of different ones: every part is read, or the file is refused."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kws_data.audio import read_header
from kws_data.containers.file_bytes import ContainerError, CutShortError
from kws_data.containers.parts import find_parts
from tests.kws_data.audio_files import patched, read, refused, sine, speech, without_count, written

KINDS: dict[str, dict[str, Any]] = {
    "wav": {}, "float": {"format": "WAV", "subtype": "FLOAT"}, "adpcm": {"format": "WAV", "subtype": "IMA_ADPCM"},
    "rifx": {"format": "WAV", "endian": "BIG"}, "rf64": {"format": "RF64"}, "w64": {"format": "W64"},
    "aiff": {"format": "AIFF"}, "svx": {"format": "SVX"}, "caf": {"format": "CAF"}, "au": {"format": "AU"},
    "snd": {"format": "AU", "endian": "LITTLE"}, "nist": {"format": "NIST"}, "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG"}, "opus": {"format": "OGG", "subtype": "OPUS"}, "mp3": {"format": "MP3"},
}  # fmt: skip
TAG = b"TAG" + bytes(125)
LIST = b"LIST" + struct.pack("<I", 4) + b"INFO"


def joined(folder: Path, *parts: bytes, name: str = "joined.wav") -> Path:
    (folder / name).write_bytes(b"".join(parts))
    return folder / name


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


def test_an_mp3_without_a_count_after_one_with_a_count_is_not_lost(tmp_path: Path) -> None:
    first = written(tmp_path, sine(300, 16000), name="first.mp3")
    second = written(tmp_path, sine(700, 16000), name="second.mp3")
    second.write_bytes(without_count(second.read_bytes()))
    joined = tmp_path / "joined.mp3"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    np.testing.assert_array_equal(read(joined), np.concatenate([read(first), read(second)]))


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("between", [b"", bytes(100), TAG], ids=["nothing", "zeros", "tag"])
def test_a_file_of_any_kind_behind_one_of_another_is_read(
    real_data: Path, tmp_path: Path, first: str, between: bytes
) -> None:
    before = written(tmp_path, speech(real_data), name="before.wav", **KINDS[first])
    for second, options in KINDS.items():
        after = written(tmp_path, speech(real_data)[::-1], name="after.wav", **options)
        path = joined(tmp_path, before.read_bytes(), between, after.read_bytes())
        np.testing.assert_array_equal(read(path), np.concatenate([read(before), read(after)]), second)
        assert read_header(path).num_samples == len(read(path)), second


@pytest.mark.parametrize("kind", ["VOC", "MAT5", "PVF", "XI"])
def test_a_file_that_is_not_read_behind_one_that_is_refuses_both(tmp_path: Path, kind: str) -> None:
    subtype = "DPCM_16" if kind == "XI" else "PCM_16"
    after = written(tmp_path, sine(300, 16000), name="after.wav", format=kind, subtype=subtype).read_bytes()
    before = written(tmp_path, sine(300, 16000), name="before.wav")
    assert f"kind {kind}" in refused(joined(tmp_path, before.read_bytes(), after))


@pytest.mark.parametrize("after", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(("size", "riff_size"), [(0, 0), (0, 36), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF000, 0x7FFFF024)])
def test_what_follows_a_recording_without_a_size_is_a_file_of_its_own(
    tmp_path: Path, after: str, size: int, riff_size: int
) -> None:
    """A recorder that was stopped, or one that wrote to a pipe."""
    before = written(tmp_path, sine(300, 16000), name="before.wav", subtype="PCM_16")
    other = written(tmp_path, sine(700, 48000), 48000, name="other.wav", **({"format": "WAV"} | KINDS[after]))
    expected = np.concatenate([read(before), read(other)])
    patched(before, (4, struct.pack("<I", riff_size)), (40, struct.pack("<I", size)))
    np.testing.assert_array_equal(read(joined(tmp_path, before.read_bytes(), other.read_bytes())), expected)


@pytest.mark.parametrize("after", ["wav", "flac", "mp3"])
def test_chunks_between_two_files_hide_neither(tmp_path: Path, after: str) -> None:
    before = written(tmp_path, sine(300, 16000), name="before.wav", subtype="PCM_16")
    other = written(tmp_path, sine(700, 16000), name="other.wav", **({"format": "WAV"} | KINDS[after]))
    expected = np.concatenate([read(before), read(other)])
    before.write_bytes(before.read_bytes() + LIST)
    patched(before, (4, struct.pack("<I", before.stat().st_size - 8)))
    np.testing.assert_array_equal(read(joined(tmp_path, before.read_bytes(), other.read_bytes())), expected)


@pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0\0\0\x01\x48" + bytes(200)], ids=["bare", "tagged"])
@pytest.mark.parametrize("before", ["wav", "flac", "ogg", "nist"])
def test_an_mp3_without_a_count_is_found_behind_any_file(tmp_path: Path, before: str, tag: bytes) -> None:
    first = written(tmp_path, sine(300, 16000), name="first.wav", **({"format": "WAV"} | KINDS[before]))
    second = written(tmp_path, sine(700, 16000), name="second.mp3")
    second.write_bytes(tag + without_count(second.read_bytes()))
    path = joined(tmp_path, first.read_bytes(), second.read_bytes())
    np.testing.assert_array_equal(read(path), np.concatenate([read(first), read(second)]))


def test_a_wav_header_that_a_flac_file_keeps_is_no_file(tmp_path: Path) -> None:
    """As `flac --keep-foreign-metadata` keeps it, in an APPLICATION block."""
    path = written(tmp_path, sine(300, 16000), name="clip.flac")
    expected, content = read(path), path.read_bytes()
    wav = written(tmp_path, sine(300, 16000), name="clip.wav").read_bytes()
    block = b"riff" + wav[:60]
    kept = b"\x02" + len(block).to_bytes(3, "big") + block
    patched(path, (4, b"\0"))  # STREAMINFO is not the last block
    content = path.read_bytes()
    path.write_bytes(content[:42] + kept + content[42:])
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("count", [15999, 16001, 16003])
@pytest.mark.parametrize("after", ["wav", "flac"])
def test_wave64_of_any_length_hides_nothing_behind_it(tmp_path: Path, count: int, after: str) -> None:
    """Its last chunk is not filled up to 8 bytes."""
    before = written(tmp_path, sine(300, 16000, count / 16000), name="before.wav", format="W64")
    other = written(tmp_path, sine(700, 16000), name="other.wav", **({"format": "WAV"} | KINDS[after]))
    path = joined(tmp_path, before.read_bytes(), other.read_bytes())
    np.testing.assert_array_equal(read(path), np.concatenate([read(before), read(other)]))


@pytest.mark.parametrize("between", [TAG, bytes(500), b"LYRICSBEGIN" + b"x" * 100, b"APETAGEX" + bytes(24)])
def test_tags_between_an_mp3_with_a_count_and_one_without_hide_neither(tmp_path: Path, between: bytes) -> None:
    first = written(tmp_path, sine(300, 16000), name="first.mp3")
    second = written(tmp_path, sine(700, 16000), name="second.mp3")
    second.write_bytes(without_count(second.read_bytes()))
    path = joined(tmp_path, first.read_bytes(), between, second.read_bytes(), name="joined.mp3")
    np.testing.assert_array_equal(read(path), np.concatenate([read(first), read(second)]))


def chunk_behind(path: Path, kind: str, content: bytes) -> Path:
    """The file with a chunk behind its samples, and its own size made right."""
    size = len(content)
    if kind == "w64":
        name = b"junk" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
        filled = content + bytes(-size % 8)
        path.write_bytes(path.read_bytes() + name + struct.pack("<Q", 24 + size) + filled)
        return patched(path, (16, struct.pack("<Q", path.stat().st_size)))
    if kind == "caf":
        path.write_bytes(path.read_bytes() + b"free" + struct.pack(">q", size) + content)
        return path
    order = ">" if kind == "aiff" else "<"
    path.write_bytes(path.read_bytes() + b"junk" + struct.pack(f"{order}I", size) + content)
    whole = path.stat().st_size - 8
    if kind == "rf64":
        return patched(path, (path.read_bytes().index(b"ds64") + 8, struct.pack("<Q", whole)))
    return patched(path, (4, struct.pack(f"{order}I", whole)))


@pytest.mark.parametrize("kind", ["wav", "rf64", "w64", "aiff", "caf"])
@pytest.mark.parametrize("inside", ["text", "wav", "mp3"])
def test_what_a_chunk_behind_the_samples_holds_is_no_file(
    real_data: Path, tmp_path: Path, kind: str, inside: str
) -> None:
    path = written(tmp_path, speech(real_data), name="clip.wav", **({"format": "WAV"} | KINDS[kind]))
    expected = read(path)
    content = (
        b"notes" * 2400 if inside == "text" else written(tmp_path, sine(300, 16000), name=f"in.{inside}").read_bytes()
    )
    np.testing.assert_array_equal(read(chunk_behind(path, kind, content)), expected)


def test_headers_in_many_blocks_of_a_flac_file_are_no_files(tmp_path: Path) -> None:
    path = written(tmp_path, sine(300, 16000), name="clip.flac")
    expected, wav = read(path), written(tmp_path, sine(300, 16000), name="clip.wav").read_bytes()
    block = b"riff" + wav[:44]
    patched(path, (4, b"\0"))
    content = path.read_bytes()
    path.write_bytes(content[:42] + 300 * (b"\x02" + len(block).to_bytes(3, "big") + block) + content[42:])
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("amplitude", [3500, 3511, 20000])
@pytest.mark.parametrize("frequency", [800, 1000, 2000, 400])
def test_a_tone_in_a_recording_without_a_size_is_no_mp3(tmp_path: Path, amplitude: int, frequency: int) -> None:
    """Its bytes repeat, so that what looks like a header does so often, at distances that fit."""
    tone = np.rint(amplitude * np.sin(2 * np.pi * frequency * np.arange(8000) / 16000)).astype(np.int16)
    path = written(tmp_path, tone, subtype="PCM_16")
    patched(path, (4, b"\xff" * 4), (40, b"\xff" * 4))
    np.testing.assert_array_equal(read(path), tone)


@pytest.mark.parametrize("missing", [80, 1500, 14_000])
@pytest.mark.parametrize("agree", [False, True], ids=["of two that differ", "of two that agree"])
@pytest.mark.parametrize("kind", ["wav", "rifx", "aiff", "float"])
def test_a_size_that_is_too_small_costs_no_sample(
    real_data: Path, tmp_path: Path, kind: str, agree: bool, missing: int
) -> None:
    """A recorder that wrote its header now and then, and was stopped."""
    samples = speech(real_data)
    path = written(tmp_path, samples, **({"format": "WAV"} | KINDS[kind]))
    expected, content = read(path), path.read_bytes()
    place = content.index(b"SSND" if kind == "aiff" else b"data") + 4
    order = "<" if kind in ("wav", "float") else ">"
    left_out = missing * (len(content) - place) // len(samples) // 4 * 4
    size = struct.unpack(f"{order}I", content[place : place + 4])[0] - left_out
    whole = len(content) - 8 - (left_out if agree else left_out + 400)
    patched(path, (place, struct.pack(f"{order}I", size)), (4, struct.pack(f"{order}I", whole)))
    if agree and left_out <= 4096:  # may be anything
        expected = expected[: -(left_out * len(samples) // (len(content) - place))]
        assert abs(len(read(path)) - len(expected)) < 8
    else:
        np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("kind", ["au", "w64", "nist"])
@pytest.mark.parametrize("kept", [1000, 14_500])
def test_a_size_without_a_second_one_that_is_too_small_costs_no_sample(
    real_data: Path, tmp_path: Path, kind: str, kept: int
) -> None:
    samples = speech(real_data)
    path = written(tmp_path, samples, **({"format": "WAV"} | KINDS[kind]))
    content = path.read_bytes()
    kept_bytes = kept * 2
    place, small = {
        "au": (b"\0\0\0\x18", struct.pack(">I", kept_bytes)),
        "w64": (bytes.fromhex("64617461f3acd3118cd100c04f8edb8a"), struct.pack("<Q", kept_bytes + 24)),
        "nist": (b"sample_count -i ", f"{kept}".ljust(5).encode()),
    }[kind]
    position = content.index(place) + len(place)
    patched(path, (position, small), *([(16, struct.pack("<Q", kept_bytes + 104))] if kind == "w64" else []))
    np.testing.assert_array_equal(read(path), samples)


NO_SAMPLES = {
    "zeros": bytes(9000), "text": b"said by <Anna>, take 2\r\n" * 400, "random": np.random.default_rng(0).bytes(20_000),
    "tag": b"ID3\x04\0\0\0\x01\0\0" + np.random.default_rng(1).bytes(16384),
    "ape": b"APETAGEX" + bytes(24) + np.random.default_rng(2).bytes(9000),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["wav", "aiff"])
@pytest.mark.parametrize("behind", NO_SAMPLES)
def test_what_is_no_audio_behind_a_whole_file_is_no_sample(
    real_data: Path, tmp_path: Path, kind: str, behind: str
) -> None:
    path = written(tmp_path, speech(real_data), **({"format": "WAV"} | KINDS[kind]))
    expected = read(path)
    path.write_bytes(path.read_bytes() + NO_SAMPLES[behind])
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("kind", ["wav", "rifx", "rf64", "aiff"])
@pytest.mark.parametrize("wrong", [0, 36, 20_000, 0xFFFFFFFF])
def test_a_chunk_behind_the_samples_is_one_whatever_the_size_of_the_file(
    real_data: Path, tmp_path: Path, kind: str, wrong: int
) -> None:
    """Here it holds a file, whose samples would be heard."""
    path = written(tmp_path, speech(real_data), name="clip.wav", **({"format": "WAV"} | KINDS[kind]))
    expected = read(path)
    chunk_behind(
        path, "aiff" if kind == "rifx" else kind, written(tmp_path, sine(300, 16000), name="in.wav").read_bytes()
    )
    if kind == "rf64":
        patched(path, (path.read_bytes().index(b"ds64") + 8, struct.pack("<Q", wrong)))
    else:
        patched(path, (4, struct.pack("<I" if kind == "wav" else ">I", wrong)))
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("after", ["wav", "flac"])
def test_a_size_of_the_whole_that_takes_in_another_file_hides_it_not(tmp_path: Path, after: str) -> None:
    first = written(tmp_path, sine(300, 16000), name="first.wav")
    second = written(tmp_path, sine(700, 16000), name="second.wav", **({"format": "WAV"} | KINDS[after]))
    expected = np.concatenate([read(first), read(second)])
    path = joined(tmp_path, first.read_bytes(), second.read_bytes())
    patched(path, (4, struct.pack("<I", path.stat().st_size - 8)))
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("padded", [True, False])
def test_a_chunk_behind_an_odd_number_of_bytes_is_no_sample(tmp_path: Path, padded: bool) -> None:
    """With the byte that fills it up, and from writers that leave it out."""
    path = written(tmp_path, sine(300, 8000)[:7999], 8000, subtype="PCM_U8")
    expected = read(path)
    content = path.read_bytes()[: 44 + 7999]
    path.write_bytes(content + (b"\0" if padded else b"") + b"LIST" + struct.pack("<I", 204) + b"INFO" + bytes(200))
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize(
    "content",
    [
        20_000 * (b"OggS\0\2" + bytes(20) + b"\0" + b"x"),
        20_000 * b"OggS\0\2",
        b"RIFF" + struct.pack("<I", 36) + b"WAVE" + 300 * (b"ID3\4\0\0\0\0\0\0" + bytes(30_000)),
        2_000_000 * b"\xff",
    ],
    ids=["Ogg pages", "Ogg names", "tags and zeros", "ones"],
)
def test_looking_for_files_ends_soon(content: bytes) -> None:
    """The first took longer than a test may."""
    with contextlib.suppress(ContainerError, CutShortError):
        find_parts(io.BytesIO(content), len(content))


def test_many_short_files_are_found_at_once(tmp_path: Path) -> None:
    wav = written(tmp_path, sine(300, 16000, 0.1), name="short.wav").read_bytes()
    content = 3000 * wav
    assert len(find_parts(io.BytesIO(content), len(content))) == 3000


@pytest.mark.parametrize("between", [b"", TAG])
@pytest.mark.parametrize(("rate", "channels"), [(48000, 1), (16000, 2), (22050, 2)])
def test_mp3_files_without_counts_of_another_rate_or_of_more_channels_are_parts(
    tmp_path: Path, rate: int, channels: int, between: bytes
) -> None:
    first, second = tmp_path / "first.mp3", tmp_path / "second.mp3"
    for path, hertz, count in ((first, 16000, 1), (second, rate, channels)):
        written(tmp_path, np.stack(count * [sine(300, hertz)], axis=1), hertz, name=path.name)
        content = path.read_bytes()
        begin = content.index(content[:2], 4)  # behind the frame that counts the others
        path.write_bytes(content[begin:])
    path = joined(tmp_path, first.read_bytes(), between, second.read_bytes(), name="joined.mp3")
    np.testing.assert_array_equal(read(path), np.concatenate([read(first), read(second)]))


@pytest.mark.parametrize("before", ["wav", "flac", "ogg"])
def test_mpeg_layer_two_is_found_behind_any_file(tmp_path: Path, before: str) -> None:
    """Frames of silence: no library here writes them. 16 kHz, 32 kbit/s, mono: 1152 samples in 288 bytes."""
    frame = b"\xff\xf5\x48\xc0" + bytes(284)
    second = tmp_path / "second.mp3"
    second.write_bytes(20 * frame)
    assert len(read(second)) >= 18 * 1152
    first = written(tmp_path, sine(300, 16000), name="first.wav", **({"format": "WAV"} | KINDS[before]))
    path = joined(tmp_path, first.read_bytes(), second.read_bytes())
    np.testing.assert_array_equal(read(path), np.concatenate([read(first), read(second)]))
