"""What all pictures share: their style, and how one is written."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kws_data.storage.atomic import replace_file

matplotlib.rcParams["text.usetex"] = False  # a matplotlibrc in the current folder could have it start LaTeX
# a word with dollar signs is not a formula, and one in a script that the font lacks is no news: pages have other fonts
matplotlib.rcParams["text.parse_math"] = False
warnings.filterwarnings("ignore", "Glyph .* missing from font")
_DPI = 120
# of evaluations' and reports' pictures
STYLE: Any = {
    "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": "medium",
}  # fmt: skip


def legend_below(figure: Figure, axis: Axes, *, columns: int, title: str | None = None) -> None:
    """A legend of what `axis` shows, below the figure's axes, where it hides nothing."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=columns, title=title)


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all, and close it."""
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    with replace_file(path) as temporary:
        canvas.print_png(temporary)  # draws once; `figure.savefig` draws twice, for a layout that is made anyway
    plt.close(figure)
