"""Tables of reports: text for people, and the plain value that sorting goes by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: as shown.
        value: what sorting goes by, as text; '' for unknown values, which sort last.
        href: where the text links to.
    """

    text: str
    value: str
    href: str | None = None


@dataclass(frozen=True)
class Column:
    """A heading, and whether the column holds numbers."""

    heading: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a title; `rows` hold a cell for each column. False if it has no rows."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    sortable: bool = True

    def __bool__(self) -> bool:
        return bool(self.rows)


Format = Callable[[Any], str]
Columns = Mapping[str, str | tuple[str, Format]]


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


def cell(value: Any, form: Format | None = None, href: Any = None) -> Cell:
    """The cell of a plain value; None and NaN show as a dash, and an address that is not text is no link."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return Cell(DASH, "")
    if hasattr(value, "item"):
        value = value.item()  # of NumPy
    text = str(value) if form is None else form(value)
    return Cell(text, str(value), href if isinstance(href, str) else None)


def table(
    title: str,
    rows: pd.DataFrame | Iterable[Mapping[str, Any]],
    columns: Columns,
    hrefs: Mapping[str, str] | None = None,
    *,
    sortable: bool = True,
) -> Table:
    """A table of a data frame, or of rows that are mappings.

    Args:
        title: what it shows.
        rows: each with the keys of `columns`; values that are missing are unknown.
        columns: per key the heading; with a format, if the column holds numbers.
        hrefs: for keys of `columns` with links, the key of the address.
        sortable: whether the page sorts it by click.
    """
    records: Iterable[Mapping[Any, Any]] = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
    formats = {key: (column, None) if isinstance(column, str) else column for key, column in columns.items()}

    def cells(row: Mapping[Any, Any]) -> list[Cell]:
        return [cell(row.get(key), form, row.get((hrefs or {}).get(key))) for key, (_, form) in formats.items()]

    headings = [Column(heading, form is not None) for heading, form in formats.values()]
    return Table(title, headings, [cells(row) for row in records], sortable)
