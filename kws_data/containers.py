"""What an audio file's container says before anything is decoded: whether it was cut short, and its parts.

libsndfile reads a WAV, AIFF or Ogg file that was cut short as a shorter one, decodes the first of several files that
were joined, takes a data size of 0 (a recorder that was stopped) for no samples, and stops an MP3 without a count of
its frames where it estimates its end. The kind of file is found by its first bytes, as suffixes may be wrong.
"""

from __future__ import annotations

import codecs
import functools
import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO, NamedTuple

import numpy as np

# FLAC packs silence as blocks of up to 65,535 samples in some 14 bytes. A header with more samples is wrong.
MOST_SAMPLES_PER_BYTE = 5000

_STREAMED_BYTES = 0x7F000000  # about as sox writes to a pipe; ffmpeg writes 0xFFFFFFFF
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_REST = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of the names of all other chunks, after their four letters
_READ_BYTES = 1 << 20
_LONGEST_PATTERN = 64
_KEPT_BYTES = 4096
_PADDING = 4096  # bytes after the samples that are no chunk: more may be samples that wrong sizes left out
_SMALL_PADDING = 64  # likewise where there is but one size, or two that do not agree
_EVEN_BITS = 7.9  # per byte, of what is compressed: 4 kB of random bytes have 7.95, 16-bit speech 5 to 7.5
_MOST_CHUNKS = 10_000  # so that a file of nothing but empty chunks costs no time
_MOST_PLACES = 10_000  # likewise of places in 1 MB that look like a frame of an MP3: some 80 in compressed audio
_MOST_TAGS = 100  # likewise of tags before the audio
# How a file begins that was joined to another one
_BEGINNING = re.compile(
    b"|".join(
        (
            rb"(?:RIFF|RIFX|RF64).{4}WAVE",
            rb"FORM.{4}(?:AIFF|AIFC|8SVX|16SV)",
            rb"caff\x00\x01\x00\x00",
            rb"\.snd\x00.{7}\x00\x00\x00.\x00.{3}\x00",  # offset, size, encoding, rate, channels
            rb"dns\..{2}\x00.{5}.\x00\x00\x00.{3}\x00.\x00",
            re.escape(_W64_RIFF),
            rb"NIST_1A\n",
            rb"OggS\x00[\x02\x06]\x00{8}",  # the first page of a stream
            rb"fLaC[\x00\x80]\x00\x00\x22",  # and the header of STREAMINFO
            rb"Creative Voice File\x1a|MATLAB 5\.0 MAT-file|Extended Instrument: |PVF1\n",  # which are refused
        )
    ),
    re.DOTALL,
)
_MP3_TAG = re.compile(rb"ID3[\x02-\x04]")
_MP3_FRAME = re.compile(rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][\x10-\xef]")
_MP3_FRAMES = 4  # in a row, so that an MP3 begins there: chance gives so many headers in 1e17 bytes
_FLAC_COUNT = (1 << 36) - 1
_OGG_PAGE = re.compile(rb"OggS")
_UNREAD_IN_OGG = {b"\x7fFLAC": "FLAC", b"Speex   ": "Speex", b"\x80theora": "a film", b"\x01video": "a film"}
# A frame without audio that counts the frames after it: MPEG header, side information (perhaps a checksum), name.
_MP3_COUNT = re.compile(rb"\xff[\xe2-\xff].{2}(?:.{9}|.{11}|.{17}|.{19}|.{32}|.{34})(?:Xing|Info)(.{12})", re.DOTALL)
_MP3_END = re.compile(rb"TAG|APETAGEX|LYRICSBE|ID3")
# Chunks that programs put behind the samples, in WAV, AIFF and CAF
_CHUNK_NAME = re.compile(
    rb"LIST|bext|[iI][dD]3[ \0]|cue |smpl|inst|fact|PEAK|JUNK|junk|PAD |FLLR|iXML|[_a]PMX|axml|cart|levl|DISP|umid|minf"
    rb"|elm1|regn|afsp|AFSp|acid|strc|plst|note|labl|ltxt|bwfm|ResU|SyLp|MARK|APPL|ANNO|NAME|AUTH|\(c\) |COM[MT]|INST"
    rb"|MIDI|AESD|SAUR|FVER|info|uuid|free|mark|strg|kuki|pakt|chan|peak|edct|midi|ovvw"
)
# How something begins that is no sample: tags, chunks (in Wave64 too), pictures, documents, archives
_NO_SAMPLES = re.compile(
    _MP3_END.pattern + b"|" + _CHUNK_NAME.pattern + b"|.{4}" + re.escape(_W64_REST)
    + rb"|list\x2f\x91\xcf\x11|\x89PNG|\xff\xd8\xff|GIF8|%PDF|PK\x03\x04|\x1f\x8b\x08|7z\xbc\xaf|Rar!",
    re.DOTALL,
)  # fmt: skip
_MP3_RATES = (44100, 48000, 32000)  # Hz, of MPEG 1; half of it in MPEG 2, a quarter in 2.5
_MP3_BIT_RATES = (  # kbit/s, of MPEG 2, of MPEG 1, and of its layer II
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
)

