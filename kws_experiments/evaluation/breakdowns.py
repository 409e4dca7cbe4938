"""Where a model fails: accuracy by speaker and by level, and the wrong clips with the highest scores."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kws_data.catalog import SILENCE
from kws_experiments.evaluation.intervals import wilson_each

LEVEL_STEP_DB = 5
LEVEL_RANGE_DB = (-60, 0)  # clips outside count in the first or last step
MOST_WRONG = 100
_COUNTS = {"clips": np.int64, "correct": np.int64, "accuracy": np.float64}


def by_speaker(predictions: pd.DataFrame) -> pd.DataFrame:
    """A row per speaker, the worst first (of equals the one with more clips): `speaker`, and as in `_accuracies`.

    Rows without a speaker (generated silence) are left out.
    """
    spoken = predictions[predictions["speaker"] != ""]
    table = _accuracies(spoken, spoken["speaker"].rename("speaker"))
    return table.sort_values(["accuracy", "clips", "speaker"], ascending=[True, False, True], ignore_index=True)


def by_level(predictions: pd.DataFrame) -> pd.DataFrame:
    """A row per step of 5 dB that has clips: `low_db`, `high_db` (not in it), and as in `_accuracies`.

    Clips of the silence class are left out, since their level is part of the class. So are clips of zeros, which have
    no level.
    """
    spoken = predictions[(predictions["label"] != SILENCE) & predictions["level_db"].notna()]
    low, high = LEVEL_RANGE_DB
    step = np.floor(spoken["level_db"].clip(low, high - LEVEL_STEP_DB) / LEVEL_STEP_DB).astype(np.int64)
    table = _accuracies(spoken, (step * LEVEL_STEP_DB).rename("low_db"))
    table.insert(1, "high_db", table["low_db"] + LEVEL_STEP_DB)
    return table


def confidently_wrong(predictions: pd.DataFrame, most: int = MOST_WRONG) -> pd.DataFrame:
    """At most `most` wrong clips, those with the highest score of the wrong label first.

    Returns:
        the columns of the predictions, with `confidence` (the predicted label's score) and `label_score` (the right
        label's) instead of all scores.
    """
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    scores = wrong.filter(regex="^score_")
    columns = pd.Index(scores.columns.str.removeprefix("score_"))
    rows, values = np.arange(len(wrong)), scores.to_numpy()
    table = wrong.drop(columns=scores.columns).assign(
        confidence=values[rows, columns.get_indexer(wrong["predicted"])],
        label_score=values[rows, columns.get_indexer(wrong["label"])],
    )
    order = table.sort_values(["confidence", "label_score", "clip", "offset"], ascending=[False, True, True, True])
    return order.head(most).reset_index(drop=True)


def _accuracies(predictions: pd.DataFrame, group: pd.Series) -> pd.DataFrame:
    """By group: `clips`, `correct`, `accuracy`, and its 95 % interval (Wilson) as `accuracy_low`, `accuracy_high`."""
    right = (predictions["label"] == predictions["predicted"]).astype(np.int64)
    table = right.groupby(group).agg(clips="size", correct="sum").reset_index()
    table["accuracy"] = table["correct"] / table["clips"]
    table = table.astype(_COUNTS)
    intervals = wilson_each(table["correct"].to_numpy(), table["clips"].to_numpy())
    return table.assign(accuracy_low=intervals[:, 0], accuracy_high=intervals[:, 1])
