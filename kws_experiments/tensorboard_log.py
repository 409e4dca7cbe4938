"""Evaluations in TensorBoard's event files: scalars, and the confusion matrix as a picture and as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tensorflow as tf

_PIXELS_PER_CELL = 16


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
            tf.summary.image("confusion (rows: label, columns: predicted)", confusion_image(confusion)[None])
            tf.summary.text("confusion", markdown_table(confusion, self._labels))
        for writer in (self._training, self._validation):
            writer.flush()


def confusion_image(confusion: np.ndarray) -> np.ndarray:
    """[labels × 16, labels × 16, 3] uint8: darker where more of a label's clips went; quick, and so without text."""
    fractions = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    cells = np.kron(fractions, np.ones((_PIXELS_PER_CELL, _PIXELS_PER_CELL)))
    return (matplotlib.colormaps["Blues"](cells)[..., :3] * 255).astype(np.uint8)


def markdown_table(confusion: np.ndarray, labels: Sequence[str]) -> str:
    """The matrix with its class names, a row per true label."""
    names = [label.replace("_", r"\_") for label in labels]
    lines = ["| label | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    lines += [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in zip(names, confusion, strict=True)]
    return "\n".join(lines)
