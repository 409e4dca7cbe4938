"""Where another file begins that was joined to one, of any kind that is read or refused."""

from __future__ import annotations

import re

from kws_data.containers.file_bytes import KEPT_BYTES, LONGEST_PATTERN, READ_BYTES, W64_RIFF, Bytes, ContainerError
from kws_data.containers.mp3 import MP3_COUNT, mp3_begins

# Places in 1 MB that look like a frame of an MP3, so that a file full of them costs no time. Compressed audio has 80.
_MOST_PLACES = 10_000
# How a file begins that was joined to another one
_BEGINNING = re.compile(
    b"|".join(
        (
            rb"(?:RIFF|RIFX|RF64).{4}WAVE",
            rb"FORM.{4}(?:AIFF|AIFC|8SVX|16SV)",
            rb"caff\x00\x01\x00\x00",
            rb"\.snd\x00.{7}\x00\x00\x00.\x00.{3}\x00",  # offset, size, encoding, rate, channels
            rb"dns\..{2}\x00.{5}.\x00\x00\x00.{3}\x00.\x00",
            re.escape(W64_RIFF),
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


def begins(source: Bytes, position: int) -> bool:
    """Whether a file begins there."""
    head = source.at(position, LONGEST_PATTERN)
    return _BEGINNING.match(head) is not None or mp3_begins(source, position)


def next_file(
    source: Bytes, position: int, end: int | None = None, *, mp3: bool = True, in_samples: bool = False
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
    if position < end and _BEGINNING.match(source.at(position, LONGEST_PATTERN)):
        return position
    window = KEPT_BYTES  # what was joined is most often found at once
    while position < end:
        content = source.at(position, min(window, end - position) + LONGEST_PATTERN)
        other = _BEGINNING.search(content)
        found = [other.start()] if other else []
        if mp3:
            before = content[: other.start() + LONGEST_PATTERN] if other else content
            found += _first_mp3(source, position, before, MP3_COUNT if in_samples else _MP3_FRAME)
        if found and position + min(found) < end:
            return position + min(found)
        position, window = position + window, READ_BYTES
    return end


def _first_mp3(source: Bytes, begin: int, content: bytes, frame: re.Pattern[bytes]) -> list[int]:
    """Where an MP3 begins in bytes that stand at `begin`, by its tag and by its frames, as far as there are such."""
    found, count = [], 0
    for pattern in (_MP3_TAG, frame):
        for match in pattern.finditer(content):
            if mp3_begins(source, begin + match.start()):
                found.append(match.start())
                break
            count += 1
            if count > _MOST_PLACES:
                raise ContainerError("it is full of what looks like MP3 frames, and is none")
    return found
