"""Label tracks as Audacity reads and writes them: a line each of start, end (seconds) and text, tabs between."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kws_experiments.runs.folder import write_text


def write_label_track(path: Path, labels: Iterable[tuple[float, float, str]]) -> None:
    """Write (start in ms, end in ms, text) of each label; start and end are the same for a point."""
    lines = [f"{start / 1000:.6f}\t{end / 1000:.6f}\t{text}\n" for start, end, text in labels]
    write_text(path, "".join(lines))
