from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kws_experiments.plots.evaluations import MOST_LABELS, confusion, of_evaluation
from kws_experiments.plots.style import plt
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
