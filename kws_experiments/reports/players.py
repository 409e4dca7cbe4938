"""Clips on a page: a player, the waveform and the features, all within the page itself."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import ClassVar

import matplotlib.image
import numpy as np
import soundfile

from kws_experiments.evaluation.worst_clips import KeptClip

WIDTH, HEIGHT = 300, 60  # of the waveform, in its own units


@dataclass(frozen=True)
class Player:
    """A clip for a page.

    Attributes:
        title: what it is.
        note: which clip, its seconds, and its peak, which is 1 at full scale.
        audio: a WAV file, as a `data:` address.
        waveform: the `d` of an SVG path, in WIDTH × HEIGHT.
        features: a PNG, likewise an address: time from left to right, frequency upwards.
    """

    title: str
    note: str
    audio: str
    waveform: str
    features: str
    box: ClassVar = f"0 0 {WIDTH} {HEIGHT}"


def player(clip: KeptClip, title: str, name: str) -> Player:
    """The player of a clip, with the clip's name."""
    wav = io.BytesIO()
    soundfile.write(wav, clip.samples, clip.sample_rate, format="WAV", subtype="PCM_16")
    seconds, peak = len(clip.samples) / clip.sample_rate, _peak(clip.samples) / 32768
    return Player(
        title,
        f"{name}, {seconds:.2f} s, peak {peak:.2f}",
        audio=data_address(wav.getvalue(), "audio/wav"),
        waveform=outline(clip.samples),
        features=data_address(feature_image(clip.features), "image/png"),
    )


def outline(samples: np.ndarray) -> str:
    """The path around the highest and lowest sample of each column, scaled to the clip's own peak.

    Quiet clips would be flat lines otherwise. The page names the peak.

    Args:
        samples: [samples] int16.
    """
    columns = np.array_split(samples.astype(np.float64), WIDTH) if len(samples) >= WIDTH else samples[:, None]
    scale = (HEIGHT / 2 - 1) / max(1.0, _peak(samples))
    x = np.linspace(0, WIDTH, len(columns))
    high = [HEIGHT / 2 - scale * column.max() - 0.4 for column in columns]
    low = [HEIGHT / 2 - scale * column.min() + 0.4 for column in columns]
    there = [f"{a:.0f} {b:.1f}" for a, b in zip(x, high, strict=True)]
    back = [f"{a:.0f} {b:.1f}" for a, b in zip(x[::-1], low[::-1], strict=True)]
    return f"M{' '.join([*there, *back])}Z" if len(columns) else ""


def feature_image(features: np.ndarray) -> bytes:
    """A PNG, one pixel per value; the scale leaves out the extremes, as in `plots.clips.clips`.

    Args:
        features: [frames, bins].
    """
    low, high = np.percentile(features, (3, 97))
    png = io.BytesIO()
    matplotlib.image.imsave(png, features.T, format="png", origin="lower", cmap="viridis", vmin=low, vmax=high)
    return png.getvalue()


def _peak(samples: np.ndarray) -> float:
    return float(np.abs(samples.astype(np.int32)).max(initial=0))


def data_address(content: bytes, kind: str) -> str:
    """A `data:` address, which holds the content itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
