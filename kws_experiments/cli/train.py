"""`python train.py` and `kws train`: train what Hydra composes; with `-m`, sweep over comma-separated values."""

from kws_experiments.config import interrupts

with interrupts.on_interrupt(interrupts.end):
    import os
    import sys
    from pathlib import Path

    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig

    from kws_data.storage.parallel import keep_current_folder_out
    from kws_experiments.config.compose import CONF, register_resolvers, resolved
    from kws_experiments.config.exit import one_line_errors
    from kws_experiments.config.overrides import as_typed, with_home
    from kws_experiments.console.output import set_up
    from kws_experiments.sweeps import callback, child

register_resolvers()
# One store for the whole process: for `--help`, Hydra would copy it 130 times, which takes a second
ConfigStore.__deepcopy__ = lambda *_: ConfigStore.instance()  # type: ignore[attr-defined]
# Hydra then raises what it would print over many lines, and we say it in one
os.environ.setdefault("HYDRA_FULL_ERROR", "1")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _train(cfg: DictConfig) -> float | None:
    """Train what was composed, here or as a sweep's job; the accuracy on validation is what a sweeper optimises."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return callback.train_job(cfg)
    with one_line_errors():  # inside: Hydra would print a line of its own first
        return child.train(resolved(cfg), Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    """Train by the process's own command line."""
    set_up()
    keep_current_folder_out()
    with one_line_errors(), callback.end_of_sweep():
        sys.argv[1:] = as_typed(with_home(sys.argv[1:]))
        _train()
