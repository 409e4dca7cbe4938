"""Hydra's sweeper for `sweep=optuna`: asks Optuna for trials, has the launcher train them, and tells how they ended."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from kws_data.errors import KwsError
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.sweep_record import DONE, PRUNED, SweepFolder, sweep_folder
from kws_experiments.sweeps.search_space import by_key, distribution

if TYPE_CHECKING:
    import optuna

    from kws_experiments.sweeps.optuna_study import Search

log = logging.getLogger("sweep")


class OptunaSweeper(Sweeper):
    """Runs the search that `hydra.sweeper` describes; a job's number is its trial's."""

    def __init__(self, **settings: Any) -> None:
        del settings  # `setup` gets them with the rest

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher."""
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are left.

        Raises:
            KwsError: see `Search`.
        """
        from kws_experiments.sweeps.optuna_study import Search

        sweep = sweep_folder(self._config)
        search = Search.of(self._config.hydra.sweeper, sweep.path)
        overrides = by_key(search.params, arguments)
        space = {key: distribution(one) for key, one in overrides.items() if one.is_sweep_override()}
        fixed = [str(one.input_line) for one in overrides.values() if not one.is_sweep_override()]
        study, left = search.begin()
        while left > 0:
            trials = [_ask(study, space) for _ in range(min(search.n_jobs, left))]
            jobs = [
                [*fixed, *(f"{key}={trial.params[key]}" for key in space), *_of_job(search, trial)] for trial in trials
            ]
            for job in self._launcher.launch(jobs, initial_job_idx=trials[0].number):
                job.return_value  # noqa: B018  raises what `run_job` didn't foresee
            for trial in trials:
                _tell(study, trial, search, sweep)
            left -= len(trials)
        _show(study, search.objectives)


def _of_job(search: Search, trial: optuna.Trial) -> list[str]:
    """How a job finds its trial: resolved, since `${sweep_id:}` of a job's own overrides is another one."""
    settings = {"trial": trial.number, "storage": search.storage, "study_name": search.study_name}
    return [f"hydra.sweeper.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]


def _ask(study: optuna.Study, space: dict[str, Any]) -> optuna.Trial:
    try:
        return study.ask(space)
    except ValueError as error:
        raise KwsError(f"hydra.sweeper.params do not go on with those that the search began with: {error}") from error


def _tell(study: optuna.Study, trial: optuna.Trial, search: Search, sweep: SweepFolder) -> None:
    """Tell the study how a trial ended, which the sweep's record and the run's folder know."""
    from optuna.trial import TrialState

    try:
        job = sweep.read_job(trial.number)
        if job.status == DONE and job.folder is not None:
            study.tell(trial, search.results(RunFolder(job.folder)))
            return
        state = TrialState.PRUNED if job.status == PRUNED else TrialState.FAIL
    except KwsError as error:
        log.warning("trial %d counts as failed: %s", trial.number, error)
        state = TrialState.FAIL
    study.tell(trial, state=state)


def _show(study: optuna.Study, objectives: Sequence[str]) -> None:
    best = study.best_trials if any(trial.values for trial in study.get_trials(deepcopy=False)) else []
    if not best:
        log.error("no trial is done, so that there is no best one; the first job says why")
    elif len(objectives) > 1:
        log.info("%d trials of which none is better in all of %s:", len(best), ", ".join(objectives))
    for trial in best:
        values = ", ".join(f"{name} {value:.9g}" for name, value in zip(objectives, trial.values, strict=True))
        log.info("best: job %d, %s: %s", trial.number, values, " ".join(f"{k}={v}" for k, v in trial.params.items()))


# `Plugins.register` takes the module's name, but Hydra makes plugins of no module outside hydra_plugins
Plugins.instance().class_name_to_class["hydra_plugins.kws.OptunaSweeper"] = OptunaSweeper
