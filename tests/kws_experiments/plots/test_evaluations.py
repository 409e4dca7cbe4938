from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from kws_experiments.plots.evaluations import (
    MOST_LABELS,
    accuracy_against_noise,
    confusion,
    det,
    of_evaluation,
    reliability,
    roc,
)
from kws_experiments.plots.style import plt
from kws_experiments.plots.training import training_curves
from kws_experiments.training.tensorboard_log import confusion_image


def matrix(labels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 9, (labels, labels))


@pytest.mark.parametrize("labels", [3, MOST_LABELS, MOST_LABELS + 1, 323])
def test_confusions_of_hundreds_of_labels_stay_a_page(labels: int) -> None:
    clips, names = matrix(labels), [f"word{index}" for index in range(labels)]
    figure = confusion(clips, names, "title")
    (axis,) = figure.axes
    assert max(figure.get_size_inches()) < 24
    assert len(axis.texts) == (np.count_nonzero(clips) if labels <= MOST_LABELS else 0)
    for side, ticks in (("x", axis.get_xticklabels()), ("y", axis.get_yticklabels())):
        assert 3 <= len(ticks) <= MOST_LABELS, side
        assert all(tick.get_text() == names[round(tick.get_position()[side == "y"])] for tick in ticks)
    plt.close(figure)


def test_the_picture_for_tensorboard_stays_small() -> None:
    assert confusion_image(matrix(323), [f"word{index}" for index in range(323)]).nbytes < 30e6


def test_flows_are_drawn_of_labels_that_can_be_told_apart() -> None:
    def pictures(labels: int) -> set[str]:
        metrics = {
            "confusion_matrix": matrix(labels).tolist(), "labels": [f"word{index}" for index in range(labels)],
            "detection": {"keywords": {}}, "accuracy_at_snr": [],
        }  # fmt: skip
        return set(of_evaluation(metrics, {"speakers": pd.DataFrame(), "levels": pd.DataFrame()}))

    assert pictures(MOST_LABELS) - pictures(MOST_LABELS + 1) == {"alluvial"}


CURVES = pd.DataFrame({"keyword": "yes", "false_accept_rate": [0, 1], "false_reject_rate": [1, 0]}).assign(
    true_positive_rate=[0, 1]
)
BINS = pd.DataFrame({"low": [0.0, 0.5], "high": [0.5, 1], "clips": 9, "confidence": [0.3, 0.7], "accuracy": 1.0})
HISTORY = pd.DataFrame({name: [1, 2] for name in ("step", "loss", "val_loss", "accuracy", "val_accuracy")})
IN_NOISE = {"accuracy_at_snr": [{"split": "testing", "snr_db": 5, "accuracy": 1}], "accuracy": 1, "split": "testing"}


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda: roc(CURVES, {"yes": 0.5}), id="roc"),
        pytest.param(lambda: det(CURVES, {"yes": 0.5}), id="det"),
        pytest.param(lambda: reliability(BINS), id="reliability"),
        pytest.param(lambda: accuracy_against_noise(IN_NOISE), id="accuracy_against_noise"),
        pytest.param(lambda: training_curves(HISTORY, 0), id="training_curves"),
    ],
)
def test_legends_lie_over_nothing(draw: Callable[[], Figure]) -> None:
    figure = draw()
    figure.draw_without_rendering()
    legends = [*figure.legends, *filter(None, (axis.get_legend() for axis in figure.axes))]
    assert len(legends) == 1
    assert not legends[0].get_window_extent().count_overlaps([axis.get_tightbbox() for axis in figure.axes])
    plt.close(figure)
