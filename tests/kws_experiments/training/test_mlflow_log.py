"""A run's record in MLflow: continued, and no reason to stop a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kws_experiments.runs.folder import RunFolder
from kws_experiments.training.mlflow_log import MLflowLog

mlflow = pytest.importorskip("mlflow")


def test_an_mlflow_record_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    config = {"seed": 3, "model": {"_target_": "a.b", "filters": 8}, "words": [str(number) for number in range(5000)]}
    for steps in ([10, 20], [20, 30]):  # the second start repeats an evaluation
        log = MLflowLog(str(tmp_path / "mlruns"), "kws")
        log.begin(RunFolder(tmp_path / "abc"), config)
        for step in steps:
            log.evaluated({"step": step, "val_loss": 1 / step, "val_accuracy": 0.5}, np.eye(2))
    log.end({"accuracy": 0.75, "clips": 4, "labels": ["yes"]})

    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("kws").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.filters"] == "8"
    assert run.data.metrics["final_accuracy"] == 0.75
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert [metric.step for metric in history] == [10, 20, 30]


def test_training_goes_on_without_mlflow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    log = MLflowLog(str(tmp_path / "file" / "mlruns"), "kws")
    log.begin(RunFolder(tmp_path / "abc"), {"seed": 0})
    log.evaluated({"step": 1, "val_loss": 1.0}, np.eye(2))
    log.end({"accuracy": 1.0})

    assert [record.getMessage().startswith("MLflow at file:") for record in caplog.records] == [True]
