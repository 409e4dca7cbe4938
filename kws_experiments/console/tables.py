"""Rich's console, and tables on it: whole if there is room, else without their widest columns, which are then named."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import rich.console
from rich.cells import cell_len
from rich.segment import Segment
from rich.table import Table

from kws_data.text import printable

_FRAME = 3  # characters of a column beside its text: a space on both sides and a line; the table has one line more
Column = tuple[str, Sequence[str]]


class Console(rich.console.Console):
    """Rich's console, which takes text for text: no markup in it, and control characters are shown, not obeyed."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False, highlight=False)

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """See rich."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text, keep="\n"), style, control)


def by_column(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[Column]:
    """Rows as the columns that `print_table` takes."""
    table = list(rows)
    return [(heading, [row[index] for row in table]) for index, heading in enumerate(headings)]


def print_table(
    columns: Sequence[Column],
    *,
    title: str | None = None,
    numeric: Collection[str] = (),
    keep: Collection[str] = (),
    rest: str = "",
) -> None:
    """Print a table. If it is too wide, break headings where names are joined, then leave out the widest columns.

    Without a terminal the output is as wide as the table.

    Args:
        columns: heading and cells; all have the same number of cells.
        title: above the table.
        numeric: headings of columns that are aligned to the right.
        keep: headings of columns that are never left out.
        rest: where columns that were left out can be seen.
    """
    console = Console()
    columns = [(printable(heading), list(map(printable, cells))) for heading, cells in columns]
    shown = dict(enumerate(columns))
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max(console.width, _width(columns))
    if _width(columns) > console.width:
        shown = {
            index: (re.sub(r"(?<=[_.\- ])(?=\w)", "\n", heading), cells) for index, (heading, cells) in shown.items()
        }
        optional = [index for index, (heading, _) in enumerate(columns) if heading not in keep]
        optional.sort(key=lambda index: _width([shown[index]]))
        while _width(shown.values()) > console.width and optional:
            del shown[optional.pop()]
    table = Table(title=title, title_justify="left")
    for index, (heading, _) in shown.items():
        table.add_column(heading, justify="right" if columns[index][0] in numeric else "left", overflow="fold")
    for row in zip(*(cells for _, cells in shown.values()), strict=True):
        table.add_row(*row)
    console.print(table)
    if left_out := [heading for index, (heading, _) in enumerate(columns) if index not in shown]:
        console.print(f"no room for: {', '.join(left_out)}{rest and '; ' + rest}", soft_wrap=True)


def _width(columns: Iterable[Column]) -> int:
    return 1 + sum(_FRAME + max(cell_len(line) for text in (heading, *cells) for line in text.split("\n"))
                   for heading, cells in columns)  # fmt: skip
