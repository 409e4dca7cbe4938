"""What an audio file's container says before anything is decoded: whether it was cut short, and its parts.

libsndfile reads a WAV, AIFF or Ogg file that was cut short as a shorter one, decodes the first of several files that
were joined, takes a data size of 0 (a recorder that was stopped) for no samples, and stops an MP3 without a count of
its frames where it estimates its end. The kind of file is found by its first bytes, as suffixes may be wrong.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO, NamedTuple

# FLAC packs silence as blocks of up to 65,535 samples in some 14 bytes. A header with more samples is wrong.
MOST_SAMPLES_PER_BYTE = 5000

_STREAMED_BYTES = 0x7FFFF000  # as sox writes to a pipe; ffmpeg writes 0xFFFFFFFF
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_REST = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of the names of all other chunks, after their four letters
_READ_BYTES = 1 << 20
_LONGEST_PATTERN = 64
_KEPT_BYTES = 4096
_PADDING = 4096  # bytes after the samples that are no chunk: more are samples that a wrong size left out
_MOST_CHUNKS = 10_000  # so that a file of nothing but empty chunks costs no time
_MOST_TAGS = 100  # likewise of tags before the audio
_FLAC_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # and the header of STREAMINFO
_FLAC_COUNT = (1 << 36) - 1
_OGG_PAGE = re.compile(rb"OggS")
_UNREAD_IN_OGG = {b"\x7fFLAC": "FLAC", b"Speex   ": "Speex", b"\x80theora": "a film", b"\x01video": "a film"}
# A frame without audio that counts the frames after it: MPEG header, side information (perhaps a checksum), name.
_MP3_COUNT = re.compile(rb"\xff[\xe2-\xff].{2}(?:.{9}|.{11}|.{17}|.{19}|.{32}|.{34})(?:Xing|Info)(.{12})", re.DOTALL)
_MP3_END = re.compile(rb"TAG|APETAGEX|LYRICSBE|ID3|\0")
_MP3_RATES = (44100, 48000, 32000)  # Hz, of MPEG 1; half of it in MPEG 2, a quarter in 2.5
_MP3_BIT_RATES = (  # kbit/s, of MPEG 2 and of MPEG 1
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)

# The containers made of chunks: how the sizes of chunks are written, and where the first chunk begins
_CHUNKED = {b"RIFF": ("<I", 12), b"RIFX": (">I", 12), b"RF64": ("<I", 12), b"FORM": (">I", 12), b"caff": (">q", 8)}
# The chunk of samples, and how many of its bytes come before them
_AUDIO_CHUNKS = {(b"FORM", b"SSND"): 8, (b"FORM", b"BODY"): 0, (b"caff", b"data"): 4}
# PCM, float, A-law, mu-law, extensible: each sample has the same number of bytes
_FIXED_SIZE_ENCODINGS = frozenset({1, 3, 6, 7, 0xFFFE})


class CutShortError(Exception):
    """The file ends before its container says; the message says how."""


class TooManyTagsError(Exception):
    """Reading the tags before the audio would take too long."""


class Part(NamedTuple):
    """One of the files that were joined to one.

    Attributes:
        start: its first byte.
        end: one past its last byte.
        repairs: (position in the whole file, bytes) to read in place of what the file has there.
        endless: whether it is to be read as if it had no end (an MP3, of which the end can only be estimated).
        length: (samples per channel, rate in Hz) where the container has them.
        plain: where the samples begin, if they are little-endian 16-bit mono and so need no decoder.
    """

    start: int
    end: int
    repairs: tuple[tuple[int, bytes], ...] = ()
    endless: bool = False
    length: tuple[int, int] | None = None
    plain: int | None = None


def find_parts(file: BinaryIO, file_bytes: int) -> list[Part]:
    """The files that this one consists of: one, unless several were joined.

    Raises:
        CutShortError: the file ends before it should.
        TooManyTagsError: there are too many tags before the audio.
    """
    return list(_parts(_Bytes(file, file_bytes), 0))


def _parts(source: _Bytes, start: int) -> Iterator[Part]:
    while start < source.size:
        first = _after_tag(source, start)
        head = source.at(first, 16)
        if head[:4] in _CHUNKED:
            part = _chunked(source, first, *_CHUNKED[head[:4]])
        elif head == _W64_RIFF:
            part = _w64(source, first)
        elif head[:4] in (b".snd", b"dns."):
            part = _au(source, first, ">" if head[:1] == b"." else "<")
        elif head[:4] == b"OggS":
            part = _ogg(source, first)
        elif head[:7] == b"NIST_1A":
            part = _nist(source, first)
        else:
            yield from _marked(source, start, first)
            return
        yield part
        start = part.end


class _Bytes:
    """Bytes of a file, of which those around the last ones are kept: most headers need no more."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self._start, self._kept = 0, file.read(_KEPT_BYTES)

    def at(self, position: int, count: int) -> bytes:
        """`count` bytes from `position` on, or fewer where the file ends before."""
        if not 0 <= position < self.size:  # a damaged size leads anywhere
            return b""
        count = min(count, self.size - position)  # a buffer for more than there is would cost more than reading it
        offset = position - self._start
        if not 0 <= offset <= len(self._kept) - count:
            self.file.seek(position)
            self._start, self._kept, offset = position, self.file.read(max(count, _KEPT_BYTES)), 0
        return self._kept[offset : offset + count]

    def number(self, form: str, position: int) -> int:
        """A number at a position; 0 where the file ends before."""
        content = self.at(position, struct.calcsize(form))
        return struct.unpack(form, content)[0] if len(content) == struct.calcsize(form) else 0


