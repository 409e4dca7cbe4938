"""The end of a training on the console: how good the model is, where it fails, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from kws_data.text import printable
from kws_experiments.config.command import quoted
from kws_experiments.console.output import say
from kws_experiments.console.tables import Console, by_column, print_table
from kws_experiments.runs.folder import RunFolder
from kws_experiments.training.progress import print_confusion

_PAIRS = 5
_NEXT = {  # command: its options, and what it does
    "evaluate": (["--noise-snr", "20,10,0"], "its test clips in noise"),
    "export": (["--format", "tflite", "--quantize", "int8"], "for microcontrollers"),
    "stream": (["recording.wav"], "find words in a long recording of yours; or --microphone"),
}


def show_training(result: dict[str, Any], folder: RunFolder) -> None:
    """Print the confusion matrix, the result, where the report is, and three commands to go on with."""
    print_confusion(Console(), np.array(result["confusion_matrix"]), result["labels"])
    show(result, folder.path, "run: ")
    if folder.report.is_file():
        link = (printable(folder.report), f"link {folder.report.resolve().as_uri()}")
        Console().print(Text.assemble("report: ", link), soft_wrap=True)
    say("next:")
    for command in ("evaluate", "export", "stream"):
        words, comment = _NEXT[command]
        line = quoted("kws", command, folder.path, *words)
        say(f"  {line}  # {comment}")


def show(result: dict[str, Any], folder: Path, prefix: str = "") -> None:
    """Print the worst pairs, unknown folders and noise if any, accuracy with its 95 % interval, and the folder.

    Args:
        result: as in metrics.json.
        folder: where the results are.
        prefix: printed before the folder's path.
    """
    if result["worst_pairs"]:
        rows = [
            (pair["label"], pair["predicted"], f"{pair['clips']} of {pair['of']}") for pair in result["worst_pairs"]
        ]
        print_table(by_column(("label", "taken for", "clips"), rows[:_PAIRS]), title="Most frequent confusions")
    if result["unknown_folders"]:
        headings = ("unknown folder", "clips", "taken for a keyword", "most often")
        folders = []
        for name, values in result["unknown_folders"].items():
            taken = f"{values['taken_for_keyword']} ({values['rate']:.1%})"
            folders.append((name, str(values["clips"]), taken, values["most_often"] or "–"))
        print_table(by_column(headings, folders), title="Unknown folders")
    if result["accuracy_at_snr"]:
        noisy = [f"{row['split']} {row['accuracy']:.1%} at {row['snr_db']:g} dB" for row in result["accuracy_at_snr"]]
        say(f"in noise: {', '.join(noisy)}")
    _show_scores(result)
    for name in ("data_licence", "data_citation"):
        if result.get(name):
            say(f"{name.replace('_', ' ')}: {result[name]}")
    say(f"{prefix}{folder}")


def _show_scores(result: dict[str, Any]) -> None:
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
    accuracy = (
        printable(f"{result['split']} accuracy "),
        (f"{result['accuracy']:.1%}", "bold"),
        f" (95 % interval {low:.1%} to {high:.1%}{speakers}; {result['clips']} clips)",
    )
    Console().print(Text.assemble(*accuracy), soft_wrap=True)
    say("; ".join(others))
