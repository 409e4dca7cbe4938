"""The pictures of a sweep's report."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, StrMethodFormatter

from kws_experiments.reports.sweep_contents import COSTS
from kws_experiments.reports.sweep_statistics import pareto_front

_MOST_SHOWN = 30  # settings in one picture
_MOST_NAMED = 12  # points of a picture that have their names beside them
_MOST_VALUES = 8  # of a key: more of them, if numbers, are an axis


def by_setting(settings: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The test accuracy of each setting's runs, and their mean; the best on validation at the top."""
    shown = settings.head(_MOST_SHOWN)
    figure, axis = plt.subplots(figsize=(8, 1.0 + 0.34 * len(shown)), layout="constrained")
    for place, setting in enumerate(shown.index):
        accuracies = 100 * runs.loc[runs["setting"] == setting, "accuracy"]
        axis.plot(accuracies, np.full(len(accuracies), place), "o", color="#1f77b4", alpha=0.6, markersize=5)
        axis.plot(accuracies.mean(), place, "|", color="#d62728", markersize=16, markeredgewidth=2)
    axis.set(xlabel="test accuracy (%); the bar is the mean over seeds", yticks=range(len(shown)))
    axis.set_yticklabels(list(shown.index), fontsize=8)
    axis.invert_yaxis()
    axis.margins(y=0.5 / max(1, len(shown)))
    axis.grid(axis="x", alpha=0.3)
    return figure


def against_cost(settings: pd.DataFrame, cost: str) -> Figure:
    """Mean test accuracy against a cost, the Pareto front joined."""
    known = settings.dropna(subset=[cost, "mean"])
    front = pareto_front(known[cost].to_numpy(), known["mean"].to_numpy())
    figure, axis = plt.subplots(figsize=(6, 4.2), layout="constrained")
    axis.errorbar(
        known[cost], 100 * known["mean"], yerr=100 * known["std"].fillna(0), fmt="o", color="#1f77b4", ecolor="#999999",
        label="settings (mean, standard deviation over seeds)",
    )  # fmt: skip
    best = known[front].sort_values([cost, "mean"])
    axis.plot(best[cost], 100 * best["mean"], "-", color="#d62728", label="Pareto front", drawstyle="steps-post")
    named = best if len(known) > _MOST_NAMED else known
    for setting, row in named.head(_MOST_NAMED).iterrows():
        axis.annotate(
            str(setting).replace(", ", "\n"), (row[cost], 100 * row["mean"]), xytext=(5, 3), textcoords="offset points",
            fontsize=6.5,
        )  # fmt: skip
    axis.set(xscale="log", xlabel=COSTS[cost], ylabel="test accuracy (%)")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # the scale's own writes formulas
    axis.margins(x=0.25, y=0.12)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return figure


def effect_of(key: str, effects: pd.DataFrame) -> Figure:
    """What each value of a key changes, all else equal."""
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    own = effects[effects["key"] == key]
    places = np.arange(len(own))
    spread = 100 * own["std"].fillna(0)
    axis.errorbar(100 * own["effect"], places, xerr=spread, fmt="o", color="#1f77b4", ecolor="#999999")
    axis.set(yticks=places, xlabel="points of test accuracy against the mean of its block")
    axis.set_yticklabels([str(value) for value in own["value"]], fontsize=8)
    axis.axvline(0, color="#999999", linewidth=1)
    axis.margins(y=0.3)
    axis.set_title(f"Effect of {key}, all else equal")
    axis.grid(alpha=0.3)
    return figure


def by_number(key: str, runs: pd.DataFrame) -> Figure:
    """The accuracy of each run against a key of many numbers, as a search tries them."""
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    values = runs[key]
    axis.plot(values, 100 * runs["accuracy"], "o", color="#1f77b4", alpha=0.6)
    axis.set(xlabel=key, ylabel="test accuracy (%)", title=f"Accuracy by {key}, all else not equal")
    if values.min() > 0 and values.max() > 20 * values.min():
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.grid(alpha=0.3)
    return figure


def all_of(
    settings: pd.DataFrame, runs: pd.DataFrame, effects: pd.DataFrame, keys: list[str]
) -> list[tuple[str, str, Callable[[], Figure]]]:
    """(name, title, function that draws it) of every picture that the data allow."""
    pictures: list[tuple[str, str, Callable[[], Figure]]] = []
    pictures.append(("settings", "Test accuracy by setting", partial(by_setting, settings, runs)))
    for cost, title in COSTS.items():
        if settings[cost].nunique() > 1:
            pictures.append((f"cost_{cost}", f"Test accuracy against {title}", partial(against_cost, settings, cost)))
    for place, key in enumerate(keys):
        if pd.api.types.is_numeric_dtype(runs[key]) and runs[key].nunique() > _MOST_VALUES:
            pictures.append((f"effect_{place}", f"Accuracy by {key}", partial(by_number, key, runs)))
        elif (effects["key"] == key).any():
            pictures.append((f"effect_{place}", f"Effect of {key}", partial(effect_of, key, effects)))
    return pictures
