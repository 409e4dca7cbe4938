"""Pictures of an evaluation, from its metrics and tables: each one narrow enough for a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from scipy.special import ndtri
from sklearn.metrics import ConfusionMatrixDisplay

from kws_experiments.plots.style import STYLE, legend_below, plt, save

NAMES = (
    "confusion_matrix", "alluvial", "roc", "det", "calibration", "accuracy_against_noise", "accuracy_by_speaker",
    "accuracy_by_level",
)  # fmt: skip
MOST_LABELS = 60  # for a count in each cell of a matrix, and for flows; a picture of more would be metres wide
NAMED_CURVES = 4  # the keywords with the highest equal error rates; the others are grey
_DET_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8)
_DET_LIMITS = (0.0005, 0.9)
_BLUES = LinearSegmentedColormap.from_list("blues", [(0.11, 0.37, 0.66, 0.0), (0.11, 0.37, 0.66, 1.0)])
_COLOURS = ("tab:red", "tab:orange", "tab:blue", "tab:purple")


def of_evaluation(metrics: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> dict[str, Callable[[], Figure]]:
    """The functions that draw the pictures, by name: those of NAMES for which there are clips.

    Args:
        metrics: see `evaluation.metrics`.
        tables: likewise, by name.
    """
    matrix, labels, keywords = (
        np.array(metrics["confusion_matrix"]),
        metrics["labels"],
        metrics["detection"]["keywords"],
    )
    found: dict[str, Callable[[], Figure]] = {
        "confusion_matrix": lambda: confusion(matrix, labels, "Confusion matrix"),
    }
    if len(labels) <= MOST_LABELS:
        found["alluvial"] = lambda: alluvial(matrix, labels, "From labels to predictions")
    known = [(name, value["equal_error_rate"]) for name, value in keywords.items() if value["auc"] is not None]
    if rates := dict(sorted(known, key=lambda item: (-item[1], item[0]))):
        found["roc"] = lambda: roc(tables["detection"], rates)
        found["det"] = lambda: det(tables["detection"], rates)
    found["calibration"] = lambda: reliability(tables["calibration"])
    if metrics["accuracy_at_snr"]:
        found["accuracy_against_noise"] = lambda: accuracy_against_noise(metrics)
    if len(tables["speakers"]) > 1:
        found["accuracy_by_speaker"] = lambda: speakers(tables["speakers"])
    if len(tables["levels"]):
        found["accuracy_by_level"] = lambda: levels(tables["levels"])
    return found


def draw(folder: FilePath, metrics: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the pictures of an evaluation as PNG, and remove an earlier evaluation's other ones."""
    pictures = of_evaluation(metrics, tables)
    for name in NAMES:
        if name in pictures:
            with plt.rc_context(STYLE):
                save(pictures[name](), folder / f"{name}.png")
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)


