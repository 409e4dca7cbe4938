"""What a set of predictions says: metrics, intervals, and where the model fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from kws_data.catalog import SILENCE, UNKNOWN


def predictions_table(
    examples: pd.DataFrame, labels: Sequence[str], logits: np.ndarray, ids: np.ndarray
) -> pd.DataFrame:
    """One row per clip: `clip`, `word`, `speaker`, `folder`, `label`, `predicted`, and a score (softmax) per label.

    Args:
        examples: the task's table; its index holds the example ids.
        labels: class names.
        logits: [clips, labels].
        ids: [clips], the example of each row of `logits`.
    """
    rows = examples.loc[ids].reset_index(drop=True)
    names = np.array(labels, dtype=object)
    table = pd.DataFrame(
        {
            "clip": rows["path"],
            "offset": np.where(rows["folder"] == "", 0, rows["offset"]),
            "word": rows["word"],
            "speaker": rows["speaker"],
            "folder": rows["folder"],
            "label": names[rows["label"].to_numpy()],
            "predicted": names[logits.argmax(axis=1)],
        }
    )
    scores = pd.DataFrame(softmax(logits, axis=1), columns=[f"score_{label}" for label in labels])
    return pd.concat([table, scores], axis=1)


def metrics(predictions: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy with its 95 % interval (Wilson), scores per class, confusion matrix, worst pairs, unknown folders."""
    truth, predicted = predictions["label"], predictions["predicted"]
    correct = int((truth == predicted).sum())
    interval = binomtest(correct, len(truth)).proportion_ci(0.95, method="wilson")
    names = list(labels)
    scores = precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0.0)
    per_class = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "clips": int(n)}
        for name, p, r, f, n in zip(names, *scores, strict=True)
    }
    present = [values["f1"] for values in per_class.values() if values["clips"]]
    return {
        "clips": len(truth),
        "accuracy": correct / len(truth),
        "accuracy_95": [float(interval.low), float(interval.high)],
        "macro_f1": float(np.mean(present)),
        "per_class": per_class,
        "labels": names,
        "confusion_matrix": confusion_matrix(truth, predicted, labels=names).tolist(),
        "worst_pairs": worst_pairs(predictions),
        "unknown_folders": unknown_folders(predictions),
    }


def worst_pairs(predictions: pd.DataFrame, most: int = 5) -> list[dict[str, Any]]:
    """The most frequent confusions, with how many of the label's clips they are."""
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    counts = wrong.groupby(["label", "predicted"]).size().sort_values(ascending=False, kind="stable").head(most)
    clips = predictions["label"].value_counts()
    return [
        {"label": label, "predicted": predicted, "clips": int(count), "of": int(clips[label])}
        for (label, predicted), count in counts.items()
    ]


def unknown_folders(predictions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """For each unknown folder: its clips, and how often they were taken for a keyword, and for which most."""
    result = {}
    for folder, rows in predictions[predictions["folder"] != ""].groupby("folder"):
        taken = rows.loc[~rows["predicted"].isin([SILENCE, UNKNOWN]), "predicted"]
        result[str(folder)] = {
            "clips": len(rows),
            "taken_for_keyword": len(taken),
            "rate": len(taken) / len(rows),
            "most_often": None if taken.empty else str(taken.mode().iloc[0]),
        }
    return result
