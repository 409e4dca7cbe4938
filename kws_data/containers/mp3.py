"""Frames, tags and counts of MP3 files."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from kws_data.containers.file_bytes import PADDING, Bytes, ContainerError, after_zeros

_MOST_TAGS = 100  # before the audio, so that a file of nothing but tags costs no time
_MP3_FRAMES = 4  # in a row, so that an MP3 begins there: chance gives so many headers in 1e17 bytes
# A frame without audio that counts the frames after it: MPEG header, side information (perhaps a checksum), name.
MP3_COUNT = re.compile(rb"\xff[\xe2-\xff].{2}(?:.{9}|.{11}|.{17}|.{19}|.{32}|.{34})(?:Xing|Info)(.{12})", re.DOTALL)
MP3_END = re.compile(rb"TAG|APETAGEX|LYRICSBE|ID3")
_MP3_RATES = (44100, 48000, 32000)  # Hz, of MPEG 1; half of it in MPEG 2, a quarter in 2.5
_MP3_BIT_RATES = (  # kbit/s, of MPEG 2, of MPEG 1, and of its layer II
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
)


class Mp3Count(NamedTuple):
    """What the first frame of an MP3 says of the others, and where it does."""

    position: int
    offset: int  # of the number of frames
    frames: int
    size: int

    def repairs(self, source: Bytes, end: int) -> tuple[tuple[int, bytes], ...]:
        """The number of frames that there are, if another one is given, unless the file was cut short or damaged."""
        frames, whole = _mp3_frames(source, self.position, end)
        present = frames - 1
        cut = present < self.frames and not (whole and 0 < self.size <= end - self.position)
        if present == self.frames or cut:
            return ()
        return ((self.position + self.offset, present.to_bytes(4, "big")),)


def _mp3_frames(source: Bytes, position: int, end: int) -> tuple[int, bool]:
    """How many frames follow each other, and whether nothing but zeros and tags follow them up to `end`."""
    count = 0
    while position < end and (size := mp3_frame_bytes(source.at(position, 3))):
        position += size
        count += position <= end
    position = after_zeros(source, position)
    return count, position >= end or MP3_END.match(source.at(position, 8)) is not None


@functools.lru_cache(1000)  # a file has few different headers
def mp3_frame_bytes(head: bytes) -> int:
    """The size of a frame with this header; 0 for anything but layers II and III, and where no bit rate is given."""
    bits = int.from_bytes(head.ljust(3, b"\0"), "big")
    version, layer, bit_rate, rate = bits >> 11 & 3, bits >> 9 & 3, bits >> 4 & 15, bits >> 2 & 3
    if bits >> 13 != 0x7FF or version == 1 or layer not in (1, 2) or bit_rate in (0, 15) or rate == 3:
        return 0
    is_first, is_two = version == 3, layer == 2
    hertz = _MP3_RATES[rate] >> (0 if is_first else 1 if version == 2 else 2)
    samples = 1152 if is_first or is_two else 576
    return samples * 125 * _MP3_BIT_RATES[is_first + (is_first and is_two)][bit_rate - 1] // hertz + (bits >> 1 & 1)


def mp3_begins(source: Bytes, position: int) -> bool:
    """Whether so many frames of one kind follow each other there, perhaps behind a tag."""
    if source.at(position, 3) == b"ID3":
        position = after_tag(source, position, PADDING)
    kinds = set()
    for _ in range(_MP3_FRAMES):
        head = source.at(position, 3)
        size = mp3_frame_bytes(head)
        if not size:
            return False
        kinds.add((head[1] & 0xFE, head[2] & 0x0C))  # version and layer, rate
        position += size
    return len(kinds) == 1


def after_tag(source: Bytes, position: int, most_zeros: int | None = None) -> int:
    """The position after ID3 tags, and after the zeros that follow some: all of them, or about `most_zeros`."""
    for _ in range(_MOST_TAGS):
        tag = source.at(position, 10)
        if tag[:3] != b"ID3" or len(tag) < 10:
            return position
        position += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        position = after_zeros(source, position, most_zeros)
    raise ContainerError(f"{_MOST_TAGS} or more ID3 tags follow each other")


def is_mp3_frame(source: Bytes, position: int) -> bool:
    """Whether the header of an MPEG frame is there: none of its fields has a value without a meaning."""
    head = int.from_bytes(source.at(position, 4).ljust(4, b"\0"), "big")
    version, layer, bit_rate, rate = head >> 19 & 3, head >> 17 & 3, head >> 12 & 15, head >> 10 & 3
    return head >> 21 == 0x7FF and version != 1 and layer != 0 and bit_rate != 15 and rate != 3
