"""The pictures of a run's report."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from kws_experiments.experiment.experiment import Experiment
from kws_experiments.experiment.settings import best_row
from kws_experiments.plots import evaluations as evaluation_figures
from kws_experiments.plots import figures
from kws_experiments.plots.streams import stream_figure
from kws_experiments.reports.contents import Evaluation, Listening, RunContents
from kws_experiments.reports.pictures import Picture, draw
from kws_experiments.reports.tables import percent

CLIP_COLUMNS = 4


def curves(contents: RunContents) -> Picture:
    """Loss and accuracy over the training."""
    monitor = Experiment(contents.run.config).settings.monitor
    best = best_row(contents.history.to_dict("records"), monitor)
    step = contents.history["step"].iloc[best]
    return draw(
        "training_curves",
        "Loss and accuracy in training",
        lambda: figures.training_curves(contents.history, best),
        f"The best evaluation, by {monitor}, is that of step {step}.",
    )


def listening(stream: Listening) -> Picture:
    """Misses against false accepts an hour, both by threshold, and latency."""
    words = stream.words.assign(detected_ms=pd.to_numeric(stream.words["detected_ms"], errors="coerce"))
    latency = (words["detected_ms"] - words["end_ms"]).dropna().to_numpy()
    return draw(
        "_".join(["stream", *re.findall(r"[\w-]+", stream.name)]),
        f"Listening to {stream.name}",
        lambda: stream_figure(stream.curve, stream.metrics, latency),
    )


def confusion(evaluation: Evaluation) -> Picture:
    """Clips by label and prediction, of other clips than the run's own."""
    name = "_".join(["confusion_matrix", *re.findall(r"[\w-]+", evaluation.name)])
    matrix, labels = np.array(evaluation.metrics["confusion_matrix"]), evaluation.metrics["labels"]
    title, caption = _TOLD["confusion_matrix"]
    return draw(name, f"{title}: {evaluation.name}", lambda: figures.confusion(matrix, labels, title), caption)


_TOLD = {
    "confusion_matrix": (
        "Confusion matrix",
        "Clips by label (rows) and prediction (columns). The stronger the colour, the larger the part of the row.",
    ),
    "alluvial": (
        "From labels to predictions",
        "From labels (left) to predictions (right), as wide as there are clips; errors are coloured.",
    ),
    "roc": (
        "ROC curves",
        "Each keyword against all other clips; those with the highest equal error rates are named.",
    ),
    "det": (
        "DET curves",
        "The same errors on axes of normal deviates; on the dotted line both rates are equal.",
    ),
    "calibration": (
        "Reliability diagram",
        "Calibrated scores follow the dotted line. Expected calibration error {error}, log loss {log_loss:.3f}, Brier"
        " score {brier:.3f}.",
    ),
    "accuracy_against_noise": ("Accuracy against noise", "Words only: rows of silence are left out in noise."),
    "accuracy_by_speaker": ("Accuracy by speaker", "A dot a speaker, the larger the more clips."),
    "accuracy_by_level": (
        "Accuracy by level",
        "By the level of each clip's active part, with 95 % intervals (Wilson); below, how many clips.",
    ),
}


def of_evaluation(evaluation: Evaluation) -> list[Picture]:
    """How good the model is, as far as its clips tell."""
    drawn = evaluation_figures.of_evaluation(evaluation.metrics, evaluation.tables)
    told = evaluation.metrics["calibration"]
    told = {**told, "error": percent(told["expected_calibration_error"])}
    return [draw(name, _TOLD[name][0], figure, _TOLD[name][1].format(**told)) for name, figure in drawn.items()]


def clips(evaluation: Evaluation) -> Picture | None:
    """Waveforms and features of the clips most confidently wrong, as one picture; None where none is kept."""
    heard = evaluation.clips
    if not heard:
        return None
    samples = max(len(clip.samples) for clip in heard)
    frames = max(len(clip.features) for clip in heard)
    waveforms = np.stack([np.pad(clip.samples / 32768, (0, samples - len(clip.samples))) for clip in heard])
    features = [np.pad(clip.features, ((0, frames - len(clip.features)), (0, 0)), "edge") for clip in heard]
    rows = evaluation.tables["confidently_wrong"].head(len(heard))
    titles = [f"{row.label} → {row.predicted}" for row in rows.itertuples()]
    return draw(
        "worst_clips",
        "The clips most confidently wrong",
        lambda: figures.clips(waveforms, np.stack(features), titles, heard[0].sample_rate, CLIP_COLUMNS),
        "Waveforms above features, as the model heard them: label → prediction.",
        svg=False,
    )
