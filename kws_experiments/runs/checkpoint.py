"""All that a training needs to go on as if it had never stopped, in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kws_data.errors import KwsError
from kws_data.storage.atomic import replace_file
from kws_experiments.runs.files import START_OVER, open_arrays

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    AnyVariable: TypeAlias = keras.Variable | tf.Variable


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        step: steps done.
        history: a row per evaluation; early stopping and the choice of the best are functions of it.
        seconds: time spent so far, over all sessions.
    """

    step: int
    history: list[dict[str, Any]]
    seconds: float


def save(path: Path, variables: Sequence[AnyVariable], progress: Progress) -> None:
    """Write variables (weights, optimizer slots, dropout seeds, totals) and progress, whole or not at all."""
    state = {"step": progress.step, "history": progress.history, "seconds": progress.seconds}
    _write(path, variables, state=np.array(json.dumps(state)))


def load(path: Path, variables: Sequence[AnyVariable]) -> Progress:
    """Set the variables as they were saved, and give the progress.

    Raises:
        KwsError: the file is damaged, or holds another network's variables.
    """
    state = json.loads(str(_read(path, variables, "state")["state"]))
    return Progress(state["step"], state["history"], state["seconds"])


def save_weights(path: Path, weights: Sequence[AnyVariable]) -> None:
    """Write weights alone, whole or not at all."""
    _write(path, weights)


def load_weights(path: Path, weights: Sequence[AnyVariable]) -> None:
    """Set weights as `save_weights` wrote them; raises as `load`."""
    _read(path, weights)


def read_arrays(path: Path) -> list[np.ndarray]:
    """The arrays that `save_weights` wrote, of whatever network.

    Raises:
        KwsError: the file is damaged, or no such file.
    """
    with open_arrays(path, "it is no whole checkpoint") as saved:
        return [saved[f"v{index}"] for index in range(len(saved.files))]


def _write(path: Path, variables: Sequence[AnyVariable], **extra: Any) -> None:
    arrays: dict[str, Any] = {f"v{index}": np.asarray(variable) for index, variable in enumerate(variables)}
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays, **extra)


def _read(path: Path, variables: Sequence[AnyVariable], *extra: str) -> dict[str, np.ndarray]:
    with open_arrays(path, f"it is no whole checkpoint of such a network; {START_OVER}") as saved:
        arrays = [saved[f"v{index}"] for index in range(len(variables))]
        rest = {name: saved[name] for name in extra}
        whole = len(saved.files) == len(arrays) + len(rest)
    if not whole or any(a.shape != tuple(v.shape) for a, v in zip(arrays, variables, strict=True)):
        raise KwsError(f"'{path}' holds another network's weights; {START_OVER}")
    for array, variable in zip(arrays, variables, strict=True):
        variable.assign(array)
    return rest
