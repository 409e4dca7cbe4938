"""The figures of exports as a table, for the terminal and for reports."""

from __future__ import annotations

from pathlib import Path

from kws_experiments.export.artifact import Artifact

HEADINGS = ("model", "takes", "accuracy", "as the original", "size", "ms a clip")


def rows(artifact: Artifact) -> list[tuple[str, ...]]:
    """A row for the original and one for each exported file, as text; figures of unchecked files are dashes."""
    table: list[tuple[str, ...]] = []
    checked = [file.check for file in artifact.files if file.check]
    if checked:
        own = checked[0]["original"]
        table.append(
            ("model.keras", "waveform", f"{own['accuracy']:.1%}", "", _size(own["bytes"]), _ms(own["latency_ms"]))
        )
    for file in artifact.files:
        result = file.check
        if not result:
            table.append((file.file, file.takes, "–", "–", _size(file.bytes), "–"))
            continue
        agreement = f"{result['clips'] - result['disagreements']} of {result['clips']}"
        figures = f"{result['accuracy']:.1%}", agreement, _size(file.bytes), _ms(result["latency_ms"])
        table.append((file.file, file.takes, *figures))
    return table


def show(artifact: Artifact, folder: Path) -> None:
    """Print the table, what it is of, and where everything lies."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{artifact.format}, quantize {artifact.quantize}", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right")
    for row in rows(artifact):
        table.add_row(*row)
    console.print(table)
    result = artifact.files[0].check
    if result:
        console.print(f"{result['split']} split, {result['clips']} clips; one thread, median", highlight=False)
    for name in ("data_licence", "data_citation"):
        if value := getattr(artifact, name):
            console.print(f"{name.replace('_', ' ')}: {value}", soft_wrap=True, highlight=False)
    console.print(str(folder), soft_wrap=True, highlight=False)


def _size(size: int) -> str:
    return f"{size / 1000:,.1f} kB"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f}"
