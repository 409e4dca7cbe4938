"""Train a keyword spotter: `python train.py [key=value …]`; with `-m`, sweep over comma-separated values."""

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from kws_data.errors import KwsError
from kws_experiments.config.compose import register_resolvers, resolved, told_by_hydra
from kws_experiments.sweeps import callback as sweep_callback
from kws_experiments.sweeps import job

register_resolvers()
# Hydra then raises what it would print over many lines, and we say it in one
os.environ.setdefault("HYDRA_FULL_ERROR", "1")


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Train what was composed, here or as a sweep's job; the accuracy on validation is what a sweeper optimises."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return sweep_callback.run_job(cfg)
    try:
        config = resolved(cfg)
    except KwsError as error:
        sys.exit(f"error: {error}")
    return job.train(config, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(sweep_callback.stopped())
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {told_by_hydra(error)}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'system'}: {error.strerror or error}")
    except Exception as error:
        sys.exit(sweep_callback.broken(error))
