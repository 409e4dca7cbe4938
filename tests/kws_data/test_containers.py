"""Parts and cuts by the container alone; what is decoded from them is in test_audio_containers.py."""

from __future__ import annotations

import io
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_data.audio import UnreadableAudioError, read_header, read_pcm
from kws_data.containers.file_bytes import ContainerError, CutShortError
from kws_data.containers.parts import Part, find_parts


def written(container: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(16000) / 9), 16000, format=container, subtype=subtype)
    return file.getvalue()


def parts(content: bytes) -> list[Part]:
    return find_parts(io.BytesIO(content), len(content))


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "NIST"])
def test_a_whole_file_is_one_part(container: str) -> None:
    content = written(container)
    (part,) = parts(content)
    assert (part.start, part.end) == (0, len(content))
    assert not part.endless


@pytest.mark.parametrize("container", ["WAV", "AU", "FLAC", "OGG", "MP3"])
def test_joined_files_are_parts(container: str) -> None:
    content = written(container)
    bounds = [(part.start, part.end) for part in parts(3 * content)]
    assert bounds == [(number * len(content), (number + 1) * len(content)) for number in range(3)]


def test_only_an_mp3_without_a_count_is_endless() -> None:
    content = bytearray(written("MP3"))
    place = content.index(b"Info") if b"Info" in content else content.index(b"Xing")
    content[place : place + 4] = b"none"
    assert parts(bytes(content))[0].endless


def counted(frames: float, *, joined: int = 1, kept: float = 1.0, end: bytes = b"") -> np.ndarray:
    """The samples of an MP3 whose header counts so many times the frames that there are."""
    content = bytearray(written("MP3"))
    place = max(content.find(b"Info"), content.find(b"Xing")) + 8
    count = int.from_bytes(content[place : place + 4], "big")
    content[place : place + 4] = int(frames * count).to_bytes(4, "big")
    return pcm_of(bytes(joined * content)[: int(kept * joined * len(content))] + end)


def pcm_of(content: bytes) -> np.ndarray:
    with tempfile.NamedTemporaryFile(suffix=".mp3") as file:
        file.write(content)
        file.flush()
        pcm = read_pcm(Path(file.name), 16000)
        assert read_header(Path(file.name)).num_samples == len(pcm)
    return pcm


@pytest.mark.parametrize("frames", [0.05, 0.3, 0.99, 1.1, 3, 100_000])
@pytest.mark.parametrize("end", [b"", b"TAG" + bytes(125), bytes(300)])
def test_a_wrong_count_of_frames_in_an_mp3_costs_no_sample(frames: float, end: bytes) -> None:
    right = counted(1)
    assert len(right) == 16000
    np.testing.assert_array_equal(counted(frames, end=end), right)
    np.testing.assert_array_equal(counted(frames, joined=2), np.tile(right, 2))


@pytest.mark.parametrize("frames", [0.05, 0.5, 1])
def test_bytes_of_no_use_behind_an_mp3_hide_no_sample(frames: float) -> None:
    np.testing.assert_array_equal(counted(frames, end=b"appended by some program" * 9), counted(1))


def test_zeros_inside_an_mp3_are_not_its_end() -> None:
    """As a bad sector leaves them: the rest was left out without a word."""
    content = bytearray(written("MP3"))
    middle = len(content) // 2
    content[middle : middle + 600] = bytes(600)
    with tempfile.NamedTemporaryFile(suffix=".mp3") as file:
        file.write(content)
        file.flush()
        with pytest.raises(UnreadableAudioError, match=r"cut short|cannot be decoded"):
            read_pcm(Path(file.name), 16000)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("kept", [0.5, 0.9, 0.999])
def test_an_mp3_that_ends_before_its_count_is_cut(frames: float, kept: float) -> None:
    with pytest.raises(UnreadableAudioError, match="cut short"):
        counted(frames, kept=kept)


def test_a_second_chunk_of_samples_is_not_left_out_without_a_word() -> None:
    content = written("WAV", "PCM_16")
    content += content[36:]
    content = content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
    with pytest.raises(ContainerError, match="a second chunk of samples"):
        parts(content)


def test_the_samples_of_a_plain_wav_need_no_decoder() -> None:
    (part,) = parts(written("WAV", "PCM_16"))
    assert part.plain == 44
    assert part.length == (16000, 16000)
    assert parts(written("WAV", "PCM_24"))[0].plain is None


def test_an_ogg_file_without_its_last_page_is_cut() -> None:
    content = written("OGG")
    with pytest.raises(CutShortError, match="marked as the last"):
        parts(content[: content.rindex(b"OggS")])


@pytest.mark.parametrize("name", [b"RIFF", b"FORM", b"caff"])
def test_a_file_of_empty_chunks_ends(name: bytes) -> None:
    chunk = b"junk" + bytes(8 if name == b"caff" else 4)
    head = name + struct.pack("<I", 0) + (b"" if name == b"caff" else b"WAVE")
    assert len(parts(head + 1_000_000 * chunk)) == 1


def test_chunks_of_negative_size_end_the_search() -> None:
    assert len(parts(b"caff\0\1\0\0" + b"junk" + struct.pack(">q", -12) + bytes(100))) == 1


def test_random_bytes_behind_any_beginning_are_parts_or_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for container in ("WAV", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "NIST"):
        head = written(container)
        for kept in range(4, 120, 7):
            content = head[:kept] + rng.bytes(3000)
            try:
                found = parts(content)
            except CutShortError:
                continue
            assert found[-1].end == len(content)
            assert all(part.start < part.end for part in found)
