"""A run's pictures: training curves, confusion matrix, and one batch as the model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from kws_data.splits import SPLITS
from kws_data.storage.atomic import replace_file

_BLUES = LinearSegmentedColormap.from_list("blues", [(0.11, 0.37, 0.66, 0.0), (0.11, 0.37, 0.66, 1.0)])
# Of evaluations' and reports' pictures; a word with dollar signs is no formula
STYLE: Any = {
    "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": "medium",
    "text.parse_math": False,
}  # fmt: skip


def save(figure: Figure, path: Path) -> None:
    """Write a figure whole, and let go of it."""
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def training_curves(history: pd.DataFrame, best: int) -> Figure:
    """Loss and accuracy by step, the best evaluation marked."""
    figure, axes = plt.subplots(2, 1, figsize=(5.4, 6), layout="constrained", sharex=True)
    for axis, name, scale, title in ((axes[0], "loss", 1, "Loss"), (axes[1], "accuracy", 100, "Accuracy (%)")):
        axis.plot(history["step"], scale * history[name], ".-", label="training (augmented)")
        axis.plot(history["step"], scale * history[f"val_{name}"], ".-", label="validation")
        axis.axvline(history["step"].iloc[best], color="0.6", linestyle=":", label="best evaluation")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[0].legend()
    axes[1].set_xlabel("step")
    return figure


def confusion(matrix: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Clips by label (rows) and prediction (columns), coloured by the fraction of the row."""
    size = max(5.0, 0.36 * len(labels) + 1.3)
    figure, axis = plt.subplots(figsize=(size, size), layout="constrained")
    fractions = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    display = ConfusionMatrixDisplay(fractions, display_labels=list(labels))
    # No clips: no colour, whatever the page is like. The colours' limits are those of fractions.
    look = {"interpolation": "none", "vmin": 0, "vmax": 1}
    display.plot(ax=axis, include_values=False, cmap=_BLUES, colorbar=False, xticks_rotation="vertical", im_kw=look)
    axis.spines[:].set_visible(True)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if fractions[row, column] > 0.65 else "black"
            axis.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    axis.set(xlabel="predicted", ylabel="label", title=title)
    return figure


def clips(
    waveforms: np.ndarray, features: np.ndarray, titles: Sequence[str], sample_rate: int, columns: int = 4
) -> Figure:
    """Waveforms above their features, which run from left to right in time and upwards in frequency.

    Args:
        waveforms: [clips, samples].
        features: [clips, frames, bins].
        titles: one per clip.
        sample_rate: Hz.
        columns: clips per row.
    """
    rows = -(-len(waveforms) // columns)
    figure, axes = plt.subplots(
        2 * rows, columns, figsize=(3.2 * columns, 3.0 * rows), layout="constrained", squeeze=False,
        height_ratios=[1, 1.6] * rows,
    )  # fmt: skip
    for axis in axes.flat:
        axis.set_axis_off()
    for place, title in enumerate(titles):
        row, column = divmod(place, columns)
        wave, image = axes[2 * row, column], axes[2 * row + 1, column]
        wave.plot(np.arange(waveforms.shape[1]) / sample_rate, waveforms[place], linewidth=0.5)
        wave.set(ylim=(-1, 1), xlim=(0, waveforms.shape[1] / sample_rate))
        wave.set_title(title, fontsize=9)
        wave.set_axis_on()
        wave.tick_params(labelsize=6)
        # an MFCC's first coefficient is far from all others: without these limits it would take up the whole scale
        low, high = np.percentile(features[place], (3, 97))
        image.imshow(
            features[place].T, origin="lower", aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="none"
        )
        image.set_axis_on()
        image.tick_params(labelsize=6)
    return figure


def dataset(catalog: pd.DataFrame) -> Figure:
    """Clips per word and split, and a histogram of their lengths.

    Args:
        catalog: usable rows with `word`, `split`, `num_samples` and `sample_rate`.
    """
    counts = pd.crosstab(catalog["word"], catalog["split"])[[s for s in SPLITS if s in set(catalog["split"])]]
    seconds = catalog["num_samples"] / catalog["sample_rate"]
    figure, (words, lengths) = plt.subplots(
        1, 2, figsize=(12, max(4.0, 0.24 * len(counts) + 1.2)), layout="constrained", width_ratios=[1.6, 1]
    )
    counts.iloc[::-1].plot.barh(stacked=True, ax=words, width=0.8)
    words.set(xlabel="clips", ylabel="", title=f"{len(catalog)} clips")
    longest = float(np.quantile(seconds, 0.99))
    lengths.hist(seconds.clip(upper=max(1.1, 1.1 * longest)), bins=40, color="0.4")
    lengths.set(xlabel="seconds (the longest 1 % together at the right)", ylabel="clips", yscale="log", title="Length")
    return figure


def accuracy_against_noise(result: dict[str, Any]) -> Figure:
    """Accuracy at each signal-to-noise ratio of `metrics.json`, with the clean one of the test split."""
    table = pd.DataFrame(result["accuracy_at_snr"]).sort_values("snr_db")
    figure, axis = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
    for split, rows in table.groupby("split", sort=False):
        axis.plot(rows["snr_db"], 100 * rows["accuracy"], "o-", label=f"{split}, with noise")
    axis.axhline(100 * result["accuracy"], color="0.6", linestyle=":", label=f"{result['split']}, as recorded")
    axis.set(xlabel="signal-to-noise ratio (dB)", ylabel="accuracy (%)", title="Accuracy against noise")
    axis.legend()
    axis.grid(alpha=0.3)
    return figure
