"""Evaluations in TensorBoard's event files: scalars, and the confusion matrix as a picture and as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

from kws_data.text import markdown
from kws_experiments.plots import evaluations


class TensorBoardLog:
    """Writes below `folder` when called with the history's new row and the confusion matrix [labels, labels]."""

    def __init__(self, folder: Path, labels: Sequence[str]) -> None:
        self._labels = list(labels)
        self._training = tf.summary.create_file_writer(str(folder / "train"))
        self._validation = tf.summary.create_file_writer(str(folder / "validation"))

    def __call__(self, row: dict[str, Any], confusion: np.ndarray) -> None:
        """Write one evaluation."""
        with self._training.as_default(step=row["step"]):
            for name in ("loss", "accuracy", "learning_rate"):
                tf.summary.scalar(name, row[name])
        with self._validation.as_default(step=row["step"]):
            for name in ("loss", "accuracy"):
                tf.summary.scalar(name, row[f"val_{name}"])
            tf.summary.image("confusion matrix", confusion_image(confusion, self._labels)[None])
            if len(self._labels) <= evaluations.MOST_LABELS:
                tf.summary.text("confusion", markdown_table(confusion, self._labels))
        for writer in (self._training, self._validation):
            writer.flush()


def confusion_image(confusion: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """The picture of the matrix, as the run's folder has it at the end: [height, width, 3] uint8."""
    figure = evaluations.confusion(confusion, labels, "validation")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.array(canvas.buffer_rgba())[..., :3]
    plt.close(figure)
    return pixels


def markdown_table(confusion: np.ndarray, labels: Sequence[str]) -> str:
    """The matrix with its class names, a row per true label."""
    names = list(map(markdown, labels))
    lines = ["| label | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    lines += [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in zip(names, confusion, strict=True)]
    return "\n".join(lines)
