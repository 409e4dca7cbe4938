"""Pictures of a sweep: settings, accuracy against cost, and effects of the swept keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, StrMethodFormatter

from kws_experiments.plots.style import plt

_MOST_SHOWN = 30  # settings in one picture
_MOST_NAMED = 12  # points of a picture that are labelled


def by_setting(settings: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The test accuracy of each setting's runs, and their mean; the best on validation at the top."""
    shown = settings.head(_MOST_SHOWN)
    figure, axis = plt.subplots(figsize=(8, 1.0 + 0.34 * len(shown)), layout="constrained")
    for index, setting in enumerate(shown.index):
        accuracies = 100 * runs.loc[runs["setting"] == setting, "accuracy"]
        axis.plot(accuracies, np.full(len(accuracies), index), "o", color="#1f77b4", alpha=0.6, markersize=5)
        axis.plot(accuracies.mean(), index, "|", color="#d62728", markersize=16, markeredgewidth=2)
    axis.set(xlabel="test accuracy (%); the bar is the mean over seeds", yticks=range(len(shown)))
    axis.set_yticklabels(list(shown.index), fontsize=8)
    axis.invert_yaxis()
    axis.margins(y=0.5 / max(1, len(shown)))
    axis.grid(axis="x", alpha=0.3)
    return figure


def against_cost(settings: pd.DataFrame, front: pd.DataFrame, cost: str, label: str) -> Figure:
    """Mean test accuracy against a cost, the Pareto front joined.

    Args:
        settings: `mean`, `std` and the cost; a row per setting.
        front: the settings on the Pareto front.
        cost: its column.
        label: of the cost's axis.
    """
    figure, axis = plt.subplots(figsize=(6, 4.2), layout="constrained")
    label_of_bars = "settings (mean, standard deviation over seeds)"
    spread = 100 * settings["std"].fillna(0)
    _bars(axis, x=settings[cost], y=100 * settings["mean"], yerr=spread, label=label_of_bars)
    best = front.sort_values([cost, "mean"])
    axis.plot(best[cost], 100 * best["mean"], "-", color="#d62728", label="Pareto front", drawstyle="steps-post")
    named = best if len(settings) > _MOST_NAMED else settings
    for setting, row in named.head(_MOST_NAMED).iterrows():
        axis.annotate(
            str(setting).replace(", ", "\n"), (row[cost], 100 * row["mean"]), xytext=(5, 3), textcoords="offset points",
            fontsize=6.5,
        )  # fmt: skip
    axis.set(xscale="log", xlabel=label, ylabel="test accuracy (%)")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_minor_locator(NullLocator())
    # the scale's own formatter writes formulas; large counts get a prefix, parts of a unit do not
    prefixed = settings[cost].min() >= 1
    axis.xaxis.set_major_formatter(EngFormatter(sep="") if prefixed else StrMethodFormatter("{x:g}"))
    axis.margins(x=0.25, y=0.12)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return figure


def effect_of(key: str, effects: pd.DataFrame) -> Figure:
    """The effect of each value of a key, all else equal."""
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    own = effects[effects["key"] == key]
    rows = np.arange(len(own))
    spread = 100 * own["std"].fillna(0)
    _bars(axis, x=100 * own["effect"], y=rows, xerr=spread)
    axis.set(yticks=rows, xlabel="points of test accuracy against the mean of its block")
    axis.set_yticklabels([str(value) for value in own["value"]], fontsize=8)
    axis.axvline(0, color="#999999", linewidth=1)
    axis.margins(y=0.3)
    axis.set_title(f"Effect of {key}, all else equal")
    axis.grid(alpha=0.3)
    return figure


def _bars(axis: Axes, **data: Any) -> None:
    axis.errorbar(**data, fmt="o", color="#1f77b4", ecolor="#999999")


def by_number(key: str, runs: pd.DataFrame) -> Figure:
    """The accuracy of each run against a key with many numbers, as a search tries them."""
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    values = runs[key]
    axis.plot(values, 100 * runs["accuracy"], "o", color="#1f77b4", alpha=0.6)
    axis.set(xlabel=key, ylabel="test accuracy (%)", title=f"Accuracy by {key}, all else not equal")
    if values.min() > 0 and values.max() > 20 * values.min():
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.grid(alpha=0.3)
    return figure
