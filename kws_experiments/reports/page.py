"""A report as data: sections of parts, which `html` and `markdown` render, so that each statement is written once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kws_experiments.reports.pictures import Picture
from kws_experiments.reports.players import Player
from kws_experiments.reports.tables import Table


@dataclass(frozen=True)
class Text:
    """A paragraph; `look` is '', 'note' (small) or 'warning'."""

    text: str
    look: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Code:
    """A block of code; with a `summary` it is folded behind this text."""

    text: str
    language: str = "sh"
    summary: str = ""


@dataclass(frozen=True)
class Tiles:
    """The main results: name, value, and a remark each."""

    rows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Clips:
    """Players of clips, and a picture of the same clips for formats that play nothing."""

    players: list[Player]
    picture: Picture | None = None


@dataclass(frozen=True)
class Group:
    """Parts that stand side by side where the page is wide enough."""

    parts: Sequence[Table] | Sequence[Picture]

    def __bool__(self) -> bool:
        return bool(self.parts)


Part = Text | Bullets | Heading | Code | Tiles | Clips | Group | Table | Picture


def filled(*parts: Part | None) -> list[Part]:
    """Those with contents: not None, no table without rows, no group without parts."""
    return [part for part in parts if part]


@dataclass(frozen=True)
class Section:
    """A section, and its id on the page."""

    id: str
    title: str
    parts: list[Part]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: of the browser's window.
        heading: of the page.
        lead: what comes before the contents.
        sections: one below the other.
        footer: the last sentence.
    """

    title: str
    heading: str
    lead: list[Part]
    sections: list[Section]
    footer: str = ""

    def parts(self) -> Iterator[Part]:
        """All parts of all sections, those within others too."""
        for section in self.sections:
            for part in section.parts:
                yield part
                if isinstance(part, Group):
                    yield from part.parts
                elif isinstance(part, Clips) and part.picture:
                    yield part.picture

    def pictures(self) -> list[Picture]:
        """All pictures, from the top."""
        return [part for part in self.parts() if isinstance(part, Picture)]
