"""A run's record in MLflow: continued, and no reason to stop a training."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kws_experiments.runs.folder import RunFolder
from kws_experiments.training.mlflow_log import MLflowLog

mlflow = pytest.importorskip("mlflow")


def record(store: Path) -> Any:
    """The one run in MLflow's file store."""
    client = mlflow.MlflowClient(store.as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("kws").experiment_id])
    return run


def test_an_mlflow_record_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = tmp_path / "mlruns"
    config = {"seed": 3, "model": {"_target_": "a.b", "filters": 8}, "words": [str(number) for number in range(5000)]}
    config |= {f"key_{number}": number for number in range(300)}  # more than MLflow takes at once
    for steps in ([10, 20], [20, 30]):  # the second start repeats an evaluation
        log = MLflowLog(str(store), "kws")
        log.begin(RunFolder(tmp_path / "it's"), config)
        for step in steps:
            log.evaluated({"step": step, "val_loss": 1 / step, "val_accuracy": 0.5}, np.eye(2))
        assert record(store).info.status == "RUNNING"
    log.end({"accuracy": 0.75, "clips": 4, "labels": ["yes"]})

    run = record(store)
    assert run.info.status == "FINISHED"
    assert (run.data.params["model.filters"], run.data.params["key_299"]) == ("8", "299")
    assert run.data.metrics["final_accuracy"] == 0.75
    history = mlflow.MlflowClient(store.as_uri()).get_metric_history(run.info.run_id, "val_loss")
    assert [metric.step for metric in history] == [10, 20, 30]


def test_a_process_that_ends_before_its_run_leaves_it_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    code = f"""
from pathlib import Path
from kws_experiments.runs.folder import RunFolder
from kws_experiments.training.mlflow_log import MLflowLog
MLflowLog("{tmp_path / "mlruns"}", "kws").begin(RunFolder(Path("abc")), dict(seed=0))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert record(tmp_path / "mlruns").info.status == "KILLED"


def test_training_goes_on_without_mlflow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    log = MLflowLog(str(tmp_path / "file" / "mlruns"), "kws")
    log.begin(RunFolder(tmp_path / "abc"), {"seed": 0})
    log.evaluated({"step": 1, "val_loss": 1.0}, np.eye(2))
    log.end({"accuracy": 1.0})

    assert [record.getMessage().startswith("MLflow at file:") for record in caplog.records] == [True]


@pytest.mark.parametrize("store", ["{}/mlruns", "sqlite:///{}/mlflow.db"])
@pytest.mark.parametrize("full_at", ["begin", "evaluated"])
def test_a_full_disk_is_one_warning(
    store: str, full_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    log, limit = MLflowLog(store.format(tmp_path), "kws"), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for step in ("begin", "evaluated"):
            if step == full_at:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
            if step == "begin":
                log.begin(RunFolder(tmp_path / "run"), {"seed": 3})
            else:
                log.evaluated({"step": 1, "val_loss": 1.0}, np.eye(2))
        log.evaluated({"step": 2, "val_loss": 1.0}, np.eye(2))
        log.end({"accuracy": 0.75})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    (line,) = [line for line in caplog.messages if "nothing more is logged there" in line]
    assert "\n" not in line