# The containers made of chunks: how the sizes of chunks are written, and where the first chunk begins
_CHUNKED = {b"RIFF": ("<I", 12), b"RIFX": (">I", 12), b"RF64": ("<I", 12), b"FORM": (">I", 12), b"caff": (">q", 8)}
# The chunk of samples, and how many of its bytes come before them
_AUDIO_CHUNKS = {(b"FORM", b"SSND"): 8, (b"FORM", b"BODY"): 0, (b"caff", b"data"): 4}
# PCM, float, A-law, mu-law, extensible: each sample has the same number of bytes
_PCM, _GSM = (1, 0xFFFE), 0x31
_FIXED_SIZE_ENCODINGS = frozenset({*_PCM, 3, 6, 7})


class CutShortError(Exception):
    """The file ends before its container says; the message says how."""


class ContainerError(Exception):
    """Reading the file would take too long, or leave samples out; the message says why."""


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
        elif head[:4] == b"fLaC":
            part = _flac(source, first)
        elif _is_mp3_frame(source, first):
            *before, part = _mp3(source, start, first)
            yield from before
        else:
            part = Part(start, _next_file(source, first + 1, mp3=False))  # perhaps an MP3 after other bytes
        yield part
        start = _next_file(source, part.after or part.end)


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
            size_form = form
            if size == 0xFFFFFFFF and real_size_at:
                size_form, size_at, size = "<Q", real_size_at, source.number("<Q", real_size_at)
            streamed = size >= _STREAMED_BYTES and size_form[1] == "I"
            if streamed:
                size = _next_file(source, position, in_samples=True) - position
            present = source.size - position
            if present < size:
                raise CutShortError(f"{present} of {size} bytes of audio are there")
            end = position + size + (size & 1)
            whole = source.number("<Q", real_size_at - 8) if real_size_at else source.number(f"{order}I", start + 4)
            own_end = start + 8 + whole
            agrees = kind != b"caff" and own_end <= _after_chunks(source, end, form, own_end) <= own_end + 1
            last = own_end if agrees else position + size
            behind = _after_filler(source, last, end)
            chunks_end = _after_chunks(source, behind, form, source.size)
            if size <= _AUDIO_CHUNKS.get((kind, name), 0):
                too_small = chunks_end < source.size  # a recorder that was stopped (-1 in CAF: written to a pipe)
            else:
                chunks_follow = chunks_end > behind or (agrees and own_end > end + 1)
                too_small = not chunks_follow and _leaves_out(source, last, sizes_agree=agrees)
            last = max(end, last, chunks_end)
            if too_small or streamed:
                last = _next_file(source, position, in_samples=True)
                size = _before_chunks(source, position, last, form) - position
                repairs.append((size_at, struct.pack(size_form, size)))
            if name == b"BODY":  # libsndfile takes all that follows for samples
                return Part(start, position + size, tuple(repairs), after=last)
            # so it does in CAF, and AIFF's format may stand behind the samples
            last = min(last, source.size) if kind in (b"FORM", b"caff") else _next_file(source, last)
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


