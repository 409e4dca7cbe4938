"""Tables on the console: whole if there is room, else without their widest columns, which are then named."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_FRAME = 3  # characters of a column beside its text: a space on both sides and a line; the table has one line more
Column = tuple[str, Sequence[str]]


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
        table.add_column(Text(heading), justify="right" if columns[index][0] in numeric else "left", overflow="fold")
    for row in zip(*(cells for _, cells in shown.values()), strict=True):
        table.add_row(*map(Text, row))
    console.print(table)
    if left_out := [heading for index, (heading, _) in enumerate(columns) if index not in shown]:
        text = f"no room for: {', '.join(left_out)}{rest and '; ' + rest}"
        console.print(text, soft_wrap=True, highlight=False, markup=False)


def _width(columns: Iterable[Column]) -> int:
    return 1 + sum(_FRAME + max(cell_len(line) for text in (heading, *cells) for line in text.split("\n"))
                   for heading, cells in columns)  # fmt: skip
