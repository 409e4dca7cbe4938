"""A search by Optuna: its settings, its study, which goes on where it was stopped, and a trial that may be pruned.

Needs the extra `optuna`, which is imported only where it is used.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from kws_data.checks import check_whole, require
from kws_data.errors import KwsError
from kws_experiments.config.compose import instantiate
from kws_experiments.runs.folder import RunFolder
from kws_experiments.training.loggers import Pruned

if TYPE_CHECKING:
    import optuna

log = logging.getLogger("sweep")

ACCURACY = "validation_accuracy"
_COSTS = ("multiply_adds", "parameters", "int8_bytes")
OBJECTIVES = (ACCURACY, *_COSTS)
_KEY = "hydra.sweeper"
_AGAIN = "again"  # attribute of a trial: which earlier one, stopped or failed, it tries once more


@dataclass(frozen=True)
class Search:
    """The settings of `conf/hydra/sweeper/optuna.yaml`, checked; the YAML describes each key.

    Args:
        record: the folder of the sweep's record.

    Raises:
        KwsError: naming the key.
    """

    record: Path
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any] | None
    objectives: Sequence[str]
    storage: str | None
    study_name: str | None
    n_trials: int
    n_jobs: int
    params: Mapping[str, Any]
    trial: int | None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("optuna") is None:
            raise KwsError("sweep=optuna needs the extra 'optuna': pip install -e '.[optuna]'")
        chosen = self.objectives
        known = isinstance(chosen, list) and all(name in OBJECTIVES for name in chosen)
        if not known or len({*chosen}) != max(1, len(chosen)):
            raise KwsError(f"{_KEY}.objectives must list one or more of {', '.join(OBJECTIVES)}, got {self.objectives}")
        try:
            for name in ("n_trials", "n_jobs"):
                check_whole(f"{_KEY}.{name}", getattr(self, name), 1)
            for name in ("storage", "study_name"):
                value = getattr(self, name)
                require(value is None or isinstance(value, str), f"{_KEY}.{name}", "text, or null", value)
            for name, choice in (("sampler", "tpe"), ("pruner", "median")):
                value = getattr(self, name)
                chosen_by = f"settings, as hydra/sweeper/{name}={choice} gives them"
                fits = isinstance(value, dict) or (name == "pruner" and value is None)
                require(fits, f"{_KEY}.{name}", chosen_by, value)
            if self.sampler.get("seed") is not None:
                check_whole(f"{_KEY}.sampler.seed", self.sampler["seed"], 0)
            require(isinstance(self.params, dict), f"{_KEY}.params", "ranges by key", self.params)
        except ValueError as error:
            raise KwsError(str(error)) from error
        if self.pruner is not None and chosen != [ACCURACY]:
            raise KwsError(
                f"{_KEY}: Optuna prunes by one objective only: leave out hydra/sweeper/pruner,"
                f" or objectives={self.objectives} for [{ACCURACY}]"
            )
        old = self.record / "optuna.db"
        if self.storage is None and old.is_file() and not self._journal.is_file():
            raise KwsError(
                f"'{old}' is a search of an older version, by Optuna 2, which can't be continued: rename or remove"
                f" '{self.record}', and the same command begins a new search"
            )

    @classmethod
    def of(cls, sweeper: DictConfig, record: Path) -> Search:
        """The search that `hydra.sweeper` describes.

        Raises:
            KwsError: naming the key.
        """
        settings: Any = OmegaConf.to_container(sweeper, resolve=True)
        settings = {key: value for key, value in settings.items() if not key.startswith("_")}
        if unknown := settings.keys() - cls.__annotations__.keys():
            raise KwsError(f"{_KEY} has no key '{min(unknown)}'; it has those of conf/hydra/sweeper/optuna.yaml")
        return cls(record, **settings)

    @property
    def _journal(self) -> Path:
        return self.record / "study.journal" if self.storage is None else Path(self.storage).expanduser()

    def open(self, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
        """The study, new or begun.

        Raises:
            KwsError: it can't be read, or has other objectives.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        directions: list[Any] = ["minimize" if name in _COSTS else "maximize" for name in self.objectives]
        try:
            study = optuna.create_study(
                storage=self._storage(),
                study_name=self.study_name or f"{self.record.parents[1].name}/{self.record.name}",
                directions=directions,
                sampler=sampler,
                pruner=self._part("pruner") if self.pruner else None,
                load_if_exists=True,
            )
        except (KwsError, OSError):
            raise
        except Exception as error:  # whatever a database's driver raises; its address may hold a password
            where = "" if self._in_database else f" '{self._journal}'"
            raise KwsError(f"{_KEY}.storage{where} can't be opened: {_line(error)}") from error
        found = study.metric_names
        if found is None:
            with warnings.catch_warnings(action="ignore"):  # experimental since years
                study.set_metric_names(list(self.objectives))
        elif found != self.objectives:
            raise KwsError(
                f"{_KEY}.objectives={self.objectives}: the search in '{self.record}' has {found};"
                " begin a new one with another name=…"
            )
        return study

    @property
    def _in_database(self) -> bool:
        return "://" in (self.storage or "")

    def _storage(self) -> Any:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        if self._in_database:
            return self.storage
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(self._journal)))  # its lock works on NFS too

    def begin(self) -> tuple[optuna.Study, int]:
        """The study for a sweep that starts, and how many trials are left; only for the holder of the sweep's lock.

        Trials that were stopped or failed are tried once more: a stopped one resumes its run.

        Raises:
            KwsError: see `open`.
        """
        from optuna.trial import TrialState

        if not self._in_database:
            _drop_torn_line(self._journal)
        study = self.open()
        before = study.get_trials(deepcopy=False)
        seed = self.sampler.get("seed")
        # another seed than at the first start, since it would draw the very same values again
        study.sampler = self._part("sampler", **({} if seed is None else {"seed": seed + len(before)}))
        for trial in before:
            if trial.state == TrialState.RUNNING:
                study.tell(trial.number, state=TrialState.FAIL)
        tried = {trial.user_attrs.get(_AGAIN) for trial in before}
        for trial in study.get_trials(deepcopy=False):
            if trial.state == TrialState.FAIL and trial.params and trial.number not in tried:
                study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number})
        settled = sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in before)
        if before:
            log.info("the search goes on: %d of %d trials are done or pruned", settled, self.n_trials)
        return study, max(0, self.n_trials - settled)

    def _part(self, name: str, **changes: Any) -> Any:
        return instantiate({"hydra": {"sweeper": {name: getattr(self, name)}}}, f"{_KEY}.{name}", **changes)

    def results(self, folder: RunFolder) -> list[float]:
        """The objectives of a finished run.

        Raises:
            KwsError: it does not have one of them.
        """
        known = folder.read_cost() | folder.read_metrics()
        if missing := [name for name in self.objectives if known.get(name) is None]:
            raise KwsError(f"'{folder.path}' has no {missing[0]}, which the search optimises")
        return [float(known[name]) for name in self.objectives]


