"""Pictures of an evaluation, from its figures and tables (`evaluation`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from scipy.special import ndtri

from kws_experiments import figures

_NAMES = ("confusion_matrix", "calibration", "detection", "breakdowns", "accuracy_against_noise")
_COLOURED = 10  # keywords, those with the highest equal error rates; more colours can't be told apart
_DET_LIMITS = (0.0005, 0.8)
_DET_TICKS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6)


def draw(folder: Path, result: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
    """Write all pictures of an evaluation that its clips allow, and remove an earlier evaluation's others."""
    title = f"{result['split']}: {result['accuracy']:.1%} of {result['clips']} clips"
    matrix = np.array(result["confusion_matrix"])
    pictures = {
        "confusion_matrix": figures.confusion(matrix, result["labels"], title),
        "calibration": reliability(tables["calibration"], result["calibration"]),
    }
    if len(tables["detection"]):
        pictures["detection"] = detection(tables["detection"], result["detection"]["keywords"])
    if len(tables["levels"]) or len(tables["speakers"]):
        pictures["breakdowns"] = breakdowns(tables["levels"], tables["speakers"])
    if result["accuracy_at_snr"]:
        pictures["accuracy_against_noise"] = figures.accuracy_against_noise(dict(result))
    folder.mkdir(parents=True, exist_ok=True)
    for name in _NAMES:
        if name in pictures:
            figures.save(pictures[name], folder / f"{name}.png")
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)


def reliability(table: pd.DataFrame, calibration: Mapping[str, Any]) -> Figure:
    """Accuracy against confidence, above how many clips there are at each confidence."""
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(5, 6), layout="constrained", height_ratios=[3, 1], sharex=True
    )  # fmt: skip
    filled = table[table["clips"] > 0]
    width = (table["high"] - table["low"]).iloc[0]
    centres = 100 * (filled["low"] + width / 2)
    top.bar(centres, 100 * filled["accuracy"], width=92 * width, color="C0", label="accuracy")
    top.plot(100 * filled["confidence"], 100 * filled["accuracy"], "k.", label="at the mean confidence")
    top.plot([0, 100], [0, 100], color="0.5", linestyle="--", label="calibrated")
    error = calibration["expected_calibration_error"]
    top.set(ylabel="accuracy (%)", ylim=(0, 102), title=f"Calibration: expected error {error:.1%}")
    top.legend(loc="upper left")
    bottom.bar(centres, filled["clips"], width=92 * width, color="0.5")
    bottom.set(xlabel="confidence: the highest score (%)", ylabel="clips", xlim=(0, 100))
    for axis in (top, bottom):
        axis.grid(alpha=0.3)
    return figure


def detection(table: pd.DataFrame, keywords: Mapping[str, Mapping[str, Any]]) -> Figure:
    """ROC and DET curves of the keywords; of many those with the highest equal error rates in colour."""
    figure, (roc, det) = plt.subplots(1, 2, figsize=(12, 5.5), layout="constrained")
    drawn = [name for name, values in keywords.items() if values["equal_error_rate"] is not None]
    worst_first = sorted(drawn, key=lambda name: -keywords[name]["equal_error_rate"])
    grey, coloured = worst_first[_COLOURED:], worst_first[:_COLOURED]
    low, high = _DET_LIMITS
    for name in [*grey, *coloured]:
        rows = table[table["keyword"] == name]
        style: dict[str, Any] = {"color": "0.8", "linewidth": 0.8}
        if name in coloured:
            label = f"{name}: {keywords[name]['equal_error_rate']:.1%}"
            style = {"color": f"C{coloured.index(name)}", "linewidth": 1.3, "label": label}
        roc.plot(100 * rows["false_accept_rate"], 100 * rows["true_positive_rate"], **style)
        deviates = ndtri(rows[["false_accept_rate", "false_reject_rate"]].clip(low / 10, 1 - low / 10))
        det.plot(deviates.iloc[:, 0], deviates.iloc[:, 1], **style)
    roc.set(xlabel="false accepts (% of other clips)", ylabel="heard (% of the keyword's clips)", title="ROC")
    span = min(100.0, max(5.0, 200 * keywords[worst_first[0]]["equal_error_rate"]))  # %; the corner that matters
    roc.set(xlim=(-0.01 * span, span), ylim=(max(0.0, 100 - 2 * span), 100 + 0.02 * span))
    det.plot(ndtri([low, high]), ndtri([low, high]), color="0.5", linestyle=":", label="equal rates")
    ticks = ndtri(_DET_TICKS)
    names = [f"{100 * tick:g}" for tick in _DET_TICKS]
    det.set(xlabel="false accepts (%)", ylabel="false rejects (%)", title="DET")
    det.set(xlim=ndtri(_DET_LIMITS), ylim=ndtri(_DET_LIMITS))
    det.set_xticks(ticks, names)
    det.set_yticks(ticks, names)
    title = "equal error rate" + (f", the {_COLOURED} highest" if grey else "")
    det.legend(title=title, fontsize=8, loc="upper right")
    for axis in (roc, det):
        axis.grid(alpha=0.3)
    return figure


def breakdowns(levels: pd.DataFrame, speakers: pd.DataFrame) -> Figure:
    """Accuracy by the clips' level, and of each speaker by how many clips there are of them."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
    centres = (levels["low_db"] + levels["high_db"]) / 2
    ends = np.abs(levels[["accuracy_low", "accuracy_high"]].to_numpy().T - levels["accuracy"].to_numpy())
    left.errorbar(centres, 100 * levels["accuracy"], 100 * ends, fmt="o-", capsize=3)
    for x, rate, clips in zip(centres, levels["accuracy"], levels["clips"], strict=True):
        left.annotate(str(clips), (x, 100 * rate), xytext=(6, 4), textcoords="offset points", fontsize=7, color="0.4")
    left.set(xlabel="level where the clip is active (dB of full scale)", ylabel="accuracy (%)", ylim=(-3, 108))
    left.set(title="By level, with 95 % intervals and clips")
    right.scatter(speakers["clips"], 100 * speakers["accuracy"], s=14, alpha=0.5)
    right.set(xlabel="clips of the speaker", title=f"By speaker ({len(speakers)})")
    if len(speakers) and speakers["clips"].max() > 30 * speakers["clips"].min():
        right.set_xscale("log")
        right.xaxis.set_major_formatter(ScalarFormatter())
    for axis in (left, right):
        axis.grid(alpha=0.3)
    return figure