def _chunked(source: _Bytes, start: int, form: str, first: int) -> Part:
    """RIFF (WAV), RF64, IFF (AIFF, 8SVX) and CAF: chunks of a name, a size and as many bytes."""
    kind, order, head_bytes = source.at(start, 4), form[0], 4 + struct.calcsize(form)
    fmt = None
    repairs: list[tuple[int, bytes]] = []
    real_size_at = 0  # in RF64, whose sizes have 64 bits
    position = start + first
    if position > source.size:
        raise CutShortError("no whole header")
    for _ in range(_MOST_CHUNKS):
        name, size_at = source.at(position, 4), position + 4
        size = source.number(form, size_at)
        position += head_bytes
        if name == b"fmt " and position + 16 <= source.size:
            fmt = _wav_format(source, order, position, repairs)
        elif name == b"ds64":
            real_size_at = position + 8
        elif name == b"data" or (kind, name) in _AUDIO_CHUNKS:
            if size == 0xFFFFFFFF and real_size_at:
                form, size_at, size = "<Q", real_size_at, source.number("<Q", real_size_at)
            present = source.size - position
            if size >= _STREAMED_BYTES and form[1] == "I":
                size = present
            if present < size:
                raise CutShortError(f"{present} of {size} bytes of audio are there")
            end = position + size + (size & 1)
            joined = kind != b"caff" and size > 0 and source.at(end, 4) == kind
            joined = joined and source.at(end + 8, 4) == source.at(start + 8, 4)
            too_small = size <= _AUDIO_CHUNKS.get((kind, name), 0)
            if not too_small and present - size > max(_PADDING, size // 8):  # unless the file's own size agrees
                whole = source.number("<Q", real_size_at - 8) if real_size_at else source.number(f"{order}I", start + 4)
                too_small = kind == b"caff" or not _only_chunks(source, end, form, start + 8 + whole)
            if too_small and not joined and not _only_chunks(source, end, form, source.size):
                # a recorder that was stopped (-1 in CAF: written to a pipe): the samples end with the file
                repairs.append((size_at, struct.pack(form, present)))
                size = present
            part = Part(start, end if joined else source.size, tuple(repairs))
            if fmt is not None:
                plain = position if fmt.is_plain and order == "<" else None
                part = part._replace(length=(size // fmt.frame_bytes, fmt.rate), plain=plain)
            return part
        position += size + (size & 1 if kind != b"caff" else 0)
        if size < 0 or position + head_bytes > source.size:
            break
    return Part(start, source.size)  # libsndfile says what is missing


class _WavFormat(NamedTuple):
    frame_bytes: int
    rate: int
    is_plain: bool


def _wav_format(source: _Bytes, order: str, position: int, repairs: list[tuple[int, bytes]]) -> _WavFormat | None:
    """The format of a WAV's samples; None where libsndfile has to decide. A wrong block size is repaired."""
    encoding, channels, rate, byte_rate, align, bits = struct.unpack(f"{order}HHIIHH", source.at(position, 16))
    frame_bytes = -(-bits // 8) * channels
    if encoding not in _FIXED_SIZE_ENCODINGS or not rate or not frame_bytes:
        return None
    if align != frame_bytes and byte_rate == rate * frame_bytes:  # libsndfile believes it in 24-bit files
        repairs.append((position + 12, struct.pack(f"{order}H", frame_bytes)))
    return _WavFormat(frame_bytes, rate, (encoding, channels, bits) == (1, 1, 16))


def _only_chunks(source: _Bytes, position: int, form: str, end: int) -> bool:
    """Whether nothing but chunks follows up to `end`, so that the chunk of samples is really no longer."""
    for _ in range(_MOST_CHUNKS):
        if position >= end or not re.fullmatch(rb"[ -~]{4}", source.at(position, 4)):
            break
        size = source.number(form, position + 4)
        position += 4 + struct.calcsize(form) + size + (size & 1)
    return end <= position <= end + 1


def _w64(source: _Bytes, start: int) -> Part:
    """Sony Wave64: as RIFF, with names of 16 bytes, and sizes of 8 bytes that count themselves and the name."""
    position = start + 40
    for _ in range(_MOST_CHUNKS):
        name, size = source.at(position, 16), source.number("<Q", position + 16)
        if name == b"data" + _W64_REST:
            present = source.size - position
            if present < size < 1 << 62:  # others were written to a pipe
                raise CutShortError(f"{present} of {size} bytes of audio are there")
            break
        position += max(24, size + (-size % 8))
    return Part(start, source.size)


def _au(source: _Bytes, start: int, order: str) -> Part:
    """Sun's .snd: the place and size of the samples in the first bytes."""
    position, size = start + source.number(f"{order}I", start + 4), source.number(f"{order}I", start + 8)
    present = source.size - position
    if size == 0 and present > 0:  # a recorder that was stopped
        return Part(start, source.size, ((start + 8, b"\xff\xff\xff\xff"),))
    if present < size < 0xFFFFFFFF:
        raise CutShortError(f"{max(0, present)} of {size} bytes of audio are there")
    return Part(start, position + size if source.at(position + size, 4) == source.at(start, 4) else source.size)


def _nist(source: _Bytes, start: int) -> Part:
    """SPHERE, as in TIMIT: a header in text."""
    header = source.at(start, 1024)
    fields = dict(re.findall(rb"(\w+) -i (\d+)", header))
    size = int(fields.get(b"sample_count", 0)) * int(fields.get(b"channel_count", 1))
    size *= int(fields.get(b"sample_n_bytes", 0))
    present = source.size - start - int((re.findall(rb"^NIST_1A\s+(\d+)", header) or [1024])[0])
    if present < size:
        raise CutShortError(f"{present} of {size} bytes of audio are there")
    return Part(start, source.size)


def _ogg(source: _Bytes, start: int) -> Part:
    """Pages; a page that begins a stream after pages of another one begins the next part."""
    position, in_stream, flags = start, False, 0
    while position < source.size:
        head = source.at(position, 27)
        if head[:4] != b"OggS":  # damaged, or padded at its end
            position, _ = next(_find(source, _OGG_PAGE, position), (source.size, None))
            continue
        segments = source.at(position + 27, head[26]) if len(head) == 27 else b""
        end = position + 27 + len(segments) + sum(segments)
        if len(head) < 27 or len(segments) < head[26] or end > source.size:
            raise CutShortError("its last Ogg page is not whole")
        flags = head[5]
        if flags & 2 and in_stream:
            return Part(start, position)
        in_stream, position = not flags & 2, end
    if not flags & 4:
        raise CutShortError("its last Ogg page is not marked as the last")
    return Part(start, source.size)


def unread_ogg_codec(head: bytes) -> str | None:
    """The codec of an Ogg file with these first bytes, if it is one that libsndfile does not read, or seldom."""
    packet = head[27 + head[26] :] if len(head) > 27 and head[:4] == b"OggS" else b""
    return next((name for magic, name in _UNREAD_IN_OGG.items() if packet.startswith(magic)), None)


def _marked(source: _Bytes, start: int, first: int) -> list[Part]:
    """FLAC and MP3, whose parts begin with a mark of their own; any other file is one part."""
    if source.at(first, 4) == b"fLaC":
        marks = [first, *(position for position, _ in _find(source, _FLAC_START, first + 4))]
        return [_flac_part(source, *bounds) for bounds in pairwise([*marks, source.size])]
    is_mp3, starts = _is_mp3_frame(source, first), {start}
    counts: dict[int, _Mp3Count] = {}
    if is_mp3:
        begin = first
        for position, found in _find(source, _MP3_COUNT, first):
            if position != begin:
                starts.add(position)
            flags, frames, size = struct.unpack(">III", found[1])
            if flags & 1 and frames:
                offset = found.end(1) - found.start() - 8
                counts[position] = _Mp3Count(position, offset, frames, size if flags & 2 else 0)
            if flags & 3 == 3 and frames and size:  # its size too, so that a part without a count is found after it
                begin = _after_tag(source, position + size)
                starts |= {position + size} if _is_mp3_frame(source, begin) else set()
    parts = []
    for begin, end in pairwise([*sorted(starts), source.size]):
        count = counts.get(_after_tag(source, begin))
        parts.append(Part(begin, end, count.repairs(source, end) if count else (), endless=is_mp3 and count is None))
    return parts


class _Mp3Count(NamedTuple):
    """What the first frame of an MP3 says of the others, and where it does."""

    position: int
    offset: int  # of the number of frames
    frames: int
    size: int

    def repairs(self, source: _Bytes, end: int) -> tuple[tuple[int, bytes], ...]:
        """The number of frames that there are, if another one is given, unless the file was cut short."""
        present = _mp3_frames(source, self.position, end) - 1
        cut = present < self.frames and not 0 < self.size <= end - self.position
        if present in (self.frames, -1) or cut:
            return ()
        return ((self.position + self.offset, present.to_bytes(4, "big")),)


def _mp3_frames(source: _Bytes, position: int, end: int) -> int:
    """How many frames follow each other up to `end` or a tag; 0 where anything else is between them."""
    count = 0
    while position < end and (size := _mp3_frame_bytes(source.at(position, 3))):
        position += size
        count += position <= end
    return count if position >= end or _MP3_END.match(source.at(position, 8)) else 0


@functools.lru_cache(1000)  # a file has few different headers
def _mp3_frame_bytes(head: bytes) -> int:
    """The size of a frame with this header; 0 for anything but layer III, and where no bit rate is given."""
    bits = int.from_bytes(head.ljust(3, b"\0"), "big")
    version, layer, bit_rate, rate = bits >> 11 & 3, bits >> 9 & 3, bits >> 4 & 15, bits >> 2 & 3
    if bits >> 13 != 0x7FF or version == 1 or layer != 1 or bit_rate in (0, 15) or rate == 3:
        return 0
    is_first = version == 3
    hertz = _MP3_RATES[rate] >> (0 if is_first else 1 if version == 2 else 2)
    samples = 1152 if is_first else 576
    return samples * 125 * _MP3_BIT_RATES[is_first][bit_rate - 1] // hertz + (bits >> 1 & 1)


def _flac_part(source: _Bytes, start: int, end: int) -> Part:
    """A FLAC file, whose count of samples is repaired to unknown, so that it is decoded to its end."""
    field = source.number(">Q", start + 18)  # in STREAMINFO: rate, channels, bits, and the count in the last 36 bits
    rate, count = field >> 44, field & _FLAC_COUNT
    if source.at(start + 4, 1)[:1] not in (b"\0", b"\x80") or not count:
        return Part(start, end)
    length = (count, rate) if rate and count <= MOST_SAMPLES_PER_BYTE * (end - start) else None
    return Part(start, end, ((start + 18, (field - count).to_bytes(8, "big")),), length=length)


def _after_tag(source: _Bytes, position: int) -> int:
    """The position after ID3 tags, and after the zeros that follow some."""
    for _ in range(_MOST_TAGS):
        tag = source.at(position, 10)
        if tag[:3] != b"ID3" or len(tag) < 10:
            return position
        position += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        while (padding := source.at(position, 4096)) and not padding.strip(b"\0"):
            position += len(padding)
        position += len(padding) - len(padding.lstrip(b"\0"))
    raise TooManyTagsError(f"{_MOST_TAGS} or more ID3 tags follow each other")


def _is_mp3_frame(source: _Bytes, position: int) -> bool:
    """Whether the header of an MPEG frame is there: none of its fields has a value without a meaning."""
    head = int.from_bytes(source.at(position, 4).ljust(4, b"\0"), "big")
    version, layer, bit_rate, rate = head >> 19 & 3, head >> 17 & 3, head >> 12 & 15, head >> 10 & 3
    return head >> 21 == 0x7FF and version != 1 and layer != 0 and bit_rate != 15 and rate != 3


def _find(source: _Bytes, pattern: re.Pattern[bytes], position: int) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Where a pattern begins, from `position` on, and its match."""
    while position < source.size:
        for found in pattern.finditer(source.at(position, _READ_BYTES + _LONGEST_PATTERN)):
            if found.start() < _READ_BYTES:
                yield position + found.start(), found
        position += _READ_BYTES
