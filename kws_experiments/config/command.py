"""The command behind a run, as its record keeps it: to give it again, and to say how the run differs from defaults.

Imports no TensorFlow, so that composing answers at once.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from kws_data.errors import KwsError
from kws_experiments.config.compose import CONF, compose_unresolved, flattened, without_hydra

_PLAIN = re.compile(r"(?!\+*hydra)[^$]*", re.DOTALL)
# where conf/ is not beside train.py, the project was installed from a wheel
TRAIN = ("python", "train.py") if (CONF.parent / "train.py").is_file() else ("kws", "train")
NOT_THERE, TO_BE_GIVEN = "not there", "to be given"


@dataclass(frozen=True)
class Command:
    """What Hydra composed from.

    Attributes:
        overrides: as on train.py's command line.
        choices: per config group the config chosen, the defaults too.
        config_dirs: the user's own folders of configs.
    """

    overrides: list[str] = field(default_factory=list)
    choices: dict[str, str | None] = field(default_factory=dict)
    config_dirs: list[str] = field(default_factory=list)

    @property
    def plain(self) -> bool:
        """Whether composing it again reads `conf/` alone: no other folders, no interpolations, nothing of Hydra's."""
        return not self.config_dirs and all(map(_PLAIN.fullmatch, self.overrides))

    @property
    def line(self) -> str:
        """For a shell; in a checkout, in the folder that train.py is in."""
        folders = [f"--config-dir={folder}" for folder in self.config_dirs[:1]]
        return shlex.join([*TRAIN, *folders, *self.overrides])


def command_of_hydra() -> dict[str, Any] | None:
    """The command of this process for a run's record, as `read_command` takes it; None where Hydra composed nothing."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    return asdict(Command(list(hydra.overrides.task), _own_choices(dict(hydra.runtime.choices)), folders))


def overridden() -> set[str]:
    """The keys and groups given on this process's command line; none where Hydra composed nothing."""
    return {_key(override) for override in (command_of_hydra() or {}).get("overrides", [])}


def _own_choices(choices: dict[str, Any]) -> dict[str, str | None]:
    return {key: choice for key, choice in choices.items() if not key.startswith("hydra/")}


@dataclass(frozen=True)
class Difference:
    """One line of what was changed: a group or key, its default, and what the run has; as YAML would write them."""

    key: str
    default: str
    value: str


def differences(config: dict[str, Any], command: Command | None) -> list[Difference]:
    """How a run's configuration differs from its experiment's defaults (from all defaults where it has none).

    Groups first; then keys, compared with the defaults of the groups chosen, so that a choice is one line and not
    all of its keys. What a default takes from the machine (the number of processors) counts only where it was asked
    for.

    Args:
        config: the run's, resolved.
        command: of the run's record; None compares key by key with the defaults of train.yaml.

    Raises:
        KwsError: the defaults are not there any more.
    """
    command = command or Command()
    folder = Path(command.config_dirs[0]) if command.config_dirs else None
    groups = [override for override in command.overrides if _key(override) in command.choices]
    experiment = [override for override in groups if _key(override) == "experiment"]
    plain = compose_unresolved(experiment, folder, with_hydra=True)
    chosen = compose_unresolved(groups, folder, with_hydra=True)
    before, after = (_own_choices(dict(cfg.hydra.runtime.choices)) for cfg in (plain, chosen))
    found = [
        Difference(key, _yaml(before[key]) if key in before else NOT_THERE, _yaml(after[key]))
        for key in after
        if before.get(key) != after[key]
    ]
    raw, defaults = (flattened(_container(without_hydra(chosen), resolve=resolve)) for resolve in (False, True))
    values = flattened(config)
    asked = {_key(override) for override in command.overrides}
    for key in sorted(defaults.keys() | values.keys(), key=[*defaults, *values].index):
        default, value = (_yaml(part[key]) if key in part else NOT_THERE for part in (defaults, values))
        from_machine = re.match(r"\$\{\w+:", str(raw.get(key))) and key not in asked
        if default != value and not from_machine:
            found.append(Difference(key, default, value))
    return found


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _container(cfg: DictConfig, *, resolve: bool) -> dict[str, Any]:
    container = OmegaConf.to_container(cfg, resolve=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _yaml(value: Any) -> str:
    if value == "???":  # OmegaConf's mark of a key without a default
        return TO_BE_GIVEN
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def read_command(record: dict[str, Any]) -> Command | None:
    """The command of a run's record; None for a run that was started from Python.

    Raises:
        KwsError: it is damaged.
    """
    if record.get("command") is None:
        return None
    try:
        return Command(**record["command"])
    except TypeError as error:
        raise KwsError("run.json: 'command' must hold overrides, choices and config_dirs") from error


def quoted(*words: str | Path) -> str:
    """Words of a command line, for a shell."""
    return shlex.join(map(str, words))