def _wav_format(source: _Bytes, order: str, position: int, repairs: list[tuple[int, bytes]]) -> _WavFormat | None:
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


def _after_chunks(source: _Bytes, position: int, form: str, end: int) -> int:
    """Behind the chunks that follow each other there and end by `end`; the beginning of another file is no chunk."""
    for _ in range(_MOST_CHUNKS):
        size = source.number(form, position + 4)
        after = position + 4 + struct.calcsize(form) + size
        if not _is_name(source, position) or not position < after <= end or _begins(source, position):
            break
        if source.at(position, 4) == b"data":
            raise ContainerError("a second chunk of samples follows the first")
        position = after
        if size & 1 and form[1] == "I" and (after == end or not _is_name(source, after) or _is_name(source, after + 1)):
            position += 1  # some writers leave out the byte that fills a chunk up
    return position


def _is_name(source: _Bytes, position: int) -> bool:
    return re.fullmatch(rb"[ -~]{3}[ -~\0]", source.at(position, 4)) is not None


def _after_filler(source: _Bytes, position: int, filled: int) -> int:
    """Where chunks may begin: at the position, filled up to an even one, or behind zeros."""
    if _is_name(source, position) and not _is_name(source, filled):
        return position
    return filled if _is_name(source, filled) else _after_zeros(source, position)


def _before_chunks(source: _Bytes, begin: int, end: int, form: str) -> int:
    """Where the chunks or the tag begin that end at `end`, behind samples of an unknown size; else `end`."""
    begin = max(begin, end - _READ_BYTES)
    for found in _CHUNK_NAME.finditer(source.at(begin, end - begin)):
        if end <= _after_chunks(source, begin + found.start(), form, end) <= end + 1:
            return begin + found.start()
    return end - 128 if source.at(end - 128, 3) == b"TAG" else end


def _leaves_out(source: _Bytes, end: int, *, sizes_agree: bool = False) -> bool:
    """Whether samples follow those that end there.

    Zeros, text, tags, pictures and what begins as a chunk are none, and neither is another file. If the size of the
    samples and that of the file agree, a few bytes may be anything, and so may bytes that are spread evenly, as those
    of an archive.
    """
    following = _next_file(source, end)
    if following - end <= (_PADDING if sizes_agree else _SMALL_PADDING):
        return False
    begin = _after_zeros(source, end)
    content = source.at(begin, min(following - begin, _READ_BYTES))
    if begin >= following or _NO_SAMPLES.match(content) or _is_text(content[:_KEPT_BYTES]):
        return False
    if _CHUNK_NAME.match(source.at(end + 1, 4)):  # a byte that fills up an odd number, and is not 0
        return False
    return not (sizes_agree and _bits_per_byte(content) > _EVEN_BITS)


