"""Text from outside (words, paths, notes, libraries' messages), escaped for where it goes; JSON needs none of this.

Terminals and logs take `printable`, CSV files `to_csv` (read again with `from_csv`), Markdown `markdown`. Pages escape
by themselves (`reports.html`), pictures take text as it is (`plots.style`).
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# control characters, line separators, marks that reverse the direction of writing, and halves of characters
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(r"[\s']*[=+\-@＝＋－＠]")
# where a cell begins for a program that takes semicolons for commas, as in many countries
_BEHIND_SEMICOLON = re.compile(r""";(?=[\s"']*[=+\-@＝＋－＠])""")
_MARKED_BEHIND_SEMICOLON = re.compile(r""";'(?=[\s"']*[=+\-@＝＋－＠])""")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_MARKED_DOWN = re.compile(r"[\\`*\[\]<>|#~$&!]|(?<![^\W_])_|_(?![^\W_])")  # underscores within names mean nothing


def printable(text: object, *, keep: str = "") -> str:
    """The text with control characters as Python writes them (`\\n`, `\\x1b`), so that it is one line and only that.

    Args:
        text: anything that has a text.
        keep: control characters that stay: of a document its line breaks.
    """
    return _CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), str(text))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def to_csv(table: pd.DataFrame, **options: Any) -> str:
    """The columns of a table as CSV, a line per row. No cell is a formula: texts that begin like one get a `'`,
    also behind a semicolon, where a cell begins for some programs.

    `options` are pandas's. Numbers stay as they are, and so do texts that are numbers.
    """
    import numpy as np
    from pandas.api.types import is_numeric_dtype

    table = table.rename(columns=_csv_cell)
    for position, (_, column) in enumerate(table.items()):
        if not is_numeric_dtype(column):
            table.isetitem(position, np.array([*map(_csv_cell, column), None], dtype=object)[:-1])
    return table.to_csv(index=False, lineterminator="\n", **options)


def from_csv(table: pd.DataFrame) -> pd.DataFrame:
    """A table of CSV without the marks of `to_csv` before formulas. Control characters stay escaped."""
    return table.map(_from_csv_cell)


def _from_csv_cell(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    return _MARKED_BEHIND_SEMICOLON.sub(";", cell[1:] if _is_quoted(cell) else cell)


def _is_quoted(cell: Any) -> bool:
    return isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell) is not None


def _csv_cell(value: Any) -> Any:
    from pandas.api.types import is_scalar

    if is_scalar(value) and not isinstance(value, str):
        return value
    text = printable(value)
    text = _BEHIND_SEMICOLON.sub(";'", text)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def decoded(content: bytes) -> str:
    """Text in UTF-8, UTF-16 (with or without its mark), or else Windows-1252."""
    for bom, encoding in _BOMS:
        if content.startswith(bom):
            return content.decode(encoding, errors="replace")
    if content.count(0) > len(content) / 4:  # UTF-16 without a byte order mark
        return content.decode("utf-16-be" if content.startswith(b"\0") else "utf-16-le", errors="replace")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _MARKED_DOWN.sub(r"\\\g<0>", printable(" ".join(text.split())))
