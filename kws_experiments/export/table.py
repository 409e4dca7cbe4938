"""The results of an export as a table, for the terminal and for reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kws_experiments.console.output import say
from kws_experiments.export.artifact import ORIGINAL, Artifact

HEADINGS = ("model", "takes", "accuracy", "as the original", "size", "arena", "ms a clip")


def rows(artifact: Artifact) -> list[tuple[str, ...]]:
    """A row for the original and one for each exported file, as text; results of unchecked files are dashes."""
    table = []
    if own := next((file.check["original"] for file in artifact.files if file.check), None):
        table.append(_row(ORIGINAL, "waveform", own["bytes"], own, "", {}))
    for file in artifact.files:
        agreement = "–"
        if result := file.check:
            agreement = f"{result['clips'] - result['disagreements']} of {result['clips']}"
        table.append(_row(file.file, file.takes, file.bytes, result, agreement, file.micro))
    return table


def _row(
    model: str, takes: str, size: int, result: dict[str, Any], agreement: str, micro: dict[str, Any]
) -> tuple[str, ...]:
    accuracy, latency = (f"{result['accuracy']:.1%}", f"{result['latency_ms']:.2f}") if result else ("–", "–")
    arena = "not measured" if micro else ""
    if "arena" in micro:
        arena = f"{micro['arena'] / 1000:,.1f} kB"
    return model, takes, accuracy, agreement, f"{size / 1000:,.1f} kB", arena, latency


def micro_lines(artifact: Artifact) -> list[str]:
    """What TensorFlow Lite Micro needs for each int8 network, and where its activations take the most."""
    lines = []
    for file in artifact.files:
        if not (micro := file.micro):
            continue
        peak = micro["peak"]
        tensors = " and ".join("×".join(map(str, shape)) for shape in peak["tensors"])
        line = (
            f"{file.file}: activations take the most at {peak['operator']}: {peak['bytes'] / 1000:,.1f} kB, {tensors}"
        )
        if "arena" in micro:
            line += (
                f"; in TensorFlow Lite Micro, an arena of {micro['arena'] / 1000:,.1f} kB, and the reference kernels'"
                f" scores bit for bit on {micro['identical']} of {micro['clips']} {artifact.tried} (at most"
                f" {micro['largest_difference']} steps apart)"
            )
        else:
            line += f"; arena not measured: {micro['not_measured']}"
        lines.append(line)
    return lines


def show(artifact: Artifact, folder: Path) -> None:
    """Print the table, the clips that it is of, and the folder."""
    from kws_experiments.console.tables import by_column, print_table

    print_table(by_column(HEADINGS, rows(artifact)), title=artifact.title, numeric=HEADINGS[2:], keep=HEADINGS)
    for line in micro_lines(artifact):
        say(line)
    result = artifact.files[0].check
    if result:
        say(f"{result['split']} split, {result['clips']} clips; one thread, median")
    for name in ("data_licence", "data_citation"):
        if value := getattr(artifact, name):
            say(f"{name.replace('_', ' ')}: {value}")
    say(folder)
