"""The pictures of a run's report."""

from __future__ import annotations

import re

import numpy as np

from kws_experiments import evaluation_figures, figures
from kws_experiments.report.contents import Evaluation, RunContents
from kws_experiments.report.pictures import Picture, draw
from kws_experiments.settings import best_row

CLIP_COLUMNS = 4


def curves(contents: RunContents) -> Picture:
    """Loss and accuracy over the training."""
    monitor = contents.run.config["trainer"]["monitor"]
    best = best_row(contents.history.to_dict("records"), monitor)
    step = contents.history["step"].iloc[best]
    return draw(
        "training_curves",
        "Loss and accuracy in training",
        lambda: figures.training_curves(contents.history, best),
        f"The best evaluation, by {monitor}, is that of step {step}.",
    )


def confusion(evaluation: Evaluation) -> Picture:
    """Clips by label and prediction."""
    name = "_".join(["confusion_matrix", *re.findall(r"[\w-]+", evaluation.name)])
    matrix, labels = np.array(evaluation.metrics["confusion_matrix"]), evaluation.metrics["labels"]
    return draw(
        name,
        f"Confusion matrix: {evaluation.metrics['split']}",
        lambda: figures.confusion(matrix, labels, "Confusion matrix"),
        "Clips by label (rows) and prediction (columns). The stronger the colour, the larger the part of the row.",
    )


def of_evaluation(evaluation: Evaluation) -> list[Picture]:
    """How good the model is; curves that there are no clips for are left out."""
    metrics, tables = evaluation.metrics, evaluation.tables
    matrix, labels = np.array(metrics["confusion_matrix"]), metrics["labels"]
    found = [
        confusion(evaluation),
        draw(
            "alluvial",
            "From labels to predictions",
            lambda: evaluation_figures.alluvial(matrix, labels, "From labels to predictions"),
            "From labels (left) to predictions (right), as wide as there are clips; errors are coloured.",
        ),
    ]
    rates = {key: value["equal_error_rate"] for key, value in metrics["detection"]["keywords"].items()}
    worst = sorted((key for key, rate in rates.items() if rate is not None), key=lambda key: (-(rates[key] or 0), key))
    if worst:
        said = "Each keyword against all other clips; those with the highest equal error rate are named."
        detection = tables["detection"]
        found += [
            draw("roc", "ROC curves", lambda: evaluation_figures.roc(detection, worst), said),
            draw(
                "det",
                "DET curves",
                lambda: evaluation_figures.det(detection, worst),
                "The same on axes of normal deviates; the dotted line is where both rates are equal.",
            ),
        ]
    calibration = metrics["calibration"]
    found.append(
        draw(
            "reliability",
            "Reliability diagram",
            lambda: evaluation_figures.reliability(tables["calibration"]),
            f"Expected calibration error {100 * calibration['expected_calibration_error']:.1f} %, log loss"
            f" {calibration['log_loss']:.3f}, Brier score {calibration['brier']:.3f}.",
        )
    )
    if metrics["accuracy_at_snr"]:
        found.append(
            draw(
                "accuracy_against_noise",
                "Accuracy against noise",
                lambda: figures.accuracy_against_noise(metrics),
                "Words only: rows of silence are left out in noise.",
            )
        )
    if len(tables["speakers"]) > 1:
        found.append(
            draw(
                "accuracy_by_speaker",
                "Accuracy by speaker",
                lambda: evaluation_figures.speakers(tables["speakers"]),
                "A dot a speaker, the larger the more clips.",
            )
        )
    if len(tables["levels"]):
        found.append(
            draw(
                "accuracy_by_level",
                "Accuracy by level",
                lambda: evaluation_figures.levels(tables["levels"]),
                "By the level of each clip's active part, with 95 % intervals (Wilson); below, how many clips.",
            )
        )
    return found


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
