"""Templates → text. In HTML everything is escaped but the pictures, which this project draws itself."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from kws_experiments.reports.tables import as_markdown, escape_markdown, number, percent


def render(template: str, **values: Any) -> str:
    """The text of a template in `templates/`; one whose name ends in `.html.j2` escapes what it is given."""
    environment = Environment(
        loader=PackageLoader("kws_experiments.reports"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown_table"] = as_markdown
    environment.filters["markdown"] = escape_markdown
    environment.filters["fence"] = _fence
    environment.filters["breakable"] = _breakable
    environment.filters["percent"] = percent
    environment.filters["number"] = number
    return environment.get_template(template).render(values)


def _breakable(text: str) -> Markup:
    """Text that may go on in a new line after a dot, slash or underscore within it, as paths must on a phone."""
    return Markup("<wbr>").join(re.split(r"(?<=[^\W_][./_])(?=[^\W_])", text))


def _fence(code: str, language: str = "") -> str:
    """A block of code in Markdown, fenced by more backticks than stand in it."""
    ticks = "```"
    while ticks in code:
        ticks += "`"
    return f"{ticks}{language}\n{code.rstrip()}\n{ticks}"
