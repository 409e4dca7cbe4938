"""What stands behind a file's samples, as programs, taggers and cut downloads leave it, is not heard; samples are."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from kws_data.audio import read_header, read_pcm
from tests.kws_data.audio_files import read, sine, speech, written

NOISE = np.random.default_rng(0).bytes(20_000)  # such as a picture
SIZES = ["right", "of the file", "before the chunks", 0, 36, 0xFFFFFFFF]  # that WAV files give for themselves
FORMAT = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)


def chunk(name: bytes, content: bytes, order: str = "<", size: int | None = None, fill: bytes = b"\0") -> bytes:
    size = len(content) if size is None else size
    return name + struct.pack(f"{order}I", size) + content + (fill if len(content) & 1 else b"")


COMMENTS = b"INFO" + b"".join(chunk(b"ICMT", b"comment number %d" % index) for index in range(10))


def wav(
    samples: bytes, behind: bytes = b"", whole: int | str = "right", size: int | None = None, fmt: bytes = FORMAT
) -> bytes:
    size = len(samples) if size is None else size
    before = b"WAVE" + chunk(b"fmt ", fmt) + b"data" + struct.pack("<I", size) + samples
    sizes = {
        "right": len(before + behind),
        "of the file": len(before + behind) + 8,
        "before the chunks": len(before),
    }
    return b"RIFF" + struct.pack("<I", sizes[whole] if isinstance(whole, str) else whole) + before + behind


def file_of(folder: Path, content: bytes) -> Path:
    (folder / "clip.wav").write_bytes(content)
    return folder / "clip.wav"


def check(path: Path, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(read(path), expected)
    assert read_header(path).num_samples == len(expected)


@pytest.fixture(scope="module")
def samples(real_data: Path) -> np.ndarray:
    return speech(real_data)


BEHIND = {
    "tags": chunk(b"id3 ", b"ID3\4" + bytes(2000) + NOISE),
    "named with a zero": chunk(b"id3\0", NOISE),
    "XMP": chunk(b"_PMX", b"<rdf:li/>" * 1000),
    "peaks": chunk(b"levl", NOISE[:9000]),
    "unknown": chunk(b"odd ", NOISE[:2001]),
    "zeros": chunk(b"JUNK", bytes(5000)),
    "markers": chunk(b"LIST", b"adtl" + chunk(b"labl", b"\1\0\0\0ab") * 500),
    "two, the first not filled up": chunk(b"LIST", COMMENTS + b"x", fill=b"") + chunk(b"id3 ", NOISE),
    "two, behind zeros": bytes(300) + chunk(b"LIST", COMMENTS) + chunk(b"id3 ", NOISE),
    "cut": chunk(b"LIST", COMMENTS)[:-20],
    "cut tags": chunk(b"id3 ", NOISE)[:-3000],
}


@pytest.mark.parametrize("whole", SIZES)
@pytest.mark.parametrize("behind", BEHIND)
def test_chunks_behind_samples_are_none(tmp_path: Path, samples: np.ndarray, behind: str, whole: int | str) -> None:
    check(file_of(tmp_path, wav(samples.tobytes(), BEHIND[behind], whole)), samples)


@pytest.mark.parametrize("whole", SIZES)
def test_a_file_inside_a_chunk_is_not_heard(tmp_path: Path, samples: np.ndarray, whole: int | str) -> None:
    inside = written(tmp_path, samples[::-1], name="inside.wav").read_bytes()
    check(file_of(tmp_path, wav(samples.tobytes(), chunk(b"bkup", inside), whole)), samples)


@pytest.mark.parametrize("wrong", [-8, -2, 2, 4, 12])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("whole", SIZES)
def test_chunks_of_wrong_sizes_are_no_samples(
    tmp_path: Path, samples: np.ndarray, whole: int | str, last: bool, wrong: int
) -> None:
    behind = chunk(b"LIST", COMMENTS, size=len(COMMENTS) + wrong) + (b"" if last else chunk(b"id3 ", NOISE))
    check(file_of(tmp_path, wav(samples.tobytes(), behind, whole)), samples)


@pytest.mark.parametrize("size", [0, 100, 0xFFFFFFFF])
@pytest.mark.parametrize("behind", ["tags", "markers", "ID3v1"])
def test_chunks_behind_samples_of_an_unknown_size_are_none(
    tmp_path: Path, samples: np.ndarray, size: int, behind: str
) -> None:
    content = wav(samples.tobytes(), BEHIND.get(behind, b"TAG" + bytes(125)), size=size)
    check(file_of(tmp_path, content), samples)


@pytest.mark.parametrize("whole", [0, "size"])
@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU"])
def test_silence_behind_a_stale_size_hides_nothing(
    tmp_path: Path, samples: np.ndarray, kind: str, whole: int | str
) -> None:
    said = np.concatenate([samples, np.zeros(2048, np.int16), samples])
    content = bytearray(written(tmp_path, said, format=kind).read_bytes())
    place = 8 if kind == "AU" else content.index(b"SSND" if kind == "AIFF" else b"data") + 4
    order = "<" if kind == "WAV" else ">"
    size = struct.unpack_from(f"{order}I", content, place)[0] - 2 * (len(said) - len(samples))
    struct.pack_into(f"{order}I", content, place, size)
    if kind != "AU":
        struct.pack_into(f"{order}I", content, 4, 0 if whole == 0 else place + 4 + size - 8)
    check(file_of(tmp_path, bytes(content)), said)


TEXTS = {
    "UTF-8": "gesagt von Jürgen\n".encode() * 400, "UTF-16": ("gesagt von Jürgen\n" * 400).encode("utf-16"),
    "short": "gesagt von Jürgen\n".encode() * 8, "behind zeros": bytes(3) + b"said by Anna\n" * 10,
    "tag behind zeros": bytes(1000) + b"TAG" + bytes(125), "picture": b"\x89PNG\r\n\x1a\n" + bytes(range(50, 90)) * 400,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "CAF", "NIST", "W64", "SVX"])
@pytest.mark.parametrize("behind", TEXTS)
def test_text_and_pictures_behind_samples_are_none(tmp_path: Path, samples: np.ndarray, kind: str, behind: str) -> None:
    content = written(tmp_path, samples, format=kind).read_bytes()
    check(file_of(tmp_path, content + TEXTS[behind]), samples)


def test_a_chunk_of_wave64_behind_a_wrong_size_of_the_whole_is_no_sample(tmp_path: Path, samples: np.ndarray) -> None:
    name = bytes.fromhex("6c6973742f91cf11a5d628db04c10000")
    content = written(tmp_path, samples, format="W64").read_bytes() + name + struct.pack("<Q", 3024) + NOISE[:3000]
    check(file_of(tmp_path, content), samples)
    check(file_of(tmp_path, content[:16] + bytes(8) + content[24:]), samples)


@pytest.mark.parametrize("kind", ["AIFF", "SVX", "CAF"])
@pytest.mark.parametrize("cut", [0, 1000])
def test_chunks_behind_samples_of_other_containers_are_none(
    tmp_path: Path, samples: np.ndarray, kind: str, cut: int
) -> None:
    content = written(tmp_path, samples, format=kind).read_bytes()
    if kind == "CAF":
        behind = b"info" + struct.pack(">q", 3000) + NOISE[: 3000 - cut]
    else:
        behind = chunk(b"ANNO", b"abc", ">", fill=b"") + chunk(b"ID3 ", NOISE, ">")[: 20_008 - cut]
        content = content[:4] + struct.pack(">I", len(content + behind) - 8) + content[8:]
    check(file_of(tmp_path, content + behind), samples)


@pytest.mark.parametrize("size", [0x7F000008, 0x7FFF0008])
def test_aiff_from_sox_to_a_pipe_is_read(tmp_path: Path, samples: np.ndarray, size: int) -> None:
    content = bytearray(written(tmp_path, samples, format="AIFF").read_bytes())
    struct.pack_into(">I", content, 4, size + 46)
    struct.pack_into(">I", content, content.index(b"SSND") + 4, size)
    check(file_of(tmp_path, bytes(content)), samples)


@pytest.mark.parametrize("after", ["WAV", "FLAC"])
@pytest.mark.parametrize("kind", ["WAV", "CAF"])
def test_a_file_behind_an_odd_number_of_bytes_is_not_lost(tmp_path: Path, kind: str, after: str) -> None:
    """Python's `wave` leaves out the byte that fills it up, and CAF has none."""
    one = written(
        tmp_path, sine(300, 16000)[:15999], name="one.wav", format=kind, subtype="PCM_U8" if kind == "WAV" else "PCM_S8"
    )
    other = written(tmp_path, sine(700, 16000), name="other.wav", format=after)
    expected = np.concatenate([read(one), read(other)])
    content = one.read_bytes()
    place = content.rindex(b"data") + (8 if kind == "WAV" else 16)
    check(file_of(tmp_path, content[: place + 15999] + other.read_bytes()), expected)