def _is_text(content: bytes) -> bool:
    """UTF-8, or UTF-16 with its mark."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(content.rstrip(b"\0"))
    except UnicodeDecodeError:
        return False
    return re.search(r"[\0-\x08\x0e-\x1f\x7f-\x9f]", text) is None


def _bits_per_byte(content: bytes) -> float:
    """The entropy of bytes: 8 where all are as frequent."""
    counts = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
    shares = counts[counts > 0] / len(content)
    return float(-(shares * np.log2(shares)).sum())


def _w64(source: _Bytes, start: int) -> Part:
    """Sony Wave64: as RIFF, with names of 16 bytes, and sizes of 8 bytes that count themselves and the name."""
    position = start + 40
    for _ in range(_MOST_CHUNKS):
        name, size = source.at(position, 16), source.number("<Q", position + 16)
        if name == b"data" + _W64_REST:
            present = source.size - position
            if size >= 1 << 62:  # written to a pipe
                break
            if present < size:
                raise CutShortError(f"{present} of {size} bytes of audio are there")
            end = position + size  # not of a multiple of 8 bytes, as others are: libsndfile and sox write no more
            whole = start + source.number("<Q", start + 16)
            if not end <= whole <= source.size:
                whole = end
            if _leaves_out(source, whole):
                break
            return Part(start, end, after=whole)  # libsndfile takes all that follows for samples
        position += max(24, size + (-size % 8))
    return Part(start, _next_file(source, min(position + 24, source.size), in_samples=True))


def _au(source: _Bytes, start: int, order: str) -> Part:
    """Sun's .snd: the place and size of the samples in the first bytes."""
    position, size = start + source.number(f"{order}I", start + 4), source.number(f"{order}I", start + 8)
    present = source.size - position
    begin = max(position, start + 24)
    if present < size < 0xFFFFFFFF:
        raise CutShortError(f"{max(0, present)} of {size} bytes of audio are there")
    # written to a pipe, by a recorder that was stopped, or wrong
    if size == 0xFFFFFFFF or (size == 0 and present > 0) or _leaves_out(source, begin + size):
        return Part(start, _next_file(source, begin, in_samples=True), ((start + 8, b"\xff\xff\xff\xff"),))
    return Part(start, _next_file(source, begin + size))


def _nist(source: _Bytes, start: int) -> Part:
    """SPHERE, as in TIMIT: a header in text."""
    header = source.at(start, 1024)
    fields = dict(re.findall(rb"(\w+) -i (\d+)", header))
    size = int(fields.get(b"sample_count", 0)) * int(fields.get(b"channel_count", 1))
    size *= int(fields.get(b"sample_n_bytes", 0))
    position = start + int((re.findall(rb"^NIST_1A\s+(\d+)", header) or [1024])[0])
    present = source.size - position
    if present < size:
        raise CutShortError(f"{present} of {size} bytes of audio are there")
    if not size or _leaves_out(source, position + size):
        return Part(start, _next_file(source, position, in_samples=True))
    return Part(start, position + size)


def _ogg(source: _Bytes, start: int) -> Part:
    """Pages; a page that begins a stream after pages of another one begins the next part."""
    position, end, in_stream, flags = start, source.size, False, 0
    while position < source.size:
        head = source.at(position, 27)
        if head[:4] != b"OggS":  # damaged, padded at its end, or another file
            page, _ = next(_find(source, _OGG_PAGE, position), (source.size, None))
            position = _next_file(source, position, page)
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


def _mp3(source: _Bytes, start: int, first: int) -> list[Part]:
    """MP3, whose parts begin with a mark of their own where they have one."""
    last, starts = _next_file(source, first + 1, mp3=False), {start}
    counts: dict[int, _Mp3Count] = {}
    begin = first
    for position, found in _find(source, _MP3_COUNT, first):
        if position >= last:
            break
        if position != begin:
            starts.add(position)
        flags, frames, size = struct.unpack(">III", found[1])
        if flags & 1 and frames:
            offset = found.end(1) - found.start() - 8
            counts[position] = _Mp3Count(position, offset, frames, size if flags & 2 else 0)
        if flags & 3 == 3 and frames and size:  # its size too, so that a part without a count is found after it
            follows = _next_file(source, position + size, last)  # behind tags of its end
            begin = _after_tag(source, follows)
            starts |= {follows} if follows < last else set()
    parts = []
    for begin, end in list(pairwise([*sorted(starts), last])):
        if _after_tag(source, begin) not in counts:
            starts |= set(_mp3_changes(source, begin, end))
    for begin, end in pairwise([*sorted(starts), last]):
        count = counts.get(_after_tag(source, begin))
        parts.append(Part(begin, end, count.repairs(source, end) if count else (), endless=count is None))
    return parts


