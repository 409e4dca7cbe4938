"""The composed configuration: its fingerprint, its folder, and the objects it describes.

Imports no TensorFlow, so that `--help` and composing answer at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from kws_data.errors import KwsError
from kws_data.storage.parallel import available_cpus
from kws_data.text import printable
from kws_experiments.config.exit import as_line
from kws_experiments.config.overrides import CONF, as_typed, hydra_message, quoted_text
from kws_experiments.config.upgrade import oldest_form, upgraded, without_effect

log = logging.getLogger(__name__)

# Keys that change where or how fast a run goes, not what comes out of it
_NOT_IDENTITY = (
    ("name",),
    ("force",),
    ("report",),
    ("tune",),
    ("pipeline", "threads"),
    ("pipeline", "cache_memory_mb"),
    ("loggers",),
    ("trainer", "print_confusion"),
    ("trainer", "tensorboard"),
    ("trainer", "checkpoint_every"),
    ("split", "unmatched_percentage"),
    ("dataset", "licence"),
    ("dataset", "citation"),
)

NOT_VALID = "not_valid"  # the folder of a sweep's jobs whose configuration can't be resolved, and so has no fingerprint


def register_resolvers() -> None:
    """Make `${cpu_count:}`, `${run_dir:}`, `${run_subdir:}` and `${sweep_id:}` known to OmegaConf."""
    OmegaConf.register_new_resolver("cpu_count", _cpus_of_a_job, replace=True)
    OmegaConf.register_new_resolver("run_dir", _run_dir, replace=True)
    OmegaConf.register_new_resolver("run_subdir", _run_subdir, replace=True)
    OmegaConf.register_new_resolver("sweep_id", _sweep_id, replace=True)


def compose(overrides: list[str], config_dir: Path | None = None) -> dict[str, Any]:
    """The resolved configuration that `train.py` would compose from these overrides.

    Args:
        overrides: as on train.py's command line.
        config_dir: a folder of the user's own configs, as train.py's `--config-dir`.

    Raises:
        KwsError: an override names something that isn't there; the message is Hydra's first line.
    """
    return resolved(compose_unresolved(overrides, config_dir))


def compose_unresolved(
    overrides: list[str], config_dir: Path | None = None, *, start: str | None = "train", with_hydra: bool = False
) -> DictConfig:
    """What `compose` resolves; with Hydra's own part where that is asked for.

    Args:
        overrides: as on train.py's command line.
        config_dir: a folder of the user's own configs.
        start: the config to start from; None: nothing but what the overrides add.
        with_hydra: keep the key `hydra`.

    Raises:
        KwsError: see `compose`.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    register_resolvers()
    overrides = as_typed(overrides)
    if config_dir is not None:
        folder = quoted_text(f"file://{config_dir.resolve()}")
        overrides = [*overrides, f"hydra.searchpath=[{folder}]"]
    try:
        with _no_other_hydra(), initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra_compose(start, overrides, return_hydra_config=with_hydra)
    except HydraException as error:
        raise KwsError(hydra_message(error)) from error


