"""The picture of a training."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from kws_experiments.plots.style import legend_below, plt


def training_curves(history: pd.DataFrame, best: int) -> Figure:
    """Loss and accuracy by step, the best evaluation marked."""
    figure, axes = plt.subplots(2, 1, figsize=(5.4, 6), layout="constrained", sharex=True)
    for axis, name, scale, title in ((axes[0], "loss", 1, "Loss"), (axes[1], "accuracy", 100, "Accuracy (%)")):
        axis.plot(history["step"], scale * history[name], ".-", label="training (augmented)")
        axis.plot(history["step"], scale * history[f"val_{name}"], ".-", label="validation")
        axis.axvline(history["step"].iloc[best], color="0.6", linestyle=":", label="best evaluation")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[1].set_xlabel("step")
    legend_below(figure, axes[0], columns=3)
    return figure