class PruningLogger:
    """Reports a training's evaluations to the search that it is a trial of, which may end it: a RunLogger.

    It runs in the job's own process, wherever that is, and asks after each evaluation, so that the answer does not
    depend on how fast anything goes. A search that can't be asked any more ends no trial.
    """

    def __init__(self, search: Search) -> None:
        import optuna

        study = search.open(optuna.samplers.RandomSampler())  # nothing is drawn here
        trial = study.get_trials(deepcopy=False)[search.trial or 0]
        self._trial = optuna.Trial(study, trial._trial_id)
        self._reported = set(trial.intermediate_values)
        self._evaluations: list[int] = []  # the steps after which they were

    def begin(self, folder: RunFolder, config: dict[str, Any]) -> None:
        """Report the evaluations of an earlier start."""
        del config
        if folder.training.history.is_file():
            for row in pd.read_csv(folder.training.history).to_dict("records"):
                self._report({str(key): value for key, value in row.items()})

    def evaluated(self, row: dict[str, Any], confusion: np.ndarray) -> None:
        """Report an evaluation.

        Raises:
            Pruned: the search ends this trial.
        """
        del confusion
        self._report(row)

    def end(self, result: dict[str, Any]) -> None:
        """The sweep's own process tells the search."""

    def _report(self, row: dict[str, Any]) -> None:
        step = int(row["step"])
        if step not in self._evaluations:
            self._evaluations.append(step)
        evaluation = self._evaluations.index(step)  # not the step: trials may differ in the size of their batches
        try:
            if evaluation not in self._reported:
                self._trial.report(row["val_accuracy"], evaluation)
                self._reported.add(evaluation)
            worse = self._trial.should_prune()
        except Exception as error:  # of a full disk, of a database that is away
            log.warning("the search can't be asked whether to go on: %s", _line(error))
            return
        if worse:
            raise Pruned(f"pruned by its search after step {step}: accuracy on validation {row['val_accuracy']:.1%}")


def _drop_torn_line(journal: Path) -> None:
    """Cut off what a killed process wrote of a line, which would spoil the next one."""
    if not journal.is_file() or (text := journal.read_bytes()).endswith(b"\n") or not text:
        return
    log.warning("'%s' ends in a line cut short, which is dropped", journal)
    with journal.open("rb+") as file:
        file.truncate(text.rfind(b"\n") + 1)


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
