"""The composed configuration: its fingerprint, its folder, and the objects it describes.

Imports no TensorFlow, so that `--help` and composing answer at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kws_data.errors import KwsError
from kws_data.parallel import available_cpus

# Keys that change where or how fast a run goes, not what comes out of it
_NOT_IDENTITY = (("name",), ("force",), ("trainer", "input_threads"), ("trainer", "tensorboard"))


def register_resolvers() -> None:
    """Make `${cpu_count:}`, `${run_dir:}` and `${run_subdir:}` known to OmegaConf."""
    OmegaConf.register_new_resolver("cpu_count", available_cpus, replace=True)
    OmegaConf.register_new_resolver("run_dir", _run_dir, replace=True)
    OmegaConf.register_new_resolver("run_subdir", lambda *, _root_: Path(_run_dir(_root_=_root_)).name, replace=True)


def _run_dir(*, _root_: DictConfig) -> str:
    """`runs/<name>/<fingerprint>`; the newest attempt, or with `force` the next one (`-2`, `-3`, …)."""
    config = resolved(_root_)
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
        # By the house rule a constructor's ValueError opens with the parameter's name.
        separator = "." if isinstance(cause, ValueError) else ": "
        raise KwsError(f"{key}{separator}{' '.join(str(cause).split())}") from error
