"""Train a keyword spotter: `python train.py [key=value …]`; with `-m`, sweep over comma-separated values."""

import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from kws_data.errors import KwsError
from kws_experiments.config import register_resolvers, resolved

log = logging.getLogger("train")
register_resolvers()
# Hydra then raises what it would print over many lines, and we say it in one
os.environ.setdefault("HYDRA_FULL_ERROR", "1")


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Compose, run, and print what came of it; the test accuracy is what a sweeper optimises."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        config = resolved(cfg)
        from kws_experiments import run, summary  # TensorFlow, only now

        result = run.run(config, folder)
    except KwsError as error:
        log.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        log.warning("stopped; the same command goes on from here: %s", folder)
        sys.exit(130)
    summary.show(result, folder)
    return float(result["accuracy"])


if __name__ == "__main__":
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'system'}: {error.strerror or error}")
