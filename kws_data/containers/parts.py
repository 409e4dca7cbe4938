"""What an audio file's container says before anything is decoded: whether it was cut short, and its parts.

libsndfile reads a WAV, AIFF or Ogg file that was cut short as a shorter one, decodes the first of several files that
were joined, takes a data size of 0 (a recorder that was stopped) for no samples, and stops an MP3 without a count of
its frames where it estimates its end. The kind of file is found by its first bytes, as suffixes may be wrong.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO, NamedTuple

from kws_data.containers.file_bytes import MOST_CHUNKS, W64_REST, W64_RIFF, Bytes, CutShortError, find
from kws_data.containers.joined import begins, next_file
from kws_data.containers.mp3 import MP3_COUNT, Mp3Count, after_tag, is_mp3_frame, mp3_begins, mp3_frame_bytes
from kws_data.containers.trailers import after_chunks, after_filler, before_chunks, leaves_out

# FLAC packs silence as blocks of up to 65,535 samples in some 14 bytes. A header with more samples is wrong.
MOST_SAMPLES_PER_BYTE = 5000
_STREAMED, _STREAMED_BYTES = 0xFFFFFFFF, 0x7F000000  # as ffmpeg writes to a pipe, and about as sox does
_FLAC_COUNT = (1 << 36) - 1
_OGG_PAGE = re.compile(rb"OggS")
_UNREAD_IN_OGG = {b"\x7fFLAC": "FLAC", b"Speex   ": "Speex", b"\x80theora": "a film", b"\x01video": "a film"}
# The containers made of chunks: how the sizes of chunks are written, and where the first chunk begins
_CHUNKED = {b"RIFF": ("<I", 12), b"RIFX": (">I", 12), b"RF64": ("<I", 12), b"FORM": (">I", 12), b"caff": (">q", 8)}
# The chunk of samples, and how many of its bytes come before them
_AUDIO_CHUNKS = {(b"FORM", b"SSND"): 8, (b"FORM", b"BODY"): 0, (b"caff", b"data"): 4}
_PCM, _GSM = (1, 0xFFFE), 0x31
# PCM, float, A-law, mu-law, extensible: each sample has the same number of bytes
_FIXED_SIZE_ENCODINGS = frozenset({*_PCM, 3, 6, 7})


class Part(NamedTuple):
    """One of the files that were joined to one.

    Attributes:
        start: its first byte.
        end: one past its last byte.
        repairs: (position in the whole file, bytes) to read in place of what the file has there.
        endless: whether it is to be read as if it had no end (an MP3, of which the end can only be estimated).
        length: (samples per channel, rate in Hz) where the container has them.
        plain: where the samples begin, if they are little-endian 16-bit mono and so need no decoder.
        after: where the next part may begin, if not at `end`.
    """

    start: int
    end: int
    repairs: tuple[tuple[int, bytes], ...] = ()
    endless: bool = False
    length: tuple[int, int] | None = None
    plain: int | None = None
    after: int | None = None


def find_parts(file: BinaryIO, file_bytes: int) -> list[Part]:
    """The files that this one consists of: one, unless several were joined.

    Raises:
        CutShortError: the file ends before it should.
        ContainerError: there are too many tags before the audio, or samples in two places.
    """
    return list(_parts(Bytes(file, file_bytes), 0))


def _parts(source: Bytes, start: int) -> Iterator[Part]:
    while start < source.size:
        first = after_tag(source, start)
        head = source.at(first, 16)
        if head[:4] in _CHUNKED:
            part = _chunked(source, first, *_CHUNKED[head[:4]])
        elif head == W64_RIFF:
            part = _w64(source, first)
        elif head[:4] in (b".snd", b"dns."):
            part = _au(source, first, ">" if head[:1] == b"." else "<")
        elif head[:4] == b"OggS":
            part = _ogg(source, first)
        elif head[:7] == b"NIST_1A":
            part = _nist(source, first)
        elif head[:4] == b"fLaC":
            part = _flac(source, first)
        elif is_mp3_frame(source, first):
            *before, part = _mp3(source, start, first)
            yield from before
        else:
            part = Part(start, next_file(source, first + 1, mp3=False))  # perhaps an MP3 after other bytes
        yield part
        start = next_file(source, part.after or part.end)


def _chunked(source: Bytes, start: int, form: str, first: int) -> Part:
    """RIFF (WAV), RF64, IFF (AIFF, 8SVX) and CAF: chunks of a name, a size and as many bytes."""
    kind, order, head_bytes = source.at(start, 4), form[0], 4 + struct.calcsize(form)
    fmt = None
    repairs: list[tuple[int, bytes]] = []
    real_size_at = 0  # in RF64, whose sizes have 64 bits
    position = start + first
    if position > source.size:
        raise CutShortError("no whole header")
    for _ in range(MOST_CHUNKS):
        name, size_at = source.at(position, 4), position + 4
        size = source.number(form, size_at)
        position += head_bytes
        if name == b"fmt " and position + 16 <= source.size:
            fmt = _wav_format(source, order, position, repairs)
        elif name == b"ds64":
            real_size_at = position + 8
        elif name == b"data" or (kind, name) in _AUDIO_CHUNKS:
            size_form = form
            if size == 0xFFFFFFFF and real_size_at:
                size_form, size_at, size = "<Q", real_size_at, source.number("<Q", real_size_at)
            streamed = size >= _STREAMED_BYTES and size_form[1] == "I"
            if streamed:
                size = next_file(source, position, in_samples=True) - position
            present = source.size - position
            if present < size:
                raise CutShortError(f"{present} of {size} bytes of audio are there")
            end = position + size
            if size & 1 and form[1] == "I" and not begins(source, end):  # some writers do not fill up an odd number
                end += 1
            whole = source.number("<Q", real_size_at - 8) if real_size_at else source.number(f"{order}I", start + 4)
            own_end = start + 8 + whole
            agrees = kind != b"caff" and own_end <= after_chunks(source, end, form, own_end) <= own_end + 1
            last = own_end if agrees else position + size
            behind = after_filler(source, last, end)
            chunks_end = after_chunks(source, behind, form, source.size)
            if size <= _AUDIO_CHUNKS.get((kind, name), 0):
                too_small = chunks_end < source.size  # a recorder that was stopped (-1 in CAF: written to a pipe)
            else:
                chunks_follow = chunks_end > behind or (agrees and own_end > end + 1)
                too_small = not chunks_follow and leaves_out(source, last, sizes_agree=agrees)
            last = max(end, last, chunks_end)
            if too_small or streamed:
                last = next_file(source, position, in_samples=True)
                size = before_chunks(source, position, last, form) - position
                repairs.append((size_at, struct.pack(size_form, min(size, _STREAMED) if size_form[1] == "I" else size)))
            if name == b"BODY":  # libsndfile takes all that follows for samples
                return Part(start, position + size, tuple(repairs), after=last)
            # so it does in CAF, and AIFF's format may stand behind the samples
            last = min(last, source.size) if kind in (b"FORM", b"caff") else next_file(source, last)
            part = Part(start, last, tuple(repairs))
            if fmt is not None:
                plain = position if fmt.is_plain and order == "<" else None
                part = part._replace(length=(size // fmt.block_bytes * fmt.block_samples, fmt.rate), plain=plain)
            return part
        position += size + (size & 1 if kind != b"caff" else 0)
        if size < 0 or position + head_bytes > source.size:
            break
    return Part(start, source.size)  # libsndfile says what is missing


class _WavFormat(NamedTuple):
    block_bytes: int
    block_samples: int  # per channel
    rate: int
    is_plain: bool


def _wav_format(source: Bytes, order: str, position: int, repairs: list[tuple[int, bytes]]) -> _WavFormat | None:
    """The format of a WAV's samples; None where libsndfile has to decide. A wrong block size is repaired."""
    encoding, channels, rate, byte_rate, align, bits = struct.unpack(f"{order}HHIIHH", source.at(position, 16))
    frame_bytes = -(-bits // 8) * channels
    if encoding == _GSM and align == 65 and rate:
        return _WavFormat(align, 320, rate, is_plain=False)
    if encoding not in _FIXED_SIZE_ENCODINGS or not rate or not frame_bytes:
        return None
    if align == 4 * channels != frame_bytes and byte_rate == rate * align and 16 < bits < 32 and encoding in _PCM:
        # 24 or so bits in the upper ones of 32; of some, libsndfile takes three bytes for a sample
        repairs.append((position + 14, struct.pack(f"{order}H", 32)))
        frame_bytes = align
    elif align != frame_bytes:
        if byte_rate != rate * frame_bytes:
            return None
        repairs.append((position + 12, struct.pack(f"{order}H", frame_bytes)))  # libsndfile believes it in 24-bit files
    return _WavFormat(frame_bytes, 1, rate, (encoding, channels, bits) == (1, 1, 16))


def _w64(source: Bytes, start: int) -> Part:
    """Sony Wave64: as RIFF, with names of 16 bytes, and sizes of 8 bytes that count themselves and the name."""
    position = start + 40
    for _ in range(MOST_CHUNKS):
        name, size = source.at(position, 16), source.number("<Q", position + 16)
        if name == b"data" + W64_REST:
            present = source.size - position
            if size >= 1 << 62:  # written to a pipe
                break
            if present < size:
                raise CutShortError(f"{present} of {size} bytes of audio are there")
            end = position + size  # not of a multiple of 8 bytes, as others are: libsndfile and sox write no more
            whole = start + source.number("<Q", start + 16)
            if not end <= whole <= source.size:
                whole = end
            if leaves_out(source, whole):
                break
            return Part(start, end, after=whole)  # libsndfile takes all that follows for samples
        position += max(24, size + (-size % 8))
    return Part(start, next_file(source, min(position + 24, source.size), in_samples=True))


def _au(source: Bytes, start: int, order: str) -> Part:
    """Sun's .snd: the place and size of the samples in the first bytes."""
    position, size = start + source.number(f"{order}I", start + 4), source.number(f"{order}I", start + 8)
    present = source.size - position
    begin = max(position, start + 24)
    if present < size < 0xFFFFFFFF:
        raise CutShortError(f"{max(0, present)} of {size} bytes of audio are there")
    # written to a pipe, by a recorder that was stopped, or wrong
    if size == 0xFFFFFFFF or (size == 0 and present > 0) or leaves_out(source, begin + size):
        return Part(start, next_file(source, begin, in_samples=True), ((start + 8, b"\xff\xff\xff\xff"),))
    return Part(start, next_file(source, begin + size))


def _nist(source: Bytes, start: int) -> Part:
    """SPHERE, as in TIMIT: a header in text."""
    header = source.at(start, 1024)
    fields = dict(re.findall(rb"(\w+) -i (\d+)", header))
    size = int(fields.get(b"sample_count", 0)) * int(fields.get(b"channel_count", 1))
    size *= int(fields.get(b"sample_n_bytes", 0))
    position = start + int((re.findall(rb"^NIST_1A\s+(\d+)", header) or [1024])[0])
    present = source.size - position
    if present < size:
        raise CutShortError(f"{present} of {size} bytes of audio are there")
    if not size or leaves_out(source, position + size):
        return Part(start, next_file(source, position, in_samples=True))
    return Part(start, position + size)


def _ogg(source: Bytes, start: int) -> Part:
    """Pages; a page that begins a stream after pages of another one begins the next part."""
    position, end, in_stream, flags = start, source.size, False, 0
    while position < source.size:
        head = source.at(position, 27)
        if head[:4] != b"OggS":  # damaged, padded at its end, or another file
            page, _ = next(find(source, _OGG_PAGE, position), (source.size, None))
            position = next_file(source, position, page)
            if position < page:
                break
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
    return Part(start, position)


def unread_ogg_codec(head: bytes) -> str | None:
    """The codec of an Ogg file with these first bytes, if it is one that libsndfile does not read, or seldom."""
    packet = head[27 + head[26] :] if len(head) > 27 and head[:4] == b"OggS" else b""
    return next((name for magic, name in _UNREAD_IN_OGG.items() if packet.startswith(magic)), None)


def _mp3(source: Bytes, start: int, first: int) -> list[Part]:
    """MP3, whose parts begin with a mark of their own where they have one."""
    last, starts = next_file(source, first + 1, mp3=False), {start}
    counts: dict[int, Mp3Count] = {}
    begin = first
    for position, found in find(source, MP3_COUNT, first):
        if position >= last:
            break
        if position != begin:
            starts.add(position)
        flags, frames, size = struct.unpack(">III", found[1])
        if flags & 1 and frames:
            offset = found.end(1) - found.start() - 8
            counts[position] = Mp3Count(position, offset, frames, size if flags & 2 else 0)
        if flags & 3 == 3 and frames and size:  # its size too, so that a part without a count is found after it
            follows = next_file(source, position + size, last)  # behind tags of its end
            begin = after_tag(source, follows)
            starts |= {follows} if follows < last else set()
    parts = []
    for begin, end in list(pairwise([*sorted(starts), last])):
        if after_tag(source, begin) not in counts:
            starts |= set(_mp3_changes(source, begin, end))
    for begin, end in pairwise([*sorted(starts), last]):
        count = counts.get(after_tag(source, begin))
        parts.append(Part(begin, end, count.repairs(source, end) if count else (), endless=count is None))
    return parts


def _mp3_changes(source: Bytes, begin: int, end: int) -> Iterator[int]:
    """Where frames of another rate or number of channels begin, at which the decoder would stop."""
    position, before = after_tag(source, begin), None
    while position < end:
        head = source.at(position, 4)
        size = mp3_frame_bytes(head[:3])
        if not size or len(head) < 4:
            position = next_file(source, position + 1, end)
            continue
        kind = (head[1] & 0xFE, head[2] & 0x0C, head[3] >> 6 == 3)  # version and layer, rate, mono
        if before not in (None, kind) and mp3_begins(source, position):
            yield position
        before, position = kind, position + size


def _flac(source: Bytes, first: int) -> Part:
    """A FLAC file, whose count of samples is repaired to unknown, so that it is decoded to its end."""
    end = next_file(source, _after_flac_metadata(source, first))
    field = source.number(">Q", first + 18)  # in STREAMINFO: rate, channels, bits, and the count in the last 36 bits
    rate, count = field >> 44, field & _FLAC_COUNT
    if source.at(first + 4, 1)[:1] not in (b"\0", b"\x80") or not count:
        return Part(first, end)
    length = (count, rate) if rate and count <= MOST_SAMPLES_PER_BYTE * (end - first) else None
    return Part(first, end, ((first + 18, (field - count).to_bytes(8, "big")),), length=length)


def _after_flac_metadata(source: Bytes, first: int) -> int:
    """Where the frames begin: the header of another file may be kept in what comes before, or a picture."""
    position = first + 4
    for _ in range(MOST_CHUNKS):
        kind, size = source.number("B", position), source.number(">I", position) & 0xFFFFFF
        position += 4 + size
        if kind & 0x80:
            break
    return position if position < source.size else first + 4
