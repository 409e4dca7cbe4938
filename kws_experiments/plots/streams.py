"""The picture of what a model detects in a long recording."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from kws_experiments.plots.style import plt


def chosen(result: dict[str, Any]) -> str:
    """How a recording was listened to: 'medium sensitivity', or 'threshold 0.7'."""
    if result.get("sensitivity"):
        return f"{result['sensitivity']} sensitivity"
    return "thresholds of words" if result.get("thresholds") else f"threshold {result['detection_threshold']:g}"


def stream_figure(curve: pd.DataFrame, result: dict[str, Any], latency_ms: np.ndarray) -> Figure:
    """Misses against false accepts an hour, both by threshold, and the latency of detections.

    The bands are the 95 % intervals: of the first curve, of both rates at once.

    Args:
        curve: see `streaming.curve.threshold_curve`; with the intervals of both rates, except in results of before.
        result: the metrics at the chosen threshold.
        latency_ms: [correct detections], from the words' ends.
    """
    figure, (against, by_threshold, late) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    title = chosen(result)
    false_accepts, missed = curve["false_accepts_per_hour"], 100 * curve["miss_rate"]
    against.plot(false_accepts, missed, ".-")
    if "miss_rate_low" in curve:
        low, high = (curve[f"false_accepts_per_hour_{end}"].to_numpy() for end in ("low", "high"))
        fewest, most = (100 * curve[f"miss_rate_{end}"].to_numpy() for end in ("low", "high"))
        if missed.notna().all():
            against.fill([*low, *high[::-1]], [*fewest, *most[::-1]], color="tab:blue", alpha=0.15, linewidth=0)
            by_threshold.fill_between(curve["threshold"], fewest, most, color="tab:blue", alpha=0.15, linewidth=0)
    if result["miss_rate"] is None:
        against.text(0.5, 0.5, "no keyword is said", transform=against.transAxes, ha="center")
    else:
        against.plot(result["false_accepts_per_hour"], 100 * result["miss_rate"], "o", color="tab:red", label=title)
        against.legend()
    against.set_xscale("symlog", linthresh=1)
    against.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # the scale's own writes formulas
    against.set(xlabel="false accepts an hour", ylabel="missed (%)", title="Misses against false accepts")
    against.set(xlim=(0, None), ylim=(0, 100))

    by_threshold.plot(curve["threshold"], missed, color="tab:blue")
    by_threshold.set(xlabel="threshold", ylim=(0, 100), title="By threshold")
    by_threshold.set_ylabel("missed (%)", color="tab:blue")
    if not result.get("thresholds"):
        by_threshold.axvline(result["detection_threshold"], color="0.6", linestyle=":")
    other = by_threshold.twinx()
    other.plot(curve["threshold"], false_accepts, color="tab:orange")
    if "miss_rate_low" in curve:
        other.fill_between(curve["threshold"], low, high, color="tab:orange", alpha=0.2, linewidth=0)
    other.set_ylabel("false accepts an hour", color="tab:orange")
    other.set_ylim(bottom=0)

    late.hist(latency_ms, bins=30, color="0.4")
    late.set(xlabel="ms from the word's end to its detection", ylabel="words", title=f"Latency, {title}")
    for axis in (against, by_threshold):
        axis.grid(alpha=0.3)
    return figure