def confusion(matrix: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Clips by label (rows) and prediction (columns), coloured by the fraction of the row.

    With more than MOST_LABELS there are no counts in the cells, and some labels have no name.
    """
    size = max(5.0, 0.36 * min(len(labels), MOST_LABELS) + 1.3)
    figure, axis = plt.subplots(figsize=(size, size), layout="constrained")
    fractions = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    display = ConfusionMatrixDisplay(fractions, display_labels=list(labels))
    # No clips: no colour, whatever the page is like. The colours' limits are those of fractions.
    look = {"interpolation": "none", "vmin": 0, "vmax": 1}
    display.plot(ax=axis, include_values=False, cmap=_BLUES, colorbar=False, xticks_rotation="vertical", im_kw=look)
    axis.spines[:].set_visible(True)
    if len(labels) > MOST_LABELS:
        every = -(-len(labels) // MOST_LABELS)
        for side in (axis.xaxis, axis.yaxis):
            side.set_ticks(range(0, len(labels), every), labels=list(labels)[::every])
    else:
        # inside the axes: the layout need not measure each, which takes as long as drawing it
        cell: Any = {"ha": "center", "va": "center", "fontsize": 8, "in_layout": False}
        for row, column in np.argwhere(matrix):
            colour = "white" if fractions[row, column] > 0.65 else "black"
            axis.text(column, row, str(matrix[row, column]), color=colour, **cell)
    axis.set(xlabel="predicted", ylabel="label", title=title)
    return figure


def alluvial(matrix: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Each label's clips (left) flow to their predictions (right); errors are coloured.

    Args:
        matrix: [labels, labels], clips by label (rows) and prediction (columns).
        labels: class names.
        title: of the figure.
    """
    height = max(4.5, 0.3 * len(labels) + 1)
    figure, axis = plt.subplots(figsize=(5.4, height), layout="constrained")
    clips = matrix.sum()
    gap = 0.35 * clips / max(1, len(labels))
    left, right = (_stacked(matrix.sum(axis=side), gap) for side in (1, 0))
    leaving, arriving = left.copy(), right.copy()
    for row, column in np.ndindex(matrix.shape):
        count = matrix[row, column]
        if count:
            _ribbon(axis, float(leaving[row]), float(arriving[column]), float(count), wrong=row != column)
            leaving[row] += count
            arriving[column] += count
    total = clips + gap * (len(labels) - 1)
    line = 12 / (72 * height) * total  # of text, 12 points high
    for tops, sums, x, anchor in ((left, matrix.sum(axis=1), 0.0, "right"), (right, matrix.sum(axis=0), 1.0, "left")):
        heights = _apart(tops + sums / 2, line)
        for top, count, height_of_name, name in zip(tops, sums, heights, labels, strict=True):
            axis.plot([x, x], [top, top + count], color="black", linewidth=2, solid_capstyle="butt")
            axis.annotate(
                name, (x, height_of_name), (-5 if anchor == "right" else 5, 0), textcoords="offset points",
                ha=anchor, va="center", fontsize=9,
            )  # fmt: skip
    axis.set(xlim=(-0.02, 1.02), ylim=(total, -0.02 * total), title=title)
    axis.set_axis_off()
    return figure


def _stacked(sizes: np.ndarray, gap: float) -> np.ndarray:
    """The upper ends of bars of these sizes, one below the other."""
    return np.concatenate([[0.0], np.cumsum(sizes[:-1] + gap)])


def _apart(heights: np.ndarray, least: float) -> np.ndarray:
    """Rising heights, moved until neighbours are at least so far apart: first downwards, then up from the lowest."""
    moved = heights.astype(float)
    for this in range(1, len(moved)):
        moved[this] = max(moved[this], moved[this - 1] + least)
    moved[-1] = min(moved[-1], max(heights[-1], least * (len(moved) - 1)))
    for this in range(len(moved) - 2, -1, -1):
        moved[this] = min(moved[this], moved[this + 1] - least)
    return moved


def _ribbon(axis: Axes, start: float, end: float, width: float, *, wrong: bool) -> None:
    """A band of this width from (0, start) to (1, end), level at both ends."""
    points = [(0, start), (0.5, start), (0.5, end), (1, end), (1, end + width), (0.5, end + width)]
    points += [(0.5, start + width), (0, start + width), (0, start)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    colour, alpha = ("tab:red", 0.6) if wrong else ("0.6", 0.3)
    axis.add_patch(PathPatch(Path(points, codes), facecolor=colour, alpha=alpha, linewidth=0, zorder=2 if wrong else 1))


def roc(curves: pd.DataFrame, rates: Mapping[str, float]) -> Figure:
    """True positives against false accepts, each keyword against all other clips: the corner of few errors.

    Args:
        curves: `keyword`, `false_accept_rate`, `true_positive_rate`; a row per point.
        rates: the keywords' equal error rates, the highest first.
    """
    figure, axis = plt.subplots(figsize=(5.4, 5.2), layout="constrained")
    for rows, look in _curves(curves, rates):
        axis.plot(100 * rows["false_accept_rate"], 100 * rows["true_positive_rate"], **look)
    span = min(100.0, max(5.0, 300 * max(rates.values())))
    axis.plot([0, 100], [0, 100], color="0.6", linestyle=":", linewidth=1)
    axis.set(xlabel="false accepts (% of other clips)", ylabel="detected (% of the keyword's clips)", title="ROC")
    axis.set(xlim=(-0.01 * span, span), ylim=(100 - 1.01 * span, 100 + 0.02 * span))
    axis.grid(alpha=0.3)
    legend_below(figure, axis, columns=2, title="equal error rate")
    return figure


def det(curves: pd.DataFrame, rates: Mapping[str, float]) -> Figure:
    """False rejects against false accepts, on axes of normal deviates, which spread out the low rates.

    Args are as in `roc`, with `false_reject_rate`.
    """
    figure, axis = plt.subplots(figsize=(5.4, 5.2), layout="constrained")
    for rows, look in _curves(curves, rates):
        sides = ("false_accept_rate", "false_reject_rate")
        axis.plot(*(ndtri(rows[side].clip(_DET_LIMITS[0] / 10, 1 - _DET_LIMITS[0] / 10)) for side in sides), **look)
    limits = ndtri(_DET_LIMITS)
    axis.plot(limits, limits, color="0.6", linestyle=":", linewidth=1)
    axis.set(xlabel="false accepts (%)", ylabel="false rejects (%)", title="DET", xlim=limits, ylim=limits)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(FixedLocator(ndtri(_DET_TICKS)))
        side.set_major_formatter(FixedFormatter([f"{100 * tick:g}" for tick in _DET_TICKS]))
        side.set_minor_locator(NullLocator())
    axis.grid(alpha=0.3)
    legend_below(figure, axis, columns=2, title="equal error rate")
    return figure


def _curves(curves: pd.DataFrame, rates: Mapping[str, float]) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """(rows, line properties) of each keyword, the worst last, on top of the others."""
    for index, (keyword, rate) in reversed(list(enumerate(rates.items()))):
        rows = curves[curves["keyword"] == keyword]
        if index < NAMED_CURVES:  # the rate first: Matplotlib's legends leave out what begins with an underscore
            yield (
                rows,
                {"color": _COLOURS[index], "linewidth": 1.4, "label": f"{100 * rate:.1f} %: {keyword}"},
            )
        else:
            named = {"label": "other keywords"} if index == NAMED_CURVES else {}
            yield rows, {"color": "0.6", "linewidth": 0.8, **named}


def reliability(bins: pd.DataFrame) -> Figure:
    """Accuracy by confidence, above the number of clips.

    Args:
        bins: `low`, `high`, `clips`, `confidence`, `accuracy`; those without clips are NaN.
    """
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(5.4, 5.4), layout="constrained", sharex=True, height_ratios=[3, 1]
    )
    filled = bins[bins["clips"] > 0]
    widths = filled["high"] - filled["low"]
    above.bar(filled["low"], filled["accuracy"], widths, align="edge", color="tab:blue", alpha=0.55, label="accuracy")
    above.plot(filled["confidence"], filled["accuracy"], ".", color="tab:blue")
    above.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="calibrated")
    above.set(ylabel="accuracy", ylim=(0, 1), title="Reliability")
    below.bar(filled["low"], filled["clips"], widths, align="edge", color="0.6")
    below.set(xlabel="confidence (the highest score)", ylabel="clips", xlim=(0, 1))
    legend_below(figure, above, columns=2)
    return figure


