"""The picture of one labelled clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kws_experiments.plots.figures import plt


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
    bars.barh(names, values, color=["0.7"] * (len(names) - 1) + ["tab:blue"])
    bars.set(xlim=(0, 1), xlabel="score")
    window = min(len(samples), round(0.03 * sample_rate))
    # a clip of one window still makes a picture, and digital silence has no logarithm
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