def _mp3_changes(source: _Bytes, begin: int, end: int) -> Iterator[int]:
    """Where frames of another rate or number of channels begin, at which the decoder would stop."""
    position, before = _after_tag(source, begin), None
    while position < end:
        head = source.at(position, 4)
        size = _mp3_frame_bytes(head[:3])
        if not size or len(head) < 4:
            position = _next_file(source, position + 1, end)
            continue
        kind = (head[1] & 0xFE, head[2] & 0x0C, head[3] >> 6 == 3)  # version and layer, rate, mono
        if before not in (None, kind) and _mp3_begins(source, position):
            yield position
        before, position = kind, position + size


class _Mp3Count(NamedTuple):
    """What the first frame of an MP3 says of the others, and where it does."""

    position: int
    offset: int  # of the number of frames
    frames: int
    size: int

    def repairs(self, source: _Bytes, end: int) -> tuple[tuple[int, bytes], ...]:
        """The number of frames that there are, if another one is given, unless the file was cut short or damaged."""
        frames, whole = _mp3_frames(source, self.position, end)
        present = frames - 1
        cut = present < self.frames and not (whole and 0 < self.size <= end - self.position)
        if present == self.frames or cut:
            return ()
        return ((self.position + self.offset, present.to_bytes(4, "big")),)


def _mp3_frames(source: _Bytes, position: int, end: int) -> tuple[int, bool]:
    """How many frames follow each other, and whether nothing but zeros and tags follow them up to `end`."""
    count = 0
    while position < end and (size := _mp3_frame_bytes(source.at(position, 3))):
        position += size
        count += position <= end
    position = _after_zeros(source, position)
    return count, position >= end or _MP3_END.match(source.at(position, 8)) is not None


@functools.lru_cache(1000)  # a file has few different headers
def _mp3_frame_bytes(head: bytes) -> int:
    """The size of a frame with this header; 0 for anything but layers II and III, and where no bit rate is given."""
    bits = int.from_bytes(head.ljust(3, b"\0"), "big")
    version, layer, bit_rate, rate = bits >> 11 & 3, bits >> 9 & 3, bits >> 4 & 15, bits >> 2 & 3
    if bits >> 13 != 0x7FF or version == 1 or layer not in (1, 2) or bit_rate in (0, 15) or rate == 3:
        return 0
    is_first, is_two = version == 3, layer == 2
    hertz = _MP3_RATES[rate] >> (0 if is_first else 1 if version == 2 else 2)
    samples = 1152 if is_first or is_two else 576
    return samples * 125 * _MP3_BIT_RATES[is_first + (is_first and is_two)][bit_rate - 1] // hertz + (bits >> 1 & 1)


def _flac(source: _Bytes, first: int) -> Part:
    """A FLAC file, whose count of samples is repaired to unknown, so that it is decoded to its end."""
    end = _next_file(source, _after_flac_metadata(source, first))
    field = source.number(">Q", first + 18)  # in STREAMINFO: rate, channels, bits, and the count in the last 36 bits
    rate, count = field >> 44, field & _FLAC_COUNT
    if source.at(first + 4, 1)[:1] not in (b"\0", b"\x80") or not count:
        return Part(first, end)
    length = (count, rate) if rate and count <= MOST_SAMPLES_PER_BYTE * (end - first) else None
    return Part(first, end, ((first + 18, (field - count).to_bytes(8, "big")),), length=length)


def _after_flac_metadata(source: _Bytes, first: int) -> int:
    """Where the frames begin: the header of another file may be kept in what comes before, or a picture."""
    position = first + 4
    for _ in range(_MOST_CHUNKS):
        kind, size = source.number("B", position), source.number(">I", position) & 0xFFFFFF
        position += 4 + size
        if kind & 0x80:
            break
    return position if position < source.size else first + 4


def _begins(source: _Bytes, position: int) -> bool:
    """Whether a file begins there."""
    head = source.at(position, _LONGEST_PATTERN)
    return _BEGINNING.match(head) is not None or _mp3_begins(source, position)


