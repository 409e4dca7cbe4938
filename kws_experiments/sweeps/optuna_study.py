"""An Optuna search that goes on where it was stopped; needs the extra `optuna`.

Hydra's sweeper adds `n_trials` trials to a study whenever it is started, and forgets those that were running when it
was stopped. Here `n_trials` is how many there are to be in all, and trials that were stopped or failed are tried once
more: a stopped one resumes its run.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

from omegaconf import DictConfig

log = logging.getLogger("sweep")


def continue_study(sweeper: DictConfig) -> dict[str, Any]:
    """Prepare the study in `sweeper.storage`, new or begun, for a sweeper that is about to start.

    Args:
        sweeper: `hydra.sweeper`.

    Returns:
        what to change in it: `n_trials`, those that are left, and `seed`, of the sampler; another one than at the first
        start, since it would draw the very same values again.
    """
    import optuna
    from optuna.trial import TrialState

    seed = sweeper.sampler.get("seed")
    if sweeper.storage is None:  # lost when the process ends
        return {"n_trials": sweeper.n_trials, "seed": seed}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    study = optuna.create_study(
        storage=sweeper.storage,
        study_name=sweeper.study_name,
        direction=getattr(sweeper.direction, "name", sweeper.direction),
        load_if_exists=True,
    )
    before = study.get_trials(deepcopy=False)
    for trial in before:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
    settled = [trial.params for trial in before if trial.state == TrialState.COMPLETE]
    settled += [trial.system_attrs["fixed_params"] for trial in before if trial.state == TrialState.WAITING]
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.FAIL and trial.params and trial.params not in settled:
            with warnings.catch_warnings(action="ignore"):  # experimental since years
                study.enqueue_trial(trial.params)
            settled.append(trial.params)
    complete = sum(trial.state == TrialState.COMPLETE for trial in before)
    if before:
        log.info("the search goes on: %d of %d trials are done", complete, sweeper.n_trials)
    return {
        "n_trials": max(0, sweeper.n_trials - complete),
        "seed": None if seed is None else seed + len(before),
    }
