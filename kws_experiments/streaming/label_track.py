"""Audacity's label tracks: one line per label with start, end (seconds) and text, separated by tabs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kws_data.text import printable
from kws_experiments.runs.folder import write_text


def write_label_track(path: Path, labels: Iterable[tuple[float, float, str]]) -> None:
    """Write labels, each (start in ms, end in ms, text); a label at one point in time has its start as its end."""
    lines = [f"{start / 1000:.6f}\t{end / 1000:.6f}\t{printable(text)}\n" for start, end, text in labels]
    write_text(path, "".join(lines))
