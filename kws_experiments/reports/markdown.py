"""A report as GitHub's Markdown, its pictures in a folder beside it."""

from __future__ import annotations

from collections.abc import Iterable

from kws_data.text import markdown as escape
from kws_data.text import printable
from kws_experiments.reports.page import Bullets, Clips, Code, Group, Heading, Page, Part, Text, Tiles
from kws_experiments.reports.pictures import Picture
from kws_experiments.reports.tables import Cell, Table


def as_markdown(page: Page, pictures: str) -> str:
    """The text of the page.

    Args:
        page: the report.
        pictures: the folder of its pictures, `<name>.png`, relative to the file.
    """
    blocks = [f"# {escape(page.heading)}", *(_block(part, pictures) for part in page.lead)]
    for section in page.sections:
        blocks += [f"## {escape(section.title)}", *(_block(part, pictures) for part in section.parts)]
    return "\n\n".join(filter(None, [*blocks, escape(page.footer)])) + "\n"


def _block(part: Part, pictures: str) -> str:
    match part:
        case Text(text):
            return escape(text)
        case Bullets(texts):
            return "\n".join(f"- {escape(text)}" for text in texts)
        case Heading(text):
            return f"### {escape(text)}"
        case Code(text, language, summary):
            code = _fenced(text, language)
            return f"<details>\n<summary>{escape(summary)}</summary>\n\n{code}\n\n</details>" if summary else code
        case Tiles(rows):
            return _rows([[""] * 3, ["---", "---:", "---"], *(map(escape, row) for row in rows)])
        case Table():
            return f"**{escape(part.title)}**\n\n{table_rows(part)}"
        case Picture():
            image = f"![{escape(part.title)}]({pictures}/{part.name}.png)"
            return f"{image}\n\n{escape(part.caption)}" if part.caption else image
        case Clips(picture=picture):
            return _block(picture, pictures) if picture else ""
        case Group(inner):
            return "\n\n".join(_block(one, pictures) for one in inner)


def table_rows(table: Table) -> str:
    """The table without its title."""
    headings = [escape(column.heading) for column in table.columns]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    return _rows([headings, rule, *(map(_linked, row) for row in table.rows)])


def _rows(rows: Iterable[Iterable[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _linked(cell: Cell) -> str:
    return escape(cell.text) if cell.href is None else f"[{escape(cell.text)}](<{cell.href}>)"


def _fenced(code: str, language: str) -> str:
    """A block fenced by more backticks than the code has."""
    code = printable(code, keep="\n\t")
    ticks = "```"
    while ticks in code:
        ticks += "`"
    return f"{ticks}{language}\n{code.rstrip()}\n{ticks}"
