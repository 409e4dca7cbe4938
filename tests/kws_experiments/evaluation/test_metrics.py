"""Metrics of predictions against scikit-learn, for any predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from kws_data.errors import KwsError
from kws_experiments.evaluation.breakdowns import by_level, by_speaker, confidently_wrong
from kws_experiments.evaluation.files import EvaluationFiles
from kws_experiments.evaluation.metrics import evaluate, with_interval
from kws_experiments.plots.evaluations import draw
from tests.predictions import LABELS, predicted, table_of

THRESHOLDS = {"yes": 0.5, "no": 0.9}


@settings(max_examples=30)
@given(predicted())
def test_metrics_are_scikit_learns_and_fit_into_json(predictions: pd.DataFrame) -> None:
    truth, taken = predictions["label"], predictions["predicted"]

    metrics, tables = evaluate(predictions, LABELS, THRESHOLDS)

    assert metrics["accuracy"] == pytest.approx(accuracy_score(truth, taken))
    assert metrics["confusion_matrix"] == confusion_matrix(truth, taken, labels=LABELS).tolist()
    scores = precision_recall_fscore_support(truth, taken, labels=LABELS, zero_division=0.0)
    assert [tuple(values.values()) for values in metrics["per_class"].values()] == list(zip(*scores, strict=True))
    present = [label for label in LABELS if (truth == label).any()]
    macro = f1_score(truth, taken, labels=present, average="macro", zero_division=0.0)
    assert metrics["macro_f1"] == pytest.approx(macro)
    off_diagonal = confusion_matrix(truth, taken, labels=LABELS)[~np.eye(len(LABELS), dtype=bool)]
    assert [pair["clips"] for pair in metrics["worst_pairs"]] == sorted(off_diagonal[off_diagonal > 0])[:-11:-1]
    assert tables["speakers"]["clips"].sum() == (predictions["speaker"] != "").sum()
    assert tables["levels"]["clips"].sum() == (predictions["level_db"].notna() & (truth != "_silence_")).sum()


@settings(max_examples=10)
@given(predicted())
def test_labels_named_as_scikit_learns_averages_change_nothing(predictions: pd.DataFrame) -> None:
    names = dict(zip(LABELS, ["_silence_", "_unknown_", "accuracy", "macro avg"], strict=True))
    renamed = predictions.replace({"label": names, "predicted": names}).rename(
        columns={f"score_{label}": f"score_{name}" for label, name in names.items()}
    )

    plain, _ = evaluate(predictions, LABELS, THRESHOLDS)
    metrics, _ = evaluate(renamed, list(names.values()), {names[label]: value for label, value in THRESHOLDS.items()})

    assert metrics["per_class"] == {names[label]: values for label, values in plain["per_class"].items()}
    assert metrics["classification_report"]["averages"] == plain["classification_report"]["averages"]
    assert metrics["macro_f1"] == plain["macro_f1"]
    assert list(metrics["detection"]["keywords"]) == ["accuracy", "macro avg"]


def test_writing_keeps_everything_and_no_number_that_is_not_finite(tmp_path: Path) -> None:
    predictions = table_of(np.zeros((1, 4), np.float32), np.array([2]), [""], np.array([np.nan]))
    metrics, tables = evaluate(predictions, LABELS, THRESHOLDS)
    noise = pd.DataFrame({"accuracy": [], "accuracy_low": [], "accuracy_high": []})
    metrics |= {"split": "testing", "accuracy_at_snr": with_interval(noise), "odd": [np.float32("nan"), np.int64(3)]}
    files = EvaluationFiles(tmp_path / "new")

    files.write(metrics, {**tables, "noise": noise})
    draw(tmp_path / "figures", metrics, tables)

    def refuse(text: str) -> float:
        raise AssertionError(text)

    written = json.loads(files.metrics.read_text(), parse_constant=refuse)
    assert written["odd"] == [None, 3]
    assert written["clips"] == 1
    for name, table in tables.items():
        pd.testing.assert_frame_equal(files.read_table(name), table, check_dtype=False)
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"confusion_matrix", "alluvial", "calibration"}


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    files = EvaluationFiles(tmp_path)
    for damage in ({}, {"metrics.json": b'{"clips": 1', "speakers.parquet": b"PAR1"}, {"metrics.json": b"[]"}):
        for name, content in damage.items():
            (tmp_path / name).write_bytes(content)
        with pytest.raises(KwsError, match=r"metrics\.json' is missing or damaged: evaluate again"):
            files.read_metrics()
        with pytest.raises(KwsError, match=r"speakers\.parquet' is missing or damaged: evaluate again"):
            files.read_table("speakers")


def an_example() -> pd.DataFrame:
    """Seven clips of two speakers and one row of generated silence."""
    scores = np.array(
        [
            [0.1, 0.1, 0.7, 0.1],  # yes, right
            [0.1, 0.6, 0.2, 0.1],  # yes, wrong
            [0.0, 0.0, 0.9, 0.1],  # no, wrong, surer
            [0.1, 0.1, 0.0, 0.8],  # no, right
            [0.1, 0.5, 0.2, 0.2],  # unknown, right
            [0.4, 0.2, 0.2, 0.2],  # silence, right
            [0.1, 0.1, 0.2, 0.6],  # yes, wrong like the second
        ]
    )
    logits = np.log(np.maximum(scores, 1e-9))
    levels = np.array([-61.0, -60.0, -58.0, -20.0, -19.9, -70.0, 0.5])
    return table_of(logits, np.array([2, 2, 3, 3, 1, 0, 2]), ["a", "a", "b", "b", "b", "", "a"], levels)


def test_speakers_stand_the_worst_first() -> None:
    table = by_speaker(an_example())
    assert table[["speaker", "clips", "correct"]].to_numpy().tolist() == [["a", 3, 1], ["b", 3, 2]]
    assert (table["accuracy_low"] < table["accuracy"]).all()
    assert (table["accuracy_high"] > table["accuracy"]).all()


def test_levels_are_in_steps_with_open_ends() -> None:
    table = by_level(an_example())
    columns = ["low_db", "high_db", "clips", "correct"]
    assert table[columns].to_numpy().tolist() == [[-60, -55, 3, 1], [-20, -15, 2, 2], [-5, 0, 1, 0]]


def test_the_surest_mistakes_come_first() -> None:
    table = confidently_wrong(an_example())
    assert table["clip"].tolist() == ["no/2.wav", "yes/1.wav", "yes/6.wav"]
    assert table["predicted"].tolist() == ["yes", "_unknown_", "no"]
    assert table["confidence"].tolist() == pytest.approx([0.9, 0.6, 0.6], abs=1e-6)
    assert table["label_score"].tolist() == pytest.approx([0.1, 0.2, 0.2], abs=1e-6)
    assert len(confidently_wrong(an_example(), most=2)) == 2
