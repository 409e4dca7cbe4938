"""The last thing printed: how good the model is, where it fails, and where everything lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show(result: dict[str, Any], folder: Path) -> None:
    """Print accuracy with its 95 % interval, the worst pairs, unknown folders if any, and the folder."""
    console = Console()
    low, high = result["accuracy_95"]
    if result["worst_pairs"]:
        table = Table("label", "taken for", "clips", title="Most frequent confusions", title_justify="left")
        for pair in result["worst_pairs"]:
            table.add_row(pair["label"], pair["predicted"], f"{pair['clips']} of {pair['of']}")
        console.print(table)
    if result["unknown_folders"]:
        table = Table("unknown folder", "clips", "taken for a keyword", "most often", title="Unknown folders")
        for name, values in result["unknown_folders"].items():
            taken = f"{values['taken_for_keyword']} ({values['rate']:.1%})"
            table.add_row(name, str(values["clips"]), taken, values["most_often"] or "–")
        console.print(table)
    console.print(
        f"{result['split']} accuracy [bold]{result['accuracy']:.1%}[/bold] "
        f"(95 % interval {low:.1%} to {high:.1%}; {result['clips']} clips)"
    )
    for name in ("data_licence", "data_citation"):
        if result.get(name):
            console.print(f"{name.replace('_', ' ')}: {result[name]}", soft_wrap=True, highlight=False)
    console.print(str(folder), soft_wrap=True, highlight=False)
