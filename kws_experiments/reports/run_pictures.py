"""The pictures of a run's report."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from kws_experiments.experiment.settings import best_row
from kws_experiments.plots import clips, evaluations
from kws_experiments.plots.streams import stream_figure
from kws_experiments.plots.training import training_curves
from kws_experiments.reports.contents import Evaluation, Listening, RunContents
from kws_experiments.reports.pictures import Picture, draw
from kws_experiments.reports.tables import percent

# Titles and captions of the pictures in `plots.evaluations`
_CAPTIONS = {
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
    "det": ("DET curves", "The same errors on axes of normal deviates; on the dotted line both rates are equal."),
    "calibration": (
        "Reliability diagram",
        "Calibrated scores follow the dotted line. Expected calibration error {error}, log loss {log_loss:.3f}, Brier"
        " score {brier:.3f}.",
    ),
    "accuracy_against_noise": ("Accuracy against noise", "Words only: rows of silence are left out in noise."),
    "accuracy_by_speaker": ("Accuracy by speaker", "A dot for each speaker, its area by the number of clips."),
    "accuracy_by_level": (
        "Accuracy by level",
        "By the level of each clip's active part, with 95 % intervals (Wilson); below, how many clips.",
    ),
}


def curves(contents: RunContents) -> Picture:
    """Loss and accuracy over the training."""
    monitor = contents.experiment.settings.monitor
    best = best_row(contents.history.to_dict("records"), monitor)
    return draw(
        "training_curves",
        "Loss and accuracy in training",
        lambda: training_curves(contents.history, best),
        f"The best evaluation by {monitor} is that of step {contents.history['step'].iloc[best]}.",
    )


def listening(stream: Listening) -> Picture:
    """Misses against false accepts an hour, both by threshold, and latency."""
    detected = pd.to_numeric(stream.words["detected_ms"], errors="coerce")
    latency_ms = (detected - stream.words["end_ms"]).dropna().to_numpy()
    title = f"Detections in {stream.name}"
    return draw(
        _file_name("stream", stream.name), title, lambda: stream_figure(stream.curve, stream.metrics, latency_ms),
        "Bands are 95 % intervals: of misses (Wilson), and of false accepts an hour (Poisson).",
    )  # fmt: skip


def confusion(evaluation: Evaluation) -> Picture:
    """Clips by label and prediction, of other clips than the run's own."""
    name = _file_name("confusion_matrix", evaluation.name)
    matrix, labels = np.array(evaluation.metrics["confusion_matrix"]), evaluation.metrics["labels"]
    title, caption = _CAPTIONS["confusion_matrix"]
    return draw(name, f"{title}: {evaluation.name}", lambda: evaluations.confusion(matrix, labels, title), caption)


def of_evaluation(evaluation: Evaluation) -> list[Picture]:
    """All pictures for which the evaluation has clips."""
    figures = evaluations.of_evaluation(evaluation.metrics, evaluation.tables)
    values = evaluation.metrics["calibration"]
    values = {**values, "error": percent(values["expected_calibration_error"])}
    return [
        draw(name, _CAPTIONS[name][0], figure, _CAPTIONS[name][1].format(**values)) for name, figure in figures.items()
    ]


def worst_clips(evaluation: Evaluation, titles: list[str]) -> Picture:
    """Waveforms and features of the most confidently wrong clips as one picture; there must be one or more."""
    kept = evaluation.clips
    samples, frames = (max(len(getattr(clip, name)) for clip in kept) for name in ("samples", "features"))
    waveforms = np.stack([np.pad(clip.samples / 32768, (0, samples - len(clip.samples))) for clip in kept])
    features = np.stack([np.pad(clip.features, ((0, frames - len(clip.features)), (0, 0)), "edge") for clip in kept])
    return draw(
        "worst_clips",
        "The most confidently wrong clips",
        lambda: clips.clips(waveforms, features, titles, kept[0].sample_rate),
        svg=False,
    )


def _file_name(kind: str, name: str) -> str:
    return "_".join([kind, *re.findall(r"[\w-]+", name)])