def test_many_chunks_behind_samples_of_an_unknown_size_cost_no_time(tmp_path: Path, samples: np.ndarray) -> None:
    """Each could begin the chain of chunks that ends with the file."""
    behind = 20_000 * chunk(b"JUNK", b"") + b"x"
    assert len(read(file_of(tmp_path, wav(samples.tobytes(), behind, size=0xFFFFFFFF)))) > len(samples)


PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")


@pytest.mark.parametrize(("bits", "valid"), [(20, None), (24, None), (24, 22), (32, 24)])
def test_samples_of_24_bits_in_32_are_read(tmp_path: Path, samples: np.ndarray, bits: int, valid: int | None) -> None:
    fmt = struct.pack("<HHIIHH", 1 if valid is None else 0xFFFE, 1, 16000, 64000, 4, bits)
    fmt += b"" if valid is None else struct.pack("<HHI", 22, valid, 4) + PCM_GUID
    check(file_of(tmp_path, wav((samples.astype("<i4") << 16).tobytes(), fmt=fmt)), samples)


@pytest.mark.parametrize("behind", [b"", chunk(b"LIST", COMMENTS)])
def test_an_odd_number_of_gsm_blocks_has_no_samples_of_what_is_behind(
    tmp_path: Path, samples: np.ndarray, behind: bytes
) -> None:
    """libsndfile decodes one block more, of what stands there."""
    path = written(tmp_path, samples[:8000], 8000, name="gsm.wav", subtype="GSM610")
    content = path.read_bytes()
    even, odd = 320 * 26, 320 * 25
    assert len(content) == 60 + 25 * 65 + 1
    content = content[:4] + struct.pack("<I", len(content + behind) - 8) + content[8:] + behind
    found, header = read_pcm(file_of(tmp_path, content), 8000), read_header(tmp_path / "clip.wav")
    assert len(found) == header.num_samples == odd
    twice = written(tmp_path, samples[:even], 8000, name="even.wav", subtype="GSM610")
    np.testing.assert_array_equal(found, read_pcm(twice, 8000)[:odd])
