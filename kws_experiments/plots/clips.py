"""Pictures of clips: waveforms and features, one labelled clip, and a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from kws_data.splits import SPLITS
from kws_experiments.plots.style import plt


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
    for index, title in enumerate(titles):
        row, column = divmod(index, columns)
        wave, image = axes[2 * row, column], axes[2 * row + 1, column]
        wave.plot(np.arange(waveforms.shape[1]) / sample_rate, waveforms[index], linewidth=0.5)
        wave.set(ylim=(-1, 1), xlim=(0, waveforms.shape[1] / sample_rate))
        wave.set_title(title, fontsize=9)
        wave.set_axis_on()
        wave.tick_params(labelsize=6)
        # without these limits an MFCC's first coefficient, far from all others, would take up the whole scale
        low, high = np.percentile(features[index], (3, 97))
        image.imshow(
            features[index].T, origin="lower", aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="none"
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
    lengths.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # the scale's own writes formulas
    return figure


def labelled_clip(
    title: str, samples: np.ndarray, scores: Sequence[tuple[str, float]], sample_rate: int, most: int = 12
) -> Figure:
    """A bar chart of the highest scores beside a spectrogram.

    Args:
        title: above both.
        samples: [samples] float32.
        scores: (label, score), best first.
        sample_rate: Hz.
        most: bars.
    """
    figure, (bars, image) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", width_ratios=[1, 1.4])
    names, values = zip(*reversed(scores[:most]), strict=True)
    bars.barh(range(len(names)), values, tick_label=names, color=["0.7"] * (len(names) - 1) + ["tab:blue"])
    bars.set(xlim=(0, 1), xlabel="score")
    window = min(len(samples), round(0.03 * sample_rate))
    # padded, so that a clip of one window makes a picture; digital silence has no logarithm
    padded = np.pad(samples, (0, max(0, 2 * window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: max(1, window // 3)]
    power_db = 10 * np.log10(np.abs(np.fft.rfft(frames * np.hanning(window))) ** 2 + 1e-6)
    seconds = len(padded) / sample_rate
    image.imshow(
        power_db.T, origin="lower", aspect="auto", extent=(0, seconds, 0, sample_rate / 2000),
        vmin=max(power_db.max() - 80, -60), cmap="magma",
    )  # fmt: skip
    image.set(xlabel="seconds", ylabel="kHz")
    figure.suptitle(title)
    return figure
