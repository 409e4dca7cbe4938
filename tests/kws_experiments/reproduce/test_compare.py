"""Two runs side by side: where the first difference is, and what may have caused it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kws_data.errors import KwsError
from kws_experiments.reproduce.causes import likely_causes
from kws_experiments.reproduce.compare import (
    compare_runs,
    history_difference,
    predictions_difference,
    weights_difference,
)
from kws_experiments.runs import checkpoint
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.saved_model import weights_digest

HISTORY = pd.DataFrame({"step": [10, 20, 30], "loss": [1.5, 0.1 + 0.2, 0.1], "val_loss": [1.0, np.nan, 0.5]})
PREDICTIONS = pd.DataFrame(
    {
        "clip": ["yes/a.wav", "no/b.wav"],
        "predicted": ["yes", "no"],
        "score_yes": np.array([0.75, 0.25], np.float32),
    }
)


def write_run(path: Path, **record: Any) -> RunFolder:
    """What of a run's folder a comparison reads."""
    folder = RunFolder(path)
    path.mkdir()
    checkpoint.save_weights(folder.training.initial.absolute(), [np.ones(3, np.float32)])
    HISTORY.assign(seconds=float(len(path.name))).to_csv(folder.training.history, index=False)
    PREDICTIONS.to_parquet(folder.predictions, index=False)
    folder.write_record(status="done", weights_sha256="a" * 64, **record)
    return folder


def test_runs_that_are_the_same_but_for_their_time(tmp_path: Path) -> None:
    findings = compare_runs(write_run(tmp_path / "one"), write_run(tmp_path / "other"))

    assert [finding.what for finding in findings] == ["initial weights", "history", "weights", "predictions"]
    assert all(finding.same for finding in findings), findings
    assert findings[1].detail == "the same, 3 evaluations"
    assert findings[3].detail == "the same bytes, 2 clips"


