"""The metrics of a set of predictions: all of `metrics.json`, and the tables beside it.

`metrics.json` of a training and of `kws evaluate` alike. Rates are fractions, and what is unknown is null. `…_95` is a
95 % interval, [low, high].

| key | what it is |
| --- | --- |
| split | `testing`, `validation` or `training` of the run's own data; of other data their folder or name |
| clips, speakers | how many; generated silence has no speaker |
| accuracy, accuracy_95 | with Wilson's interval (`intervals.wilson`) |
| accuracy_95_by_speaker, macro_f1_95_by_speaker | bootstraps over speakers (`intervals.by_speaker`); null below two |
| macro_f1 | mean F1 of the classes that have clips |
| per_class | label → `precision`, `recall`, `f1`, `clips` |
| classification_report | scikit-learn's: `classes` by label, and `averages` over all labels, those without clips too |
| labels, confusion_matrix | rows are labels, columns predictions, in the order of `labels` |
| worst_pairs | most frequent confusions: `label`, `predicted`, `clips`, `of` |
| unknown_folders | folder → `clips`, `taken_for_keyword`, `rate`, `most_often` |
| calibration | `expected_calibration_error`, `maximum_calibration_error`, `brier`, `log_loss`, … (`calibration`) |
| detection | `mean_auc`, `mean_equal_error_rate`, `keywords` → `auc`, `equal_error_rate`, … (`detection`) |
| at_thresholds | keyword → `threshold`, `false_accept_rate`, `false_reject_rate` at the run's own thresholds |
| by_speaker | over speakers with `least_clips` or more: `speakers`, and `lowest`, `lowest_tenth`, `median` accuracy |
| by_level | accuracy by level: `low_db`, `high_db`, `clips`, `correct`, `accuracy`, `accuracy_95` |
| accuracy_at_snr | in noise: `split`, `snr_db`, `clips`, `correct`, `accuracy`, `accuracy_95`; without silence rows |
| audio | `sample_rate` (Hz), and `roots`: `folder` of a clip ('' is the data set) → the path that `clip` is below |
| set_aside | files that could not be used |
| heard_in_training | of other data: clips that the run was trained on, compared by their samples |
| parameters, data_licence, data_citation | of the network and of the data |

The tables, as Parquet (`evaluation.files`): `predictions` (`predictions_table`), `confidently_wrong`, `speakers` and
`levels` (`breakdowns`), `calibration` (`calibration.reliability`), `detection` (`detection.COLUMNS`) and `noise` (as
accuracy_at_snr, with `accuracy_low` and `accuracy_high`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import classification_report, confusion_matrix

from kws_data.catalog import SILENCE, UNKNOWN
from kws_experiments.evaluation import breakdowns, intervals
from kws_experiments.evaluation.calibration import calibration
from kws_experiments.evaluation.detection import detection
from kws_experiments.evaluation.thresholds import rates_at_thresholds

WORST_PAIRS = 10
LEAST_CLIPS = 5  # of a speaker: fewer say little about the accuracy
_PER_CLASS = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
_QUANTILES = {"lowest": 0.0, "lowest_tenth": 0.1, "median": 0.5}


def predictions_table(
    examples: pd.DataFrame, labels: Sequence[str], logits: np.ndarray, ids: np.ndarray, levels_db: np.ndarray
) -> pd.DataFrame:
    """One row per clip.

    Args:
        examples: the task's table; its index holds the example ids.
        labels: class names.
        logits: [clips, labels].
        ids: [clips], the example of each row of `logits`.
        levels_db: [clips], of the clip's active part, dB of full scale; NaN for zeros.

    Returns:
        `clip` (path below its folder's root), `offset` and `length` (samples at the run's rate: where in the file it
        starts, and how long it is before the model's input is padded or cut; length 0 is generated silence, without a
        file), `word`, `speaker`, `folder` (name of the unknown folder, '' for the data set), `level_db`, `label`,
        `predicted`, and a score (softmax) per label, `score_<label>`.
    """
    rows = examples.loc[ids].reset_index(drop=True)
    names = np.array(labels, dtype=object)
    table = pd.DataFrame(
        {
            "clip": rows["path"],
            "offset": rows["start"],
            "length": rows["length"],
            "word": rows["word"],
            "speaker": rows["speaker"],
            "folder": rows["folder"],
            "level_db": levels_db,
            "label": names[rows["label"].to_numpy()],
            "predicted": names[logits.argmax(axis=1)],
        }
    )
    scores = pd.DataFrame(softmax(logits, axis=1), columns=[f"score_{label}" for label in labels])
    return pd.concat([table, scores], axis=1)


def evaluate(
    predictions: pd.DataFrame, labels: Sequence[str], thresholds: Mapping[str, float]
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Everything that follows from predictions: metrics by their key in `metrics.json`, and tables by name.

    Args:
        predictions: as of `predictions_table`, at least one row.
        labels: class names.
        thresholds: each keyword's.
    """
    scores = predictions[[f"score_{label}" for label in labels]].to_numpy()
    truth = pd.Index(labels).get_indexer(predictions["label"])
    calibrated, reliability = calibration(scores, truth)
    detected, curves = detection(scores, truth, labels)
    speakers, levels = breakdowns.by_speaker(predictions), breakdowns.by_level(predictions)
    metrics = {
        **classified(predictions, labels),
        "calibration": calibrated,
        "detection": detected,
        "at_thresholds": rates_at_thresholds(scores, truth, labels, thresholds),
        "by_speaker": _speakers(speakers),
        "by_level": with_interval(levels),
    }
    tables = {
        "predictions": predictions,
        "confidently_wrong": breakdowns.confidently_wrong(predictions),
        "speakers": speakers,
        "levels": levels,
        "calibration": reliability,
        "detection": curves,
    }
    return metrics, tables


