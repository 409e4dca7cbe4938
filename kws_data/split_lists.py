"""Which clips a list such as `testing_list.txt` names: as the release writes it, or as people and programs do."""

from __future__ import annotations

import csv  # noqa: TID251 - to read
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kws_data.folders import nfc
from kws_data.text import decoded

_COMMENTS = ("#", ";")
_DELIMITERS = ",;\t| "
_MOST_COLUMNS, _LONGEST_LINE = 20, 4096  # of a list, and not of some other file
_SHOWN = 200  # characters of a line
# Clips are often converted after a list was made, also from formats that are not read here.
_SUFFIX = re.compile(
    r"(\.(wave?|flac|og[ga]|opus|mp[34]|m4a|aac|aif[fc]?|au|wma|webm|sph|amr|3gp|caf|w64|rf64|raw|pcm))+$",
    re.IGNORECASE,
)
_MARKS = "\ufeff\u200b \t\xa0\0"  # at the ends of a line: of no meaning, or not visible


class Listed(NamedTuple):
    """What the lines of a list name.

    Attributes:
        paths: the clips, as the catalog has their paths.
        lines: number of lines that should name one.
        unmatched: the lines that name no clip, as 'line 3: …'.
        ambiguous: the lines that could name several clips, with two of them.
    """

    paths: set[str]
    lines: int
    unmatched: list[str]
    ambiguous: list[str]


def read_list(file: Path, paths: Sequence[str]) -> Listed:
    """Find the clips that a list names.

    A line counts as naming a clip if it differs only in what is harmless: backslashes, folders before the word's, the
    Unicode form, the suffix, upper case, quotes, other columns; and only if no other clip would do as well.

    Args:
        file: a text file: UTF-8, UTF-16 or Windows-1252, with any line ends, comments (#) and perhaps columns.
        paths: of all clips, below the data set's folder.

    Raises:
        OSError: it cannot be read.
    """
    index = _Index(paths)
    named: set[str] = set()
    lines, unmatched, ambiguous = 0, [], []
    header: list[str] = []
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", decoded(file.read_bytes())), 1):
        line = raw.strip(_MARKS)
        found = index.find(line) if line else []
        if not found and (not line or line.startswith(_COMMENTS)):
            continue
        if not found and not lines and not header and _is_header(line):
            header = [_shown(number, line)]
            continue
        lines += 1
        if len(found) == 1:
            named.update(found)
        elif found:
            ambiguous.append(f"{_shown(number, line)} ({found[0]}, {found[1]})")
        else:
            unmatched.append(_shown(number, line))
    if not lines:  # a header of nothing is no list: a packed file, say
        lines, unmatched = len(header), header
    return Listed(named, lines, unmatched, ambiguous)


def _shown(number: int, line: str) -> str:
    return f"line {number}: '{line if len(line) <= _SHOWN else line[:_SHOWN] + '…'}'"


def _is_header(line: str) -> bool:
    return not any(map(_SUFFIX.search, [line, *_fields(line)])) and not re.search(r"[/\\]", line)


def _fields(line: str) -> list[str]:
    """The columns of a line, by every delimiter that it may have."""
    fields = []
    for delimiter in _DELIMITERS:
        if delimiter in line:
            row = next(csv.reader([line[:_LONGEST_LINE]], delimiter=delimiter, skipinitialspace=True), [])
            fields += [field.strip(_MARKS) for field in row[:_MOST_COLUMNS]]
    return fields


def _stem(path: str) -> str:
    return _SUFFIX.sub("", nfc(path))


def _folded_stem(path: str) -> str:
    return _stem(path).casefold()


def _file_stem(path: str) -> str:
    return _stem(path.rpartition("/")[2])


class _Index:
    """Clips by their paths, in forms that leave out more and more of what may differ."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self.exact = set(paths)
        self._deepest = max((path.count("/") + 1 for path in paths), default=0)
        self._tables: dict[Callable[[str], str], dict[str, list[str]]] = {}

    def find(self, line: str) -> list[str]:
        """The clips that a line may name, by the strictest reading that finds any; sorted."""
        if line in self.exact:
            return [line]
        if line.startswith(_COMMENTS):
            return []
        for names in self._readings(line):
            if found := {path for name in names for path in self._named(name)}:
                return sorted(found)
        return []

    def _readings(self, line: str) -> Iterator[list[str]]:
        yield [line.strip("\"'`")]
        fields = _fields(line)
        yield [field for field in fields if re.search(r"[/\\]", field)]
        yield [f"{word}/{name}" for word in fields for name in fields if word and name and word != name]
        yield [field for field in fields if _SUFFIX.search(field)]

    def _named(self, name: str) -> list[str]:
        """The clips that a path names, which may begin with folders above the data set's."""
        parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
        for form in (nfc, _stem, _folded_stem):
            for start in range(max(0, len(parts) - self._deepest), max(1, len(parts) - 1)):
                if found := self._of_form(form).get(form("/".join(parts[start:]))):
                    return found
        return self._of_form(_file_stem).get(_stem(parts[0]), []) if len(parts) == 1 else []

    def _of_form(self, form: Callable[[str], str]) -> dict[str, list[str]]:
        """The clips by a form of their paths; computed for the first list line that needs it."""
        if form not in self._tables:
            table = defaultdict(list)
            for path in self.paths:
                table[form(path)].append(path)
            self._tables[form] = dict(table)
        return self._tables[form]