def accuracy_against_noise(metrics: Mapping[str, Any]) -> Figure:
    """Accuracy at each signal-to-noise ratio of `metrics.json`, with the accuracy without noise."""
    table = pd.DataFrame(metrics["accuracy_at_snr"]).sort_values("snr_db")
    figure, axis = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
    for split, rows in table.groupby("split", sort=False):
        axis.plot(rows["snr_db"], 100 * rows["accuracy"], "o-", label=f"in noise: {split}")
    axis.axhline(100 * metrics["accuracy"], color="0.6", linestyle=":", label=f"as recorded: {metrics['split']}")
    axis.set(xlabel="signal-to-noise ratio (dB)", ylabel="accuracy (%)", title="Accuracy against noise")
    legend_below(figure, axis, columns=1)
    axis.grid(alpha=0.3)
    return figure


def speakers(table: pd.DataFrame) -> Figure:
    """Speakers from the worst to the best: a dot each, its area by the number of clips.

    Args:
        table: `clips` and `accuracy`; a row per speaker.
    """
    ranked = table.sort_values(["accuracy", "clips"], ascending=[True, False], ignore_index=True)
    figure, axis = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
    sizes = 8 + 60 * ranked["clips"] / ranked["clips"].max()
    axis.scatter(ranked.index + 1, 100 * ranked["accuracy"], s=sizes, color="tab:blue", alpha=0.5, linewidths=0)
    axis.set(xlabel=f"{len(ranked)} speakers, the worst first", ylabel="accuracy (%)", title="Accuracy by speaker")
    axis.set_ylim(-4, 104)
    axis.grid(alpha=0.3, axis="y")
    return figure


def levels(table: pd.DataFrame) -> Figure:
    """Accuracy by the level of the clips, with 95 % intervals and the numbers of clips.

    Args:
        table: `low_db`, `high_db`, `clips`, `accuracy`, `accuracy_low`, `accuracy_high`.
    """
    figure, axis = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
    middle = (table["low_db"] + table["high_db"]) / 2
    low, high = (100 * (table["accuracy"] - table[f"accuracy_{end}"]).abs() for end in ("low", "high"))
    axis.errorbar(middle, 100 * table["accuracy"], yerr=[low, high], fmt="o-", color="tab:blue", capsize=3)
    for x, clips in zip(middle, table["clips"], strict=True):
        axis.annotate(f"{clips}", (x, 0.02), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    axis.set(xlabel="level (dB of full scale)", ylabel="accuracy (%)", title="Accuracy by level", ylim=(-14, 104))
    axis.set_xticks([*table["low_db"], table["high_db"].iloc[-1]])
    axis.grid(alpha=0.3, axis="y")
    return figure
