"""The end of a training on the console: how good the model is, where it fails, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kws_experiments.config.command import quoted
from kws_experiments.runs.folder import RunFolder
from kws_experiments.training.progress import print_confusion

_PAIRS = 5
_NEXT = {  # command: its options, and what it does
    "evaluate": (["--noise-snr", "20,10,0"], "its test clips in noise"),
    "export": (["--format", "tflite", "--quantize", "int8"], "for microcontrollers"),
    "stream": (["--microphone"], "listen; or give a long recording"),
}


def show_training(result: dict[str, Any], folder: RunFolder) -> None:
    """Print the confusion matrix, the result, where the report is, and three commands to go on with."""
    console = Console()
    print_confusion(console, np.array(result["confusion_matrix"]), list(result["per_class"]))
    show(result, folder.path, "run: ")
    if folder.report.is_file():
        console.print("report: ", end="")
        console.print(
            str(folder.report), style=f"link {folder.report.resolve().as_uri()}", soft_wrap=True, highlight=False
        )
    console.print("next:")
    for command in ("evaluate", "export", "stream"):
        words, comment = _NEXT[command]
        line = quoted("kws", command, folder.path, *words)
        console.print(f"  {line}  # {comment}", soft_wrap=True, highlight=False, markup=False)


def show(result: dict[str, Any], folder: Path, prefix: str = "") -> None:
    """Print the worst pairs, unknown folders and noise if any, accuracy with its 95 % interval, and the folder.

    Args:
        result: as in metrics.json.
        folder: where the results are.
        prefix: printed before the folder's path.
    """
    console = Console()
    if result["worst_pairs"]:
        table = Table("label", "taken for", "clips", title="Most frequent confusions", title_justify="left")
        for pair in result["worst_pairs"][:_PAIRS]:
            table.add_row(pair["label"], pair["predicted"], f"{pair['clips']} of {pair['of']}")
        console.print(table)
    if result["unknown_folders"]:
        table = Table("unknown folder", "clips", "taken for a keyword", "most often", title="Unknown folders")
        for name, values in result["unknown_folders"].items():
            taken = f"{values['taken_for_keyword']} ({values['rate']:.1%})"
            table.add_row(name, str(values["clips"]), taken, values["most_often"] or "–")
        console.print(table)
    if result["accuracy_at_snr"]:
        rows = [f"{row['split']} {row['accuracy']:.1%} at {row['snr_db']:g} dB" for row in result["accuracy_at_snr"]]
        console.print(f"in noise: {', '.join(rows)}", soft_wrap=True)
    _show_scores(console, result)
    for name in ("data_licence", "data_citation"):
        if result.get(name):
            console.print(f"{name.replace('_', ' ')}: {result[name]}", soft_wrap=True, highlight=False)
    console.print(f"{prefix}{folder}", soft_wrap=True, highlight=False, markup=False)


def _show_scores(console: Console, result: dict[str, Any]) -> None:
    """Accuracy with its intervals, and one line of other metrics."""
    low, high = result["accuracy_95"]
    speakers = ""
    if by_speaker := result["accuracy_95_by_speaker"]:
        speakers = f"; over {result['speakers']} speakers {by_speaker[0]:.1%} to {by_speaker[1]:.1%}"
    others = [
        f"macro F1 {result['macro_f1']:.1%}",
        f"expected calibration error {result['calibration']['expected_calibration_error']:.1%}",
    ]
    if (equal := result["detection"]["mean_equal_error_rate"]) is not None:
        others.append(f"equal error rate of the keywords {equal:.1%}")
    console.print(
        f"{result['split']} accuracy [bold]{result['accuracy']:.1%}[/bold] "
        f"(95 % interval {low:.1%} to {high:.1%}{speakers}; {result['clips']} clips)",
        soft_wrap=True,
    )
    console.print("; ".join(others), soft_wrap=True)
