"""Tables as reports show them: text for people, and beside it the plain value that sorting goes by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table.

    Attributes:
        text: as shown.
        value: what sorting goes by, as text; '' for what is not known, which sorts last.
        href: where the text leads.
    """

    text: str
    value: str
    href: str | None = None


@dataclass(frozen=True)
class Column:
    """A heading, and whether figures stand below it."""

    heading: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a title; `rows` hold a cell for each column."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]]


Format = Callable[[Any], str]


def percent(fraction: float) -> str:
    """0.926 → `92.6 %`."""
    return f"{100 * fraction:.1f} %"


def number(value: float) -> str:
    """12345 → `12,345`; 0.01234 → `0.0123`."""
    return f"{value:,}" if isinstance(value, int) or float(value).is_integer() else f"{value:.3g}"


def decibels(value: float) -> str:
    """-23.456 → `−23.5 dB`."""
    return f"{value:.1f} dB".replace("-", "−")


def fixed(digits: int) -> Format:
    """A format with so many digits after the point."""
    return lambda value: f"{value:,.{digits}f}"


def cell(value: Any, form: Format | None = None, href: str | None = None) -> Cell:
    """The cell of a plain value; None and NaN show as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return Cell(DASH, "")
    if hasattr(value, "item"):
        value = value.item()  # of NumPy
    text = str(value) if form is None else form(value)
    return Cell(text, str(value), href)


def table(
    title: str,
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, tuple[str, Format | None]],
    hrefs: Mapping[str, str] | None = None,
) -> Table:
    """A table of rows that are mappings.

    Args:
        title: what it shows.
        rows: each with the keys of `columns`; what is missing is not known.
        columns: per key the heading, and the format of a figure; None for text.
        hrefs: for keys of `columns` that link somewhere, the key of the address.
    """
    hrefs = hrefs or {}
    return Table(
        title,
        [Column(heading, form is not None) for heading, form in columns.values()],
        [[cell(row.get(key), form, row.get(hrefs.get(key, ""))) for key, (_, form) in columns.items()] for row in rows],
    )


def of_frame(title: str, frame: pd.DataFrame, columns: Mapping[str, tuple[str, Format | None]]) -> Table:
    """A table of a data frame's rows; see `table`."""
    return table(title, ({str(key): value for key, value in row.items()} for row in frame.to_dict("records")), columns)


def as_markdown(table: Table) -> str:
    """The table as GitHub's Markdown, without its title."""
    heading = [escape_markdown(column.heading) for column in table.columns]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    rows = [[_linked(cell) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, rule, *rows))


def _linked(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    return text if cell.href is None else f"[{text}](<{cell.href}>)"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    for special in "\\`*_[]<>|#~$&!":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())
