"""The results of an export as a table, for the terminal and for reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kws_experiments.console.output import say
from kws_experiments.export.artifact import ORIGINAL, Artifact

HEADINGS = ("model", "takes", "accuracy", "as the original", "size", "ms a clip")


def rows(artifact: Artifact) -> list[tuple[str, ...]]:
    """A row for the original and one for each exported file, as text; results of unchecked files are dashes."""
    table = []
    if own := next((file.check["original"] for file in artifact.files if file.check), None):
        table.append(_row(ORIGINAL, "waveform", own["bytes"], own, ""))
    for file in artifact.files:
        agreement = "–"
        if result := file.check:
            agreement = f"{result['clips'] - result['disagreements']} of {result['clips']}"
        table.append(_row(file.file, file.takes, file.bytes, result, agreement))
    return table


def _row(model: str, takes: str, size: int, result: dict[str, Any], agreement: str) -> tuple[str, ...]:
    accuracy, latency = (f"{result['accuracy']:.1%}", f"{result['latency_ms']:.2f}") if result else ("–", "–")
    return model, takes, accuracy, agreement, f"{size / 1000:,.1f} kB", latency


def show(artifact: Artifact, folder: Path) -> None:
    """Print the table, the clips that it is of, and the folder."""
    from kws_experiments.console.tables import by_column, print_table

    print_table(by_column(HEADINGS, rows(artifact)), title=artifact.title, numeric=HEADINGS[2:], keep=HEADINGS)
    result = artifact.files[0].check
    if result:
        say(f"{result['split']} split, {result['clips']} clips; one thread, median")
    for name in ("data_licence", "data_citation"):
        if value := getattr(artifact, name):
            say(f"{name.replace('_', ' ')}: {value}")
    say(folder)