def classified(predictions: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy with its 95 % intervals, scores per class, confusion matrix, worst pairs, unknown folders."""
    truth, predicted = predictions["label"], predictions["predicted"]
    names = list(labels)
    correct = int((truth == predicted).sum())
    by_speaker = intervals.by_speaker(predictions, labels)
    # by number: scikit-learn puts its averages ("accuracy", "macro avg") beside the labels, which may be named so too
    numbers = [str(number) for number in range(len(names))]
    report = classification_report(
        truth, predicted, labels=names, target_names=numbers, output_dict=True, zero_division=0.0
    )
    classes = {name: report.pop(number) for name, number in zip(names, numbers, strict=True)}
    per_class = {
        name: {key: float(values[theirs]) for key, theirs in _PER_CLASS.items()} | {"clips": int(values["support"])}
        for name, values in classes.items()
    }
    return {
        "clips": len(truth),
        "speakers": int(predictions.loc[predictions["speaker"] != "", "speaker"].nunique()),
        "accuracy": correct / len(truth),
        "accuracy_95": list(intervals.wilson(correct, len(truth))),
        "accuracy_95_by_speaker": by_speaker["accuracy"],
        "macro_f1": float(np.mean([values["f1"] for values in per_class.values() if values["clips"]])),
        "macro_f1_95_by_speaker": by_speaker["macro_f1"],
        "per_class": per_class,
        "classification_report": {"classes": classes, "averages": report},
        "labels": names,
        "confusion_matrix": confusion_matrix(truth, predicted, labels=names).tolist(),
        "worst_pairs": worst_pairs(predictions),
        "unknown_folders": unknown_folders(predictions),
    }


def worst_pairs(predictions: pd.DataFrame, most: int = WORST_PAIRS) -> list[dict[str, Any]]:
    """The most frequent confusions, with how many of the label's clips they are."""
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    counts = wrong.groupby(["label", "predicted"]).size().sort_values(ascending=False, kind="stable").head(most)
    clips = predictions["label"].value_counts()
    return [
        {"label": label, "predicted": predicted, "clips": int(count), "of": int(clips[label])}
        for (label, predicted), count in counts.items()
    ]


def unknown_folders(predictions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """For each unknown folder: its clips, how many were taken for a keyword, and for which one most often."""
    result = {}
    unknown = predictions[(predictions["folder"] != "") & (predictions["label"] == UNKNOWN)]
    for folder, rows in unknown.groupby("folder"):
        taken = rows.loc[~rows["predicted"].isin([SILENCE, UNKNOWN]), "predicted"]
        result[str(folder)] = {
            "clips": len(rows),
            "taken_for_keyword": len(taken),
            "rate": len(taken) / len(rows),
            "most_often": None if taken.empty else str(taken.mode().iloc[0]),
        }
    return result


def with_interval(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows for JSON: `accuracy_low` and `accuracy_high` as one `accuracy_95`."""
    rows = table.drop(columns=["accuracy_low", "accuracy_high"]).to_dict("records")
    pairs = zip(table["accuracy_low"].tolist(), table["accuracy_high"].tolist(), strict=True)
    return [{**row, "accuracy_95": list(pair)} for row, pair in zip(rows, pairs, strict=True)]


def _speakers(table: pd.DataFrame) -> dict[str, Any]:
    """`by_speaker` in `metrics.json`; accuracies are None if no speaker has so many clips."""
    accuracy = table.loc[table["clips"] >= LEAST_CLIPS, "accuracy"]
    accuracies = {name: None if accuracy.empty else float(accuracy.quantile(q)) for name, q in _QUANTILES.items()}
    return {"least_clips": LEAST_CLIPS, "speakers": len(accuracy), **accuracies}