def test_a_table_in_a_file_of_other_bytes_is_the_same(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other")
    PREDICTIONS.to_parquet(other.predictions, index=False, compression="gzip")

    finding = compare_runs(one, other)[-1]

    assert finding.same
    assert "other bytes" in finding.detail


def test_initial_weights_that_were_not_kept_are_no_difference(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other")
    other.training.initial.write_bytes(b"PK")
    assert compare_runs(one, other)[0].same is None

    checkpoint.save_weights(other.training.initial, [np.array([1, 1, 1.5], np.float32)])
    finding = compare_runs(one, other)[0]
    assert finding.same is False
    assert finding.detail.startswith("first in array 0, by at most 0.5; 1 of 1 arrays differ")


@pytest.mark.parametrize("name", ["history.csv", "predictions.parquet"])
def test_damaged_files_are_one_line(tmp_path: Path, name: str) -> None:
    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other")
    (other.path / name).write_bytes(b"")
    with pytest.raises(KwsError, match=f"other/{name}' is missing or damaged"):
        compare_runs(one, other)


def test_the_first_weight_that_differs_is_named_with_its_size() -> None:
    arrays = [("conv/kernel", np.zeros((2, 2), np.float32)), ("dense/bias", np.array([1, np.nan], np.float32))]
    assert weights_difference(arrays, copy.deepcopy(arrays)) == (True, "the same, 2 arrays")

    other = copy.deepcopy(arrays)
    other[1][1][0] = np.nextafter(np.float32(1), np.float32(2))  # the last bit
    same, detail = weights_difference(arrays, other)
    assert not same
    assert detail.startswith("first in dense/bias, by at most 1.2e-07; 1 of 2 arrays differ")

    other[0][1][1, 1] = -0.0  # equal, but not to the bit
    assert weights_difference(arrays, other)[1].startswith("first in conv/kernel, by at most 0; 2 of 2")
    assert "another network: 2 arrays, then 1" in weights_difference(arrays, arrays[:1])[1]


def test_the_digest_of_weights_sees_every_bit_and_no_name() -> None:
    one = [np.array([1.0, 0.0], np.float32), np.zeros(3, np.float32)]
    assert weights_digest(one) == weights_digest([array.copy() for array in one])
    for other in (
        [np.array([1.0, -0.0], np.float32), one[1]],
        [one[0].astype(np.float64), one[1]],
        [one[0], np.zeros((3, 1), np.float32)],
        one[:1],
    ):
        assert weights_digest(other) != weights_digest(one)


def test_the_first_evaluation_that_differs_is_named() -> None:
    assert history_difference(HISTORY, HISTORY.copy()) == (True, "the same, 3 evaluations")
    other = HISTORY.assign(loss=[1.5, 0.3, 0.2])
    assert history_difference(HISTORY, other)[1] == "first at step 20: loss was 0.30000000000000004, is 0.3"
    assert "3 evaluations, then 2; the first 2 are the same" in history_difference(HISTORY, HISTORY.head(2))[1]
    assert "other columns" in history_difference(HISTORY, HISTORY.drop(columns="loss"))[1]
    assert history_difference(HISTORY, HISTORY.assign(val_loss=[1.0, 2.0, 0.5]))[0] is False


def test_the_first_prediction_that_differs_is_named() -> None:
    assert predictions_difference(PREDICTIONS, PREDICTIONS.copy())[0]
    other = PREDICTIONS.assign(predicted=["yes", "yes"], score_yes=np.array([0.75, 0.5], np.float32))
    assert predictions_difference(PREDICTIONS, other) == (
        False,
        "first for no/b.wav: predicted was no, is yes; 1 of 2 clips are predicted otherwise",
    )
    assert predictions_difference(PREDICTIONS, other.head(1))[1] == "of 2 clips, then of 1"
    assert "other classes" in predictions_difference(PREDICTIONS, other.rename(columns={"score_yes": "score_no"}))[1]


SESSION: dict[str, Any] = {
    "packages": {"tensorflow": "2.16.2", "numpy": "1.26.4", "rich": "13.0"},
    "processor": {"model": "AMD EPYC", "flags": ["avx2", "fma"], "cores": 2},
    "accelerators": [],
    "settings": {"deterministic": True, "intra_op_threads": 2, "inter_op_threads": 1},
    "variables": {},
    "python": {"version": "3.11.7", "implementation": "CPython"},
    "platform": "Linux",
    "code": {"sources": "a" * 64, "commit": "1" * 40, "dirty": False, "diff_sha256": None},
    "own_code": {"my_net": "b" * 64},
}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"packages": {"tensorflow": "2.17.0"}}, "version of tensorflow: 2.16.2 → 2.17.0"),
        ({"packages": {"rich": "14.0"}}, "versions of packages that hardly matter: rich 13.0 → 14.0"),
        ({"processor": {"model": "Intel"}}, "processor: AMD EPYC → Intel"),
        (
            {"processor": {"flags": ["avx2", "avx512f"]}},
            "processor's flags: without fma; with avx512f",
        ),
        ({"processor": {"cores": 4}}, "processor's cores: 2 → 4"),
        ({"accelerators": ["NVIDIA H100"]}, "accelerators: nothing → ['NVIDIA H100']"),
        ({"settings": {"intra_op_threads": 4}}, "settings: intra_op_threads 2 → 4"),
        ({"settings": {"deterministic": False}}, "deterministic=false: some operations give other bits each time"),
        ({"variables": {"OMP_NUM_THREADS": "1"}}, "environment variables: OMP_NUM_THREADS not there → 1"),
        ({"python": {"version": "3.12.1"}}, "Python: version 3.11.7 → 3.12.1"),
        ({"platform": "macOS"}, "platform: Linux → macOS"),
        ({"own_code": {"my_net": "c" * 64}}, "your own code or files: my_net bbbbbbbbbbbb → cccccccccccc"),
        ({"code": {"sources": "c", "commit": "2" * 40}}, "code: commit 111111111111 → commit 222222222222"),
        (
            {"code": {"sources": "c", "dirty": True, "diff_sha256": "d" * 64}},
            "code: commit 111111111111 → commit 111111111111 with uncommitted changes (dddddddd)",
        ),
    ],
)
def test_every_kind_of_difference_names_its_cause(change: dict[str, Any], detail: str) -> None:
    now = {
        key: value | change.get(key, {}) if isinstance(value, dict) else change.get(key, value)
        for key, value in SESSION.items()
    }
    assert detail in likely_causes([SESSION], now)
    assert likely_causes([now], now) == [detail] * (detail.startswith("deterministic"))


def test_what_leaves_the_projects_files_alone_is_no_cause() -> None:
    assert likely_causes([SESSION], SESSION) == []
    later = SESSION | {"code": SESSION["code"] | {"commit": "2" * 40, "dirty": True, "diff_sha256": "d" * 64}}
    assert likely_causes([SESSION], later) == []


def test_the_likeliest_cause_comes_first_and_sessions_count() -> None:
    now = copy.deepcopy(SESSION)
    now["platform"], now["packages"]["numpy"], now["code"]["sources"] = "macOS", "1.26.5", "e" * 64
    causes = likely_causes([SESSION, SESSION], now)
    assert [cause.split(":")[0] for cause in causes] == ["code", "version of numpy", "platform",
        "the run was trained in 2 environments, one after the other"]  # fmt: skip
