"""A run in MLflow: its configuration as parameters, its evaluations and its final results as metrics."""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from kws_data.errors import KwsError
from kws_data.storage.atomic import lock_for
from kws_experiments.config.compose import flattened
from kws_experiments.runs.folder import RunFolder

log = logging.getLogger(__name__)

_FOLDER_TAG = "kws.folder"  # by which a run that goes on finds its record
_UNFINISHED = "KILLED"  # MLflow's word for a run that was stopped
_FINAL = ("accuracy", "validation_accuracy", "clips", "parameters")


class MLflowLog:
    """Logs a run to MLflow. The first error is logged, and the last call of MLflow; training goes on.

    Args:
        tracking_uri: a folder for MLflow's file store, or what else MLflow takes: sqlite:///…, http://…
        experiment: the name under which MLflow groups runs.
    """

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        if importlib.util.find_spec("mlflow") is None:
            raise KwsError("logger=mlflow needs the extra 'mlflow': pip install -e '.[mlflow]'")
        if not isinstance(tracking_uri, str) or not tracking_uri:
            raise ValueError(f"tracking_uri must be a folder or an address, got {tracking_uri!r}")
        self._store = (
            None if "://" in tracking_uri else Path(tracking_uri.removeprefix("file:")).expanduser().absolute()
        )
        self._uri = tracking_uri if self._store is None else self._store.as_uri()
        self._experiment = experiment
        self._failed = False
        self._last_step = -1

    def begin(self, folder: RunFolder, config: dict[str, Any]) -> None:
        """Find the run's record, or make one."""
        if self._store is not None:  # MLflow refuses its own file store otherwise: it gets no new features
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._failed = False
        with self._first_error_logged():
            import mlflow

            logging.getLogger("mlflow.tracking.fluent").setLevel(logging.WARNING)  # says what it creates
            active = mlflow.active_run()
            if active is not None and _FOLDER_TAG in active.data.tags:  # a training in this process that failed
                mlflow.end_run(_UNFINISHED)
            atexit.unregister(mlflow.end_run)
            atexit.register(mlflow.end_run, _UNFINISHED)  # before MLflow's own, which says FINISHED
            mlflow.set_tracking_uri(self._uri)
            # one makes the experiment, though the jobs of a sweep may begin together
            with nullcontext() if self._store is None else lock_for(self._store):
                mlflow.set_experiment(self._experiment)
            path = str(folder.path.absolute())
            quote = '"' if "'" in path else "'"
            of_folder = f"tags.`{_FOLDER_TAG}` = {quote}{path}{quote}"
            found = mlflow.search_runs(filter_string=of_folder, output_format="list")
            if found:
                run_id = mlflow.start_run(found[0].info.run_id, nested=True).info.run_id
                steps = [metric.step for metric in mlflow.MlflowClient().get_metric_history(run_id, "val_loss")]
                self._last_step = max(steps, default=-1)
            else:
                mlflow.start_run(run_name=folder.path.name, nested=True, tags={_FOLDER_TAG: path})
                mlflow.log_params(flattened(config))

    def evaluated(self, row: dict[str, Any], confusion: np.ndarray) -> None:
        """Add an evaluation, unless the record holds it: a run that goes on may repeat a few steps."""
        del confusion
        with self._first_error_logged():
            if not self._failed and row["step"] > self._last_step:
                _log_metrics({key: value for key, value in row.items() if key != "step"}, step=int(row["step"]))

    def end(self, result: dict[str, Any]) -> None:
        """Add the final results, and close the record."""
        import mlflow

        with self._first_error_logged():
            if not self._failed:
                _log_metrics({f"final_{name}": result[name] for name in _FINAL if result.get(name) is not None})
                mlflow.end_run()

    @contextmanager
    def _first_error_logged(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of whatever kind: a database's driver has its own
            log.warning("MLflow at %s: %s; nothing more is logged there", self._uri, str(error).splitlines()[0])
            self._failed = True


def _log_metrics(values: dict[str, Any], step: int | None = None) -> None:
    import mlflow

    mlflow.log_metrics({name: float(value) for name, value in values.items()}, step=step)
