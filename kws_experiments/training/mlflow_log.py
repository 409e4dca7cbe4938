"""A run in MLflow: its configuration as parameters, its evaluations and its final figures as metrics."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kws_data.errors import KwsError
from kws_data.storage.atomic import lock_for
from kws_experiments.config.compose import flattened
from kws_experiments.runs.folder import RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_FOLDER_TAG = "kws.folder"  # by which a run that goes on finds its record
_PARAMETERS_AT_ONCE = 100  # MLflow's limit
_LONGEST_VALUE = 6000  # characters, MLflow's limit


class MLflowLog:
    """Tells MLflow of a run. What MLflow can't be told is said once in the log; training goes on.

    Args:
        tracking_uri: a folder for MLflow's file store, or what else MLflow takes: sqlite:///…, http://…
        experiment: the name under which MLflow groups runs.
    """

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        if importlib.util.find_spec("mlflow") is None:
            raise KwsError("logger=mlflow needs the extra 'mlflow': pip install -e '.[mlflow]'")
        if not isinstance(tracking_uri, str) or not tracking_uri:
            raise ValueError(f"tracking_uri must be a folder or an address, got {tracking_uri!r}")
        self._store = None if "://" in tracking_uri else Path(tracking_uri.removeprefix("file:")).absolute()
        self._uri = tracking_uri if self._store is None else self._store.as_uri()
        self._experiment = experiment
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._last_step = -1

    def begin(self, folder: RunFolder, config: dict[str, Any]) -> None:
        """Find the run's record, or make one."""
        if self._store is not None:  # MLflow refuses its own file store otherwise: it gets no new features
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        with self._told():
            self._client = MlflowClient(tracking_uri=self._uri)
            self._run_id = self._find_or_make(self._client, folder.path.absolute(), config)

    def evaluated(self, row: dict[str, Any], confusion: np.ndarray) -> None:
        """Add an evaluation, unless the record holds it: a run that goes on may repeat a few steps."""
        del confusion
        with self._told() as client:
            if client is not None and row["step"] > self._last_step:
                values = {key: value for key, value in row.items() if key != "step"}
                self._log_metrics(client, values, step=int(row["step"]))

    def end(self, result: dict[str, Any]) -> None:
        """Add the final figures, and close the record."""
        with self._told() as client:
            if client is not None:
                names = ("accuracy", "validation_accuracy", "clips", "parameters")
                values = {f"final_{name}": result[name] for name in names if name in result}
                self._log_metrics(client, values, step=None)
                client.set_terminated(self._run_id)

    def _find_or_make(self, client: MlflowClient, path: Path, config: dict[str, Any]) -> str:
        experiment = self._experiment_id(client)
        runs = client.search_runs([experiment], f"tags.`{_FOLDER_TAG}` = '{path}'")
        if runs:
            run_id = str(runs[0].info.run_id)
            steps = [metric.step for metric in client.get_metric_history(run_id, "val_loss")]
            self._last_step = max(steps, default=-1)
            client.update_run(run_id, status="RUNNING")
            return run_id
        run = client.create_run(experiment, run_name=path.name, tags={_FOLDER_TAG: str(path)})
        run_id = str(run.info.run_id)
        parameters = [(key, str(value)[:_LONGEST_VALUE]) for key, value in flattened(config).items()]
        from mlflow.entities import Param

        for start in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            some = parameters[start : start + _PARAMETERS_AT_ONCE]
            client.log_batch(run_id, params=[Param(key, value) for key, value in some])
        return run_id

    def _experiment_id(self, client: MlflowClient) -> str:
        """The experiment, made where there is none: once, though the jobs of a sweep may begin together."""
        from mlflow.exceptions import MlflowException

        with nullcontext() if self._store is None else lock_for(self._store):
            found = client.get_experiment_by_name(self._experiment)
            if found is not None:
                return str(found.experiment_id)
            try:
                return str(client.create_experiment(self._experiment))
            except MlflowException:
                found = client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
                return str(found.experiment_id)

    def _log_metrics(self, client: MlflowClient, values: dict[str, Any], step: int | None) -> None:
        for name, value in values.items():
            client.log_metric(self._run_id, name, float(value), step=step)

    @contextmanager
    def _told(self) -> Iterator[MlflowClient | None]:
        """The client while MLflow takes what it is told; the first error is logged, and the last thing it hears."""
        from mlflow.exceptions import MlflowException

        try:
            yield self._client
        except (MlflowException, OSError) as error:
            log.warning("MLflow at %s: %s; nothing more is told there", self._uri, str(error).splitlines()[0])
            self._client = None
