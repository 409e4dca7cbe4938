"""One training as `train.py` does it, in this process; and the process that a sweep starts for each of its jobs.

    python -m kws_experiments.sweeps.job < CHOICE

CHOICE is a line of JSON: the job's resolved configuration, Hydra's own part of it included, from the process that
composed it, so that a job is what the sweep composed, though files below `conf/` change while it runs. The sweep keeps
the pipe open: when it closes, because the sweep is stopped or is no more, the job saves its state and ends.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import OmegaConf

from kws_data.errors import KwsError
from kws_experiments.config.compose import register_resolvers
from kws_experiments.runs.folder import RunFolder

log = logging.getLogger("train")

STOPPED = 130  # the exit status after Ctrl-C, as shells have it


def train(config: dict[str, Any], folder: Path) -> float:
    """Train, evaluate, and print what came of it: the accuracy on validation.

    What went wrong is one line, and the exit status 1; after Ctrl-C it is 130.
    """
    try:
        from kws_experiments import train as training  # TensorFlow, only now
        from kws_experiments.reports import summary

        result = training.train(config, folder)
    except KwsError as error:
        log.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        log.warning("stopped; the same command goes on from here: %s", folder)
        sys.exit(STOPPED)
    summary.show_training(result, RunFolder(folder))
    return float(result.get("validation_accuracy", result["accuracy"]))


def send(config: dict[str, Any], pipe: IO[bytes]) -> None:
    """Tell a job's process what to train: a resolved configuration, to be trained as this process's Hydra has it."""
    hydra = OmegaConf.to_container(HydraConfig.get(), enum_to_str=True)
    pipe.write(json.dumps(config | {"hydra": hydra}).encode() + b"\n")
    pipe.flush()


def main() -> None:
    """Train what comes over standard input."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker that ignores Ctrl-C hands that down
    register_resolvers()
    config = json.loads(sys.stdin.readline())
    HydraConfig.instance().cfg = OmegaConf.create(config)
    hydra: Any = HydraConfig.get()
    del config["hydra"]
    sys.argv = ["train.py", *hydra.overrides.task]  # the command of a single run that trains the same
    configure_log(hydra.job_logging, hydra.verbose)
    threading.Thread(target=_stop_with_the_sweep, daemon=True).start()
    train(config, Path(hydra.runtime.output_dir))


def _stop_with_the_sweep() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the pipe is closed; a buffered read would hold a lock at exit
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
