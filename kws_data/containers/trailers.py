"""What follows the samples of a file: chunks, tags, text and the like, or samples that a wrong size left out."""

from __future__ import annotations

import codecs
import re
import struct

import numpy as np

from kws_data.containers.file_bytes import (
    KEPT_BYTES,
    MOST_CHUNKS,
    PADDING,
    READ_BYTES,
    W64_REST,
    Bytes,
    ContainerError,
    after_zeros,
)
from kws_data.containers.joined import begins, next_file
from kws_data.containers.mp3 import MP3_END

_SMALL_PADDING = 64  # PADDING for files whose two sizes do not agree, or that have one size only
_EVEN_BITS = 7.9  # per byte, of what is compressed: 4 kB of random bytes have 7.95, 16-bit speech 5 to 7.5
# Chunks that programs put behind the samples, in WAV, AIFF and CAF
_CHUNK_NAME = re.compile(
    rb"LIST|bext|[iI][dD]3[ \0]|cue |smpl|inst|fact|PEAK|JUNK|junk|PAD |FLLR|iXML|[_a]PMX|axml|cart|levl|DISP|umid|minf"
    rb"|elm1|regn|afsp|AFSp|acid|strc|plst|note|labl|ltxt|bwfm|ResU|SyLp|MARK|APPL|ANNO|NAME|AUTH|\(c\) |COM[MT]|INST"
    rb"|MIDI|AESD|SAUR|FVER|info|uuid|free|mark|strg|kuki|pakt|chan|peak|edct|midi|ovvw"
)
# How something begins that is no sample: tags, chunks (in Wave64 too), pictures, documents, archives
_NO_SAMPLES = re.compile(
    MP3_END.pattern + b"|" + _CHUNK_NAME.pattern + b"|.{4}" + re.escape(W64_REST)
    + rb"|list\x2f\x91\xcf\x11|\x89PNG|\xff\xd8\xff|GIF8|%PDF|PK\x03\x04|\x1f\x8b\x08|7z\xbc\xaf|Rar!",
    re.DOTALL,
)  # fmt: skip


def after_chunks(source: Bytes, position: int, form: str, end: int) -> int:
    """Behind the chunks that follow each other there and end by `end`; the beginning of another file is no chunk."""
    for _ in range(MOST_CHUNKS):
        after = _after_chunk(source, position, form, end)
        if after is None:
            break
        position = after
    return position


def _after_chunk(source: Bytes, position: int, form: str, end: int) -> int | None:
    """Behind the chunk that begins there and ends by `end`; None if there is none.

    Raises:
        ContainerError: it is one of samples.
    """
    size = source.number(form, position + 4)
    after = position + 4 + struct.calcsize(form) + size
    if not _is_name(source, position) or not position < after <= end or begins(source, position):
        return None
    if source.at(position, 4) == b"data":
        raise ContainerError("a second chunk of samples follows the first")
    if not size & 1 or form[1] != "I" or begins(source, after):
        return after
    # some writers leave out the byte that fills a chunk up
    return after + (after == end or not _is_name(source, after) or _is_name(source, after + 1))


def _is_name(source: Bytes, position: int) -> bool:
    return re.fullmatch(rb"[ -~]{3}[ -~\0]", source.at(position, 4)) is not None


def after_filler(source: Bytes, position: int, filled: int) -> int:
    """Where chunks may begin: at the position, at the next even one (`filled`), or behind zeros."""
    if _is_name(source, position) and not _is_name(source, filled):
        return position
    return filled if _is_name(source, filled) else after_zeros(source, position)


def before_chunks(source: Bytes, begin: int, end: int, form: str) -> int:
    """Where the chunks or the tag begin that end at `end`, behind samples of an unknown size; else `end`."""
    begin = max(begin, end - READ_BYTES)
    tried: set[int] = set()  # so that chains of chunks that join cost their length once
    for found in _CHUNK_NAME.finditer(source.at(begin, end - begin)):
        position: int | None = begin + found.start()
        while position is not None and position not in tried:
            tried.add(position)
            position = _after_chunk(source, position, form, end)
            if position is not None and end <= position <= end + 1:
                return begin + found.start()
    return end - 128 if end - 128 >= begin and source.at(end - 128, 3) == b"TAG" else end


def leaves_out(source: Bytes, end: int, *, sizes_agree: bool = False) -> bool:
    """Whether samples follow those that end there.

    Zeros, text, tags, pictures and what begins as a chunk are none, and neither is another file. If the size of the
    samples and that of the file agree, a few bytes may be anything, and so may bytes that are spread evenly, as those
    of an archive.
    """
    following = next_file(source, end)
    if following - end <= (PADDING if sizes_agree else _SMALL_PADDING):
        return False
    begin = after_zeros(source, end)
    content = source.at(begin, min(following - begin, READ_BYTES))
    if begin >= following or _NO_SAMPLES.match(content) or _is_text(content[:KEPT_BYTES]):
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
