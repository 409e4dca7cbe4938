"""A report as one HTML file. Everything is escaped but the pictures, which this project draws itself."""

from __future__ import annotations

import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kws_data.text import printable
from kws_experiments.reports.page import Page

HTML = "report.html"  # the file's name


def as_html(page: Page) -> str:
    """The page, which needs nothing from outside."""
    environment = Environment(
        loader=PackageLoader("kws_experiments.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": breakable, "kind": lambda part: type(part).__name__.lower()}
    return printable(environment.get_template("page.html.j2").render(page=page), keep="\n\t")


def breakable(text: str) -> Markup:
    """Text that may go on in a new line after a dot, slash or underscore within it, as paths must on a phone.

    Not inside of a number, such as 20.09.
    """
    return Markup("<wbr>").join(re.split(r"(?<=[^\W_][./_])(?=[^\W_])(?!(?<=\d\.)\d)", text))
