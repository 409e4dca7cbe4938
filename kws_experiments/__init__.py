"""A run: train, evaluate, report.

import kws_experiments
trained = kws_experiments.load("runs/train/0123456789ab")
trained.model           # Keras, waveforms [batch, samples] float32 in [-1, 1] → logits
trained.labels          # class names, in the order of the logits
trained.scores(clips)   # softmax scores of clips of any length
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kws_experiments.export.scorer import KerasScorer


def load(run: str | Path) -> KerasScorer:
    """The trained model of a run's folder, with its labels, thresholds, sample rate and clip length.

    `keras.models.load_model` opens a run's `model.keras` only where the modules of its layers have been imported, which
    this does.

    Raises:
        KwsError: `run` is no folder of a finished run, or damaged.
    """
    from kws_experiments.config import tensorflow_setup

    tensorflow_setup.quiet()
    from kws_experiments.export.load import load_run

    return load_run(Path(run).expanduser())
