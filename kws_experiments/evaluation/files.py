"""The files of one evaluation: a run's own in its folder, those of `kws evaluate` each in a folder below."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kws_data.storage.atomic import replace_file
from kws_experiments.runs.files import read_json, read_table
from kws_experiments.runs.folder import write_text

TABLES = ("predictions", "confidently_wrong", "speakers", "levels", "calibration", "detection", "noise")


@dataclass(frozen=True)
class EvaluationFiles:
    """`metrics.json` and a Parquet file per table in `path`; `evaluation.metrics` describes them."""

    path: Path

    @property
    def metrics(self) -> Path:
        """The metrics as JSON; written last, so that the tables beside it are whole."""
        return self.path / "metrics.json"

    def table(self, name: str) -> Path:
        """One of TABLES, as Parquet."""
        return self.path / f"{name}.parquet"

    def write(self, metrics: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
        """Write each file whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            with replace_file(self.table(name)) as temporary:
                table.to_parquet(temporary, index=False)
        write_text(self.metrics, json.dumps(_plain(metrics), indent=2, allow_nan=False) + "\n")

    def read_metrics(self) -> dict[str, Any]:
        """The metrics.

        Raises:
            KwsError: the file is missing or damaged.
        """
        return read_json(self.metrics, "evaluate again")

    def read_table(self, name: str) -> pd.DataFrame:
        """One of TABLES.

        Raises:
            KwsError: the file is missing or damaged.
        """
        return read_table(self.table(name), "evaluate again")


def _plain(value: Any) -> Any:
    """For JSON: NumPy's numbers as Python's, and numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
