"""Two runs of one configuration side by side: what is the same to the bit, and where the first difference is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kws_data.errors import KwsError
from kws_experiments.runs import checkpoint
from kws_experiments.runs.files import START_OVER, read_table
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.saved_model import load_model, named_weights

INITIAL, HISTORY, WEIGHTS, PREDICTIONS = "initial weights", "history", "weights", "predictions"
BIT_FOR_BIT = (WEIGHTS, PREDICTIONS)  # what must be the same for a run to count as repeated

NamedArrays = list[tuple[str, np.ndarray]]


@dataclass(frozen=True)
class Finding:
    """What comparing one thing gave.

    Attributes:
        what: the thing.
        same: whether it is the same to the bit; None where that is not known.
        detail: where it differs first and by how much, or how much is the same, in a line.
    """

    what: str
    same: bool | None
    detail: str


def compare_runs(original: RunFolder, repeated: RunFolder) -> list[Finding]:
    """The findings in the order in which a training produces these things, so that the first difference comes first.

    Needs TensorFlow only where the weights differ.

    Raises:
        KwsError: a file of either run is damaged.
    """
    return [
        _initial_weights(original.training.initial, repeated.training.initial),
        Finding(HISTORY, *history_difference(_history(original), _history(repeated))),
        _weights(original, repeated),
        _predictions(original.predictions, repeated.predictions),
    ]


def _initial_weights(original: Path, repeated: Path) -> Finding:
    try:
        kept = [checkpoint.read_arrays(path) for path in (original, repeated)]
    except KwsError:
        return Finding(INITIAL, None, "one of the runs has not kept them")
    named = [[(f"array {index}", array) for index, array in enumerate(arrays)] for arrays in kept]
    return Finding(INITIAL, *weights_difference(*named))


def _weights(original: RunFolder, repeated: RunFolder) -> Finding:
    digests = [(folder.read_record() or {}).get("weights_sha256") for folder in (original, repeated)]
    if digests[0] is not None and digests[0] == digests[1]:
        return Finding(WEIGHTS, True, f"the same, SHA-256 {digests[0][:12]}…")
    same, detail = weights_difference(*(named_weights(load_model(folder.path)) for folder in (original, repeated)))
    return Finding(WEIGHTS, same, detail)


def weights_difference(original: NamedArrays, repeated: NamedArrays) -> tuple[bool, str]:
    """Whether all arrays are the same, and the first that isn't."""
    shapes = [[array.shape for _, array in arrays] for arrays in (original, repeated)]
    if shapes[0] != shapes[1]:
        return False, f"another network: {len(shapes[0])} arrays, then {len(shapes[1])}, or of other shapes"
    pairs = list(zip(original, repeated, strict=True))
    differing = [(name, a, b) for (name, a), (_, b) in pairs if a.dtype != b.dtype or a.tobytes() != b.tobytes()]
    if not differing:
        return True, f"the same, {len(original)} arrays"
    name, a, b = differing[0]
    most = max(_largest(a, b) for _, a, b in differing)
    return False, (
        f"first in {name}, by at most {_largest(a, b):.2g}; {len(differing)} of {len(original)} arrays differ,"
        f" by at most {most:.2g}"
    )


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference between finite values."""
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return float(difference[np.isfinite(difference)].max(initial=0.0))


def _history(folder: RunFolder) -> pd.DataFrame:
    table = read_table(folder.training.history, START_OVER, ["seconds"], float_precision="round_trip")
    return table.drop(columns="seconds")


def history_difference(original: pd.DataFrame, repeated: pd.DataFrame) -> tuple[bool, str]:
    """Whether all evaluations gave the same, and the first that didn't."""
    if list(original.columns) != list(repeated.columns):
        return False, f"other columns: {', '.join(original.columns)}, then {', '.join(repeated.columns)}"
    rows = min(len(original), len(repeated))
    first = _first_difference(original.head(rows), repeated.head(rows))
    if first is not None:
        row, column = first
        before, now = original[column].iloc[row], repeated[column].iloc[row]
        return False, f"first at step {original['step'].iloc[row]}: {column} was {before}, is {now}"
    if len(original) != len(repeated):
        return False, f"{len(original)} evaluations, then {len(repeated)}; the first {rows} are the same"
    return True, f"the same, {rows} evaluations"


def _predictions(original: Path, repeated: Path) -> Finding:
    tables = [read_table(path, START_OVER) for path in (original, repeated)]
    if original.read_bytes() == repeated.read_bytes():
        return Finding(PREDICTIONS, True, f"the same bytes, {len(tables[0])} clips")
    same, detail = predictions_difference(*tables)
    # another version of pandas or pyarrow writes its name into the file
    return Finding(PREDICTIONS, same, f"{detail} (in a file of other bytes)" if same else detail)


def predictions_difference(original: pd.DataFrame, repeated: pd.DataFrame) -> tuple[bool, str]:
    """Whether all predictions are the same, and the first that isn't."""
    if list(original.columns) != list(repeated.columns):
        return False, "of other classes: the tables' columns differ"
    if len(original) != len(repeated):
        return False, f"of {len(original)} clips, then of {len(repeated)}"
    first = _first_difference(original, repeated)
    if first is None:
        return True, f"the same, {len(original)} clips"
    row, column = first
    before, now = original[column].iloc[row], repeated[column].iloc[row]
    other = int((original["predicted"] != repeated["predicted"]).sum())
    return False, (
        f"first for {original['clip'].iloc[row]}: {column} was {before}, is {now};"
        f" {other} of {len(original)} clips are predicted otherwise"
    )


def _first_difference(a: pd.DataFrame, b: pd.DataFrame) -> tuple[int, str] | None:
    """(row, column) of the first value that is not the same; two missing values are the same."""
    a, b = a.reset_index(drop=True), b.reset_index(drop=True)
    differs = ~((a == b) | (a.isna() & b.isna())).to_numpy()
    if not differs.any():
        return None
    row = int(differs.any(axis=1).argmax())
    return row, str(a.columns[int(differs[row].argmax())])
