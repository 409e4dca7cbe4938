"""One training as `train.py` does it, in this process; and the child process in which a sweep trains each of its jobs.

    python -m kws_experiments.sweeps.child SWEEP < CHOICE

SWEEP is the folder of the sweep's record. CHOICE is a line of JSON: the job's resolved configuration, Hydra's own part
of it included, from the process that composed it, so that a job is what the sweep composed, though files below `conf/`
change while it runs. The sweep keeps the pipe open: when it closes, because the sweep is stopped or has died, the job
saves its state and ends.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from kws_experiments.config.compose import register_resolvers
from kws_experiments.config.exit import one_line_errors
from kws_experiments.console.output import set_up
from kws_experiments.runs.folder import RunFolder

if TYPE_CHECKING:
    from kws_experiments.training.loggers import RunLogger

log = logging.getLogger("train")


def train(
    config: dict[str, Any], folder: Path, loggers: Sequence[RunLogger] = (), *, show: bool = True
) -> float | None:
    """Train and evaluate, and return the accuracy on validation; None if one of `loggers` prunes it.

    An error is one line in the log, and the exit status 1; after Ctrl-C it is 130.

    Args:
        config: resolved.
        folder: the run's.
        loggers: some beside the configuration's.
        show: print the result, as a single run does; of a sweep's job, the sweep has a line.
    """
    with one_line_errors(log=log, stopped=f"stopped; the same command goes on from here: {folder}"):
        from kws_experiments import train as training
        from kws_experiments.reports import summary  # TensorFlow, only now
        from kws_experiments.training.loggers import Pruned

        try:
            result = training.train(config, folder, loggers=loggers)
        except Pruned as pruned:
            log.info("%s", pruned)
            return None
    if show:
        summary.show_training(result, RunFolder(folder))
    accuracy = result.get("validation_accuracy", result["accuracy"])
    return math.nan if accuracy is None else float(accuracy)


def send(config: dict[str, Any], pipe: IO[bytes]) -> None:
    """Send a child process what to train: a resolved configuration, and Hydra's own part in this process."""
    hydra = OmegaConf.to_container(HydraConfig.get(), enum_to_str=True)
    pipe.write(json.dumps(config | {"hydra": hydra}).encode() + b"\n")
    pipe.flush()


def main() -> None:
    """Train what comes over standard input."""
    set_up()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker that ignores or blocks Ctrl-C hands that down
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    with one_line_errors():
        _train_job()


def _train_job() -> None:
    register_resolvers()
    config = json.loads(sys.stdin.readline())
    HydraConfig.instance().cfg = OmegaConf.create(config)
    hydra: Any = HydraConfig.get()
    config.pop("hydra")
    sweep = Path(sys.argv[1])
    sys.argv = ["train.py", *hydra.overrides.task]  # the command of a single run that trains the same
    configure_log(hydra.job_logging, hydra.verbose)
    threading.Thread(target=_stop_with_the_sweep, daemon=True).start()
    train(config, Path(hydra.runtime.output_dir), _loggers(hydra.sweeper, sweep), show=False)


def _loggers(sweeper: DictConfig, sweep: Path) -> list[RunLogger]:
    """What reports to a search that prunes."""
    if OmegaConf.select(sweeper, "pruner") is None:
        return []
    from kws_experiments.sweeps.optuna_study import PruningLogger, Search

    with one_line_errors(log=log):
        return [PruningLogger(Search.of(sweeper, sweep))]


def _stop_with_the_sweep() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the pipe is closed; a buffered read would hold a lock at exit
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
