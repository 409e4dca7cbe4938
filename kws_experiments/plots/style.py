"""What all pictures share: their style, and how one is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from kws_data.storage.atomic import replace_file

plt.rcParams["text.usetex"] = False  # a matplotlibrc in the current folder could have it start LaTeX

# of evaluations' and reports' pictures; a word with dollar signs is not a formula
STYLE: Any = {
    "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": "medium",
    "text.parse_math": False,
}  # fmt: skip


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all, and close it."""
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
