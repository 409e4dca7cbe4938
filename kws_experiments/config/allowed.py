"""What files from elsewhere may name, to be imported and called: this project's own choices, Keras, audiomentations.

Who reads a run's folder or an export asks here before anything in it is built. Each function returns the first thing
that is not allowed, as the end of a sentence ('dataset names pandas.read_pickle'), or None. Imports no TensorFlow.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kws_experiments.config.compose import CONF

# Keras's own that run Python, a SavedModel or another framework, or read files that they name
_REFUSED = "Lambda|TFSMLayer|TorchModuleWrapper|JaxLayer|FlaxLayer|StringLookup|IntegerLookup|TextVectorization"
_KERAS = re.compile(
    rf"keras\.(layers|optimizers|optimizers\.schedules|regularizers|initializers|constraints)\.(?!({_REFUSED})$)[A-Z]\w*"
)
# all that begin with a capital are transforms or compositions of them; Lambda takes any function
_AUDIOMENTATIONS = re.compile(r"audiomentations\.(?!Lambda$)[A-Z]\w*")

_KERAS_MODULES = re.compile(
    r"keras(\.(layers|models|optimizers|optimizers\.schedules|regularizers|initializers|constraints|activations|losses"
    r"|metrics|ops|dtype_policies))?|keras\.src\.(models|layers|ops)(\.\w+)*"
)
_OWN_MODULES = re.compile(r"kws_(models|data\.features)\.\w+")
_DATA_CLASSES = ("__keras_tensor__", "__slice__", "__numpy__", "__tensor__", "__bytes__", "__ellipsis__")
_LARGEST_MODEL_CONFIG = 50_000_000  # bytes


def refused_in_config(config: Any) -> str | None:
    """The first name in a run's configuration that is no public choice of its key.

    What is trained first has no loggers, and lies in `runs/`: it is trained whatever is done about the run itself. A
    resolved configuration holds no interpolation either: one could read this machine's environment, or make a
    `_target_` of text.
    """
    for place, value in _leaves(config, ()):
        if isinstance(value, str) and "${" in value:
            return f"{'.'.join(place)} holds an interpolation, {value[:100]}"
        if place[-1:] == ("_target_",) and not (isinstance(value, str) and _may_stand(place[:-1], value)):
            return f"{'.'.join(place[:-1]) or 'it'} names {str(value)[:200]}"
        if place == ("pretrain", "name") and (Path(str(value)).is_absolute() or ".." in Path(str(value)).parts):
            return f"pretrain.name leads out of runs/ to {str(value)[:200]}"
    return _refused_object(config)


def _may_stand(place: tuple[str, ...], target: str) -> bool:
    if place[:1] == ("pretrain",):
        place = place[1:]
        if place[:1] == ("loggers",):
            return False
    if place[:2] == ("task", "word_dirs"):
        place = ("dataset", *place[3:])
    group, inside = place[:1], 1
    if group == ("augment",):
        group, inside = place[:2], 3
    elif group == ("loggers",):
        group, inside = ("logger",), 2
    if len(place) == inside:
        return target in _choices(group) or (group == ("optimizer",) and _KERAS.fullmatch(target) is not None)
    if group == ("augment", "waveform"):
        return _AUDIOMENTATIONS.fullmatch(target) is not None
    return group in (("model",), ("optimizer",)) and _KERAS.fullmatch(target) is not None


@cache
def _choices(group: tuple[str, ...]) -> frozenset[str]:
    """The `_target_`s of the files of a config group: what the project offers there."""
    files = CONF.joinpath(*group).glob("*.yaml")
    found = (leaf for file in files for leaf in _leaves(yaml.safe_load(file.read_text(encoding="utf-8")), ()))
    return frozenset(value for place, value in found if place[-1:] == ("_target_",))


def _leaves(node: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(keys and indices, value) of everything that is no mapping or list; a `_target_` is a leaf whatever it is."""
    if place[-1:] != ("_target_",) and isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, (*place, str(key)))
    else:
        yield place, node


def refused_in_model(path: Path) -> str | None:
    """The first class or function in a `model.keras` that is neither Keras's own nor a registered one of this project.

    Raises:
        Exception: of whatever kind, where it is no such file.
    """
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > _LARGEST_MODEL_CONFIG:
            return "it holds a description of more than 50 MB"
        config = json.loads(archive.read("config.json"))
    return _refused_object(config)


def _refused_object(config: Any) -> str | None:
    """The first of the objects that Keras would build that is neither its own nor a registered one of this project."""
    for node in _objects(config):
        name, module, registered = node["class_name"], node.get("module"), node.get("registered_name")
        if name == "function" and module == "builtins":  # Keras's way of naming one of its own
            name, module, registered = node.get("config"), "keras.activations", None
        if not (isinstance(name, str) and _is_known(name, module, registered)):
            return f"it names {module}.{name}"[:200]
    return None


def _is_known(name: str, module: Any, registered: Any) -> bool:
    if module is None:
        return name in _DATA_CLASSES
    if not isinstance(module, str) or re.fullmatch(_REFUSED, name) or not name.isidentifier():
        return False
    if _OWN_MODULES.fullmatch(module):
        return registered == f"kws>{name}"
    return registered in (None, name) and _KERAS_MODULES.fullmatch(module) is not None


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping that describes an object of Keras, at any depth."""
    if isinstance(node, dict):
        if "class_name" in node:
            yield node
        for value in node.values():
            yield from _objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from _objects(value)
