"""How configurations of earlier versions differ from today's: one table, read in both directions.

A run's folder keeps the configuration that it was trained with. `upgraded` turns it into one that today's code takes;
`oldest_form` turns any configuration into the oldest one that means the same, from which the fingerprint is taken, so
that the same command still finds its run. A change of `conf/` that renames a `_target_`, removes a key or adds one
gets a line in `CHANGES`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RenamedTarget:
    """A class or function that moved.

    Attributes:
        old: its full name, or a module's with a dot at the end for everything in it.
        new: likewise.
    """

    old: str
    new: str


@dataclass(frozen=True)
class RemovedKey:
    """A key that is gone.

    Attributes:
        key: dotted.
        value: the one that means what happens without it.
    """

    key: str
    value: Any


@dataclass(frozen=True)
class AddedKey:
    """A key that earlier versions did not have.

    Attributes:
        key: dotted.
        value: the one that means what happened before, at least for most data.
        target: the `_target_` beside the key that has it; None: any.
        earlier: the one that means what happened before for all data, with which earlier runs are read; None: `value`.
    """

    key: str
    value: Any
    target: str | None = None
    earlier: Any = None


_AUDIO = {
    "min_rate": 1000,
    "max_rate": 768000,
    "max_channels": 64,
    "max_seconds": 14400,
    "levels": "scale",
    "muted": "set_aside",
}
CHANGES: tuple[RenamedTarget | RemovedKey | AddedKey, ...] = (
    # after 0.1.0, the packages were divided into folders
    RenamedTarget("kws_data.datasets.", "kws_data.sources.datasets."),
    RenamedTarget("kws_data.augment.audiomentations_stage.", "kws_data.augment.audiomentations.stage."),
    RenamedTarget("kws_experiments.optimizers.", "kws_experiments.experiment.optimizers."),
    RenamedTarget("kws_experiments.schedules.", "kws_experiments.experiment.schedules."),
    RenamedTarget("kws_experiments.settings.", "kws_experiments.experiment.settings."),
    RenamedTarget("kws_experiments.mlflow_log.", "kws_experiments.training.mlflow_log."),
    RemovedKey("trainer.strategy", "none"),
    AddedKey("clip_from", "auto", earlier="start"),
    AddedKey("audio", _AUDIO, earlier=_AUDIO | {"levels": "clip", "muted": "keep"}),
    AddedKey("dataset.layout", "auto", "kws_data.sources.datasets.Folder", earlier="words"),
    AddedKey("split.unmatched_percentage", 100, "kws_data.splits.ListSplit"),
    AddedKey("pretrain", None),
    AddedKey("trainer.word_loss", 0.0),
    AddedKey("trainer.distillation", 0.0),
    AddedKey("tune", None),
    AddedKey("tune.repeat_percentage", 10, earlier=0),
    AddedKey("tune.speech", None),
    AddedKey("tune.speech_minutes", 15),
    AddedKey("task.word_dirs", [], "kws_data.task.Task"),
    AddedKey("task.synthetic_unknown", None, "kws_data.task.Task"),
    AddedKey("task.training_unknown_repeats", 1, "kws_data.task.Task"),
)


def upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """A resolved configuration of any version, as today's code takes it."""
    config = copy.deepcopy(config)
    for change in CHANGES:
        if isinstance(change, RenamedTarget):
            _rename_targets(config, change.old, change.new)
            continue
        parent, last = _parent(config, change.key)
        if parent is None or (isinstance(change, AddedKey) and change.target not in (None, parent.get("_target_"))):
            continue
        if isinstance(change, RemovedKey):
            parent.pop(last, None)
        else:
            parent.setdefault(last, copy.deepcopy(change.value if change.earlier is None else change.earlier))
    return config


def without_effect(config: dict[str, Any]) -> list[str]:
    """The removed keys of a configuration that asked for something that is no longer done, as `key=value`."""
    found = []
    for change in CHANGES:
        if isinstance(change, RemovedKey):
            parent, last = _parent(config, change.key)
            if parent is not None and parent.get(last, change.value) != change.value:
                found.append(f"{change.key}={parent[last]}")
    return found


def oldest_form(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the oldest version that trains the same thing."""
    config = copy.deepcopy(config)
    for change in reversed(CHANGES):
        if isinstance(change, RenamedTarget):
            _rename_targets(config, change.new, change.old)
            continue
        parent, last = _parent(config, change.key)
        if parent is None:
            continue
        if isinstance(change, RemovedKey):
            parent.setdefault(last, change.value)
        elif last in parent and parent[last] == change.value:
            del parent[last]
    return config


def _rename_targets(node: Any, old: str, new: str) -> None:
    """Change `_target_`s in place, at any depth."""
    whole_module = old.endswith(".")
    if isinstance(node, list):
        for item in node:
            _rename_targets(item, old, new)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key != "_target_" or not isinstance(value, str):
                _rename_targets(value, old, new)
            elif value == old or (whole_module and value.startswith(old)):
                node[key] = new + value.removeprefix(old)


def _parent(config: dict[str, Any], key: str) -> tuple[dict[str, Any] | None, str]:
    """The mapping that holds a dotted key, or None where the configuration has none, and the key's last part."""
    *parents, last = key.split(".")
    node: Any = config
    for name in parents:
        node = node.get(name) if isinstance(node, dict) else None
    return (node if isinstance(node, dict) else None), last
