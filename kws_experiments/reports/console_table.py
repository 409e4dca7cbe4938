"""Tables with many columns on a console of any width: no word is broken, and what finds no room is named."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_FRAME = 3  # characters that a column takes beside its text: a space on either side and a line; the table has one more


@dataclass(frozen=True)
class Column:
    """A column's heading and its cells, from the top; a number and its unit stay in one line."""

    heading: str
    cells: Sequence[str]
    numeric: bool = False

    @property
    def widest(self) -> int:
        """Characters of the longest line, if none is wrapped."""
        return max(map(cell_len, self._lines))

    @property
    def narrowest(self) -> int:
        """Characters of the longest part that is kept whole."""
        return max(cell_len(part) for line in self._lines for part in ([line] if self.numeric else line.split(" ")))

    def with_heading_in_lines(self) -> Column:
        """The same with the heading broken where names are joined, into lines no wider than need be."""
        parts = re.findall(r"[^_.\- ]+[_.\- ]*|[_.\- ]+", self.heading)
        room = Column("\n".join(part.rstrip() for part in parts), self.cells, self.numeric).narrowest
        lines = [""]
        for part in parts:
            if lines[-1] and cell_len(lines[-1] + part.rstrip()) > room:
                lines.append("")
            lines[-1] += part
        return Column("\n".join(line.rstrip() for line in lines), self.cells, self.numeric)

    @property
    def _lines(self) -> list[str]:
        return [line for text in (self.heading, *self.cells) for line in text.split("\n")]


def print_table(
    columns: Sequence[Column], *, title: str | None = None, keep: Collection[str] = (), rest: str = ""
) -> None:
    """Print it, on a narrow console with its headings in several lines, and then without its widest columns.

    What isn't printed to a terminal is as wide as need be.

    Args:
        columns: of as many cells each.
        title: above them.
        keep: headings of columns that are never left out.
        rest: where columns that were left out can be seen.
    """
    console = Console()
    needed = 1 + sum(column.widest + _FRAME for column in columns)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=max(needed, console.width))
    shown = dict(enumerate(columns))
    if needed > console.width:
        shown = {place: column.with_heading_in_lines() for place, column in shown.items()}
        others = [place for place, column in enumerate(columns) if column.heading not in keep]
        others.sort(key=lambda place: shown[place].narrowest)
        while _least(shown.values()) > console.width and others:
            del shown[others.pop()]
    table = Table(title=title, title_justify="left")
    for column, width in zip(shown.values(), _widths(list(shown.values()), console.width), strict=True):
        table.add_column(
            Text(column.heading), justify="right" if column.numeric else "left", width=width, overflow="fold"
        )
    for row in zip(*(column.cells for column in shown.values()), strict=True):
        table.add_row(*map(Text, row))
    console.print(table)
    if left_out := [column.heading for place, column in enumerate(columns) if place not in shown]:
        console.print(
            f"no room for: {', '.join(left_out)}{rest and '; ' + rest}", soft_wrap=True, highlight=False, markup=False
        )


def _least(columns: Iterable[Column]) -> int:
    return 1 + sum(column.narrowest + _FRAME for column in columns)


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """Of the columns' text: what is whole first, and the room that is left to the columns that wrap, from the left."""
    room = max(0, width - _least(columns))
    widths = []
    for column in columns:
        more = min(room, column.widest - column.narrowest)
        widths.append(column.narrowest + more)
        room -= more
    return widths
