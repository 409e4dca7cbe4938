"""The manual's pages: their code blocks, and the commands in these."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        language: what stands after the fence: sh, python, yaml.
        title: the file that it is to be written to, if it says so.
        text: its content.
    """

    language: str
    title: str | None
    text: str


def name_of(page: Path) -> str:
    """The page as a test's id."""
    return str(page.relative_to(ROOT))


def blocks(markdown: str) -> list[Block]:
    """The fenced code blocks of a text, in order."""
    return [Block(found["language"], found["title"], found["text"]) for found in _FENCE.finditer(markdown)]


def commands(page: Path) -> list[list[str]]:
    """The words of each command in a page's shell blocks, without variables, comments and redirections."""
    scripts = [block.text for block in blocks(page.read_text(encoding="utf-8")) if block.language == "sh"]
    lines = [line for script in scripts for line in script.replace("\\\n", " ").splitlines()]
    return [words for words in map(_words, lines) if words]


def inline_commands(page: Path) -> list[list[str]]:
    """Likewise those that stand in the text, as `kws models`."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [_words(found) for found in re.findall(r"`((?:kws|python) [^`]+)`", text)]


def _words(line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    return words[: words.index(">")] if ">" in words else words


def sections(markdown: str) -> dict[str, list[Block]]:
    """Heading of the second level → the code blocks below it."""
    parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)
    return {heading: blocks(text) for heading, text in zip(parts[1::2], parts[2::2], strict=True)}