@contextmanager
def _no_other_hydra() -> Iterator[None]:
    """Put Hydra's own state aside: in a training, which Hydra started, it would refuse to compose anything else."""
    from hydra.core.global_hydra import GlobalHydra

    state = GlobalHydra.instance()
    started, state.hydra = state.hydra, None
    try:
        yield
    finally:
        state.hydra = started


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain data, interpolations filled in, without Hydra's own part.

    Raises:
        KwsError: a mandatory key is missing, or an interpolation fails.
    """
    try:
        container = OmegaConf.to_container(without_hydra(cfg), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        advice = f"; give it as {key}=…" if isinstance(error, MissingMandatoryValue) else ""
        raise KwsError(f"{key}: {str(error).splitlines()[0]}{advice}") from error
    assert isinstance(container, dict)
    config = {str(key): value for key, value in container.items()}
    for setting in without_effect(config):
        log.warning("%s has no effect any more: the key was removed", setting)
    return upgraded(config)


def without_hydra(cfg: DictConfig) -> DictConfig:
    """The project's own part of what Hydra composed, without what a model's source reports: it changes no training."""
    own = OmegaConf.create({str(key): node for key, node in cfg._content.items() if key != "hydra"})  # type: ignore[union-attr]
    if OmegaConf.is_dict(own.get("model")):
        own.model.pop("published", None)
    return own


def fingerprint(config: dict[str, Any]) -> str:
    """12 hex digits that name a resolved configuration; the same for configurations that train the same thing."""
    identity = oldest_form(json.loads(json.dumps(config)))
    for *parents, last in _NOT_IDENTITY:
        node = identity
        for parent in parents:
            node = node.get(parent, {})
        node.pop(last, None)
    stages = identity["augment"].get("waveform")
    for stage in stages.values() if isinstance(stages, dict) else ():
        if isinstance(stage, dict):
            stage.pop("num_workers", None)
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def flattened(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The configuration with dotted keys, as overrides name them; lists are values, and so are empty dictionaries."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def overrides_fingerprint(overrides: list[str]) -> str:
    """12 hex digits that name a sweep: its overrides in any order, without those that don't change what is trained."""
    kept = sorted(override for override in overrides if override.split("=")[0] not in ("name", "force"))
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()[:12]


def _sweep_id(*, _root_: DictConfig) -> str:
    return overrides_fingerprint(list(_root_.hydra.overrides.task))


def _cpus_of_a_job() -> int:
    """The processors for one job: all there are, or its share where a sweep's launcher runs several jobs at once.

    A launcher that asks a cluster for processors says how many; the machine that composes has nothing to do with it.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    cpus = available_cpus()
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return cpus
    launcher = HydraConfig.get().launcher
    if OmegaConf.select(launcher, "cpus_per_task"):
        return int(launcher.cpus_per_task)
    jobs = int(OmegaConf.select(launcher, "n_jobs") or 1)
    if jobs < 0:  # joblib's way of counting: -1 means all processors, -2 all but one
        jobs = max(1, cpus + 1 + jobs)
    return max(1, cpus // jobs)


def _run_subdir(*, _root_: DictConfig) -> str:
    """The name of a sweep job's folder; a job whose configuration can't be resolved fails only when it is started."""
    try:
        resolved(_root_)
    except KwsError:
        return NOT_VALID
    return Path(_run_dir(_root_=_root_)).name


def _run_dir(*, _root_: DictConfig) -> str:
    """`runs/<name>/<fingerprint>`; the newest attempt, or with `force` the next one (`-2`, `-3`, …)."""
    try:
        config = resolved(_root_)
    except KwsError as error:  # OmegaConf would wrap it in its own traceback
        raise SystemExit(printable(f"error: {error}")) from error
    return run_folder(config)


def run_folder(config: dict[str, Any]) -> str:
    """The folder of a resolved configuration's run: `runs/<name>/<fingerprint>`, or of the newest attempt at it."""
    base = Path("runs") / str(config["name"]) / fingerprint(config)
    attempts = [base, *sorted(base.parent.glob(f"{base.name}-*"), key=_attempt)]
    newest = attempts[-1]
    if config["force"] and newest.exists():
        return f"{base}-{max(1, _attempt(newest)) + 1}"
    return str(newest)


def _attempt(folder: Path) -> int:
    match = re.search(r"-(\d+)$", folder.name)
    return int(match.group(1)) if match else 0


def instantiate(config: dict[str, Any], key: str, **arguments: Any) -> Any:
    """The object that `config[key]` describes by its `_target_`.

    Raises:
        KwsError: the constructor refuses a value (the message names the key), or there is no such class or parameter.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate

    node: Any = config
    for part in key.split("."):
        node = node[part]
    try:
        return hydra_instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, KwsError):
            raise cause from error
        # By the house rule a constructor's ValueError opens with the parameter's name; Keras's own don't.
        message = " ".join((as_line(cause) or str(cause)).split())
        separator = "." if isinstance(cause, ValueError) and message[:1].islower() else ": "
        raise KwsError(f"{key}{separator}{message}") from error
