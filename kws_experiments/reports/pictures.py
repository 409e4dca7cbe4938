"""Matplotlib's figures for reports: SVG whose colours follow the page's theme, and PNG for Markdown."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from kws_experiments.plots.style import STYLE, plt
from kws_experiments.reports.players import data_address

# Matplotlib's colours → the variables of report.css
_THEME = {
    "#000000": "--ink",
    "#808080": "--plot-grey",
    "#999999": "--plot-grey",
    "#b0b0b0": "--plot-grid",
    "#cccccc": "--plot-grid",
    "#1f77b4": "--plot-blue",
    "#ff7f0e": "--plot-orange",
    "#2ca02c": "--plot-green",
    "#d62728": "--plot-red",
    "#9467bd": "--plot-purple",
}
_PNG_DPI = 120
_HALF_SCREEN_INCHES = 8
# pixels per point of the figure's own size: small enough for a phone, and not too large on a wide screen
_LEAST_SCALE, _MOST_SCALE = 0.8, 1.5


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        name: of its file, without a suffix.
        title: what it shows, also for people who cannot see it.
        caption: how to read it; may be empty.
        html: an element for a page.
        png: the file.
        wide: whether half a screen is too narrow for it.
    """

    name: str
    title: str
    caption: str
    html: Markup
    png: bytes
    wide: bool


def draw(name: str, title: str, figure: Callable[[], Figure], caption: str = "", *, svg: bool = True) -> Picture:
    """Call `figure` under the reports' style, and keep the drawing as SVG (without `svg`: as PNG) and as a PNG file."""
    with plt.rc_context(STYLE):
        drawn = figure()
        png = io.BytesIO()
        drawn.savefig(png, format="png", dpi=_PNG_DPI)
        drawn.set_layout_engine("none")  # laid out already, which takes most of the time
        if svg:
            element = as_svg(drawn, name, title)
        else:
            element = Markup('<img src="{}" alt="{}">').format(data_address(png.getvalue(), "image/png"), title)
        width = drawn.get_figwidth()
    plt.close(drawn)
    return Picture(name, title, caption, element, png.getvalue(), wide=width > _HALF_SCREEN_INCHES)


def as_svg(figure: Figure, name: str, title: str) -> Markup:
    """An `<svg>` element; `name` opens its ids, since those of a page must differ."""
    text = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        # without a date and a creator, so that the same figures give the same bytes
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(rf"({'|'.join(_THEME)})\b", lambda match: f"var({_THEME[match[0]]})", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1sans-serif", svg)
    width, height = (72 * inches for inches in figure.get_size_inches())
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}" fill="var(--ink)"'
        f' style="min-width: {_LEAST_SCALE * width:.0f}px; max-width: {_MOST_SCALE * width:.0f}px"'
        ' xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return Markup(re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1))
