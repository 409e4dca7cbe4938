"""What all pictures share: their style, and how one is written."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from kws_data.storage.atomic import replace_file

matplotlib.rcParams["text.usetex"] = False  # a matplotlibrc in the current folder could have it start LaTeX
# a word with dollar signs is not a formula, and one in a script that the font lacks is no news: pages have other fonts
matplotlib.rcParams["text.parse_math"] = False
warnings.filterwarnings("ignore", "Glyph .* missing from font")
# of evaluations' and reports' pictures
STYLE: Any = {
    "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": "medium",
}  # fmt: skip


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all, and close it."""
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
