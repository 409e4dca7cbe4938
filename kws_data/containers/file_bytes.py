"""Bytes of a file that may be large or damaged, and how its container can be refused."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
W64_REST = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of the names of all other chunks, after their four letters
READ_BYTES = 1 << 20
LONGEST_PATTERN = 64
KEPT_BYTES = 4096
PADDING = 4096  # bytes after the samples that are no chunk: more may be samples that wrong sizes left out
MOST_CHUNKS = 10_000  # so that a file of nothing but empty chunks costs no time


class CutShortError(Exception):
    """The file ends before its container says; the message says how."""


class ContainerError(Exception):
    """Reading the file would take too long, or leave samples out; the message says why."""


class Bytes:
    """Bytes of a file, of which those around the last ones are kept: most headers need no more."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self._start, self._kept = 0, file.read(KEPT_BYTES)

    def at(self, position: int, count: int) -> bytes:
        """`count` bytes from `position` on, or fewer where the file ends before."""
        if not 0 <= position < self.size:  # a damaged size leads anywhere
            return b""
        count = min(count, self.size - position)  # a buffer for more than there is would cost more than reading it
        offset = position - self._start
        if not 0 <= offset <= len(self._kept) - count:
            self.file.seek(position)
            self._start, self._kept, offset = position, self.file.read(max(count, KEPT_BYTES)), 0
        return self._kept[offset : offset + count]

    def number(self, form: str, position: int) -> int:
        """A number at a position; 0 where the file ends before."""
        content = self.at(position, struct.calcsize(form))
        return struct.unpack(form, content)[0] if len(content) == struct.calcsize(form) else 0


def after_zeros(source: Bytes, position: int, most: int | None = None) -> int:
    """Behind the zeros that stand there: all of them, or about `most`."""
    first = position
    while (padding := source.at(position, 4096)) and not padding.strip(b"\0"):
        position += len(padding)
        if most is not None and position - first >= most:
            return position
    return position + len(padding) - len(padding.lstrip(b"\0"))


def find(source: Bytes, pattern: re.Pattern[bytes], position: int) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Where a pattern begins, from `position` on, and its match."""
    window = KEPT_BYTES  # the first one is most often near
    while position < source.size:
        for found in pattern.finditer(source.at(position, window + LONGEST_PATTERN)):
            if found.start() < window:
                yield position + found.start(), found
        position, window = position + window, READ_BYTES