def _mp3_begins(source: _Bytes, position: int) -> bool:
    """Whether so many frames of one kind follow each other there, perhaps behind a tag."""
    if source.at(position, 3) == b"ID3":
        position = _after_tag(source, position, _PADDING)
    kinds = set()
    for _ in range(_MP3_FRAMES):
        head = source.at(position, 3)
        size = _mp3_frame_bytes(head)
        if not size:
            return False
        kinds.add((head[1] & 0xFE, head[2] & 0x0C))  # version and layer, rate
        position += size
    return len(kinds) == 1


def _next_file(
    source: _Bytes, position: int, end: int | None = None, *, mp3: bool = True, in_samples: bool = False
) -> int:
    """Where another file begins, from `position` on.

    Args:
        source: the bytes.
        position: the first place that is looked at.
        end: what is given where no file begins before it; None: the end of the bytes.
        mp3: whether it may be an MP3.
        in_samples: whether samples are looked through, where chance, or a tone, may look like frames of an MP3: only
            one with a tag or with a count of its frames is found.
    """
    end = source.size if end is None else min(end, source.size)
    if position < end and _BEGINNING.match(source.at(position, _LONGEST_PATTERN)):
        return position
    window = _KEPT_BYTES  # what was joined is most often found at once
    while position < end:
        content = source.at(position, min(window, end - position) + _LONGEST_PATTERN)
        other = _BEGINNING.search(content)
        found = [other.start()] if other else []
        if mp3:
            before = content[: other.start() + _LONGEST_PATTERN] if other else content
            found += _first_mp3(source, position, before, _MP3_COUNT if in_samples else _MP3_FRAME)
        if found and position + min(found) < end:
            return position + min(found)
        position, window = position + window, _READ_BYTES
    return end


def _first_mp3(source: _Bytes, begin: int, content: bytes, frame: re.Pattern[bytes]) -> list[int]:
    """Where an MP3 begins in bytes that stand at `begin`, by its tag and by its frames, as far as there are such."""
    found, count = [], 0
    for pattern in (_MP3_TAG, frame):
        for match in pattern.finditer(content):
            if _mp3_begins(source, begin + match.start()):
                found.append(match.start())
                break
            count += 1
            if count > _MOST_PLACES:
                raise ContainerError("it is full of what looks like MP3 frames, and is none")
    return found


def _after_tag(source: _Bytes, position: int, most_zeros: int | None = None) -> int:
    """The position after ID3 tags, and after the zeros that follow some: all of them, or about `most_zeros`."""
    for _ in range(_MOST_TAGS):
        tag = source.at(position, 10)
        if tag[:3] != b"ID3" or len(tag) < 10:
            return position
        position += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        position = _after_zeros(source, position, most_zeros)
    raise ContainerError(f"{_MOST_TAGS} or more ID3 tags follow each other")


def _after_zeros(source: _Bytes, position: int, most: int | None = None) -> int:
    first = position
    while (padding := source.at(position, 4096)) and not padding.strip(b"\0"):
        position += len(padding)
        if most is not None and position - first >= most:
            return position
    return position + len(padding) - len(padding.lstrip(b"\0"))


def _is_mp3_frame(source: _Bytes, position: int) -> bool:
    """Whether the header of an MPEG frame is there: none of its fields has a value without a meaning."""
    head = int.from_bytes(source.at(position, 4).ljust(4, b"\0"), "big")
    version, layer, bit_rate, rate = head >> 19 & 3, head >> 17 & 3, head >> 12 & 15, head >> 10 & 3
    return head >> 21 == 0x7FF and version != 1 and layer != 0 and bit_rate != 15 and rate != 3


def _find(source: _Bytes, pattern: re.Pattern[bytes], position: int) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Where a pattern begins, from `position` on, and its match."""
    window = _KEPT_BYTES  # the first one is most often near
    while position < source.size:
        for found in pattern.finditer(source.at(position, window + _LONGEST_PATTERN)):
            if found.start() < window:
                yield position + found.start(), found
        position, window = position + window, _READ_BYTES
