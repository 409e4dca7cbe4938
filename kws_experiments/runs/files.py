"""Readers of files that a run, an evaluation or an export wrote; a file that can't be read is one line.

Whatever is wrong with a file (it is missing, empty, truncated, not UTF-8, of another kind), the `KwsError` names it and
says what to do. pandas and NumPy are imported by the readers that need them, so that a wrong folder is refused at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kws_data.errors import KwsError
from kws_data.text import from_csv

if TYPE_CHECKING:
    import pandas as pd
    from numpy.lib.npyio import NpzFile

START_OVER = "start over with force=true"
GIVE_RUN = "give the folder of a run"
GIVE_MODEL = "give the folder of a run, or of an export"


@contextmanager
def whole(path: Path, advice: str) -> Iterator[None]:
    """Turn any error of parsing a file into one line.

    Args:
        path: the file.
        advice: what to do about it.

    Raises:
        KwsError: for an error inside; one that is a KwsError already passes.
    """
    try:
        yield
    except KwsError:
        raise
    except Exception as error:  # of whatever kind: parsers raise a dozen of them on damaged files
        denied = " (no permission to read it)" if isinstance(error, PermissionError) else ""
        raise KwsError(f"'{path}' is missing or damaged{denied}: {advice}") from error


def read_lines(path: Path, advice: str) -> list[str]:
    """The lines of a text file, of which there is at least one."""
    with whole(path, advice):
        _check(path.is_file(), "a pipe, which would block, or a device")
        lines = path.read_text(encoding="utf-8").splitlines()
        _check(bool(lines), "no line")
        return lines


def read_json(path: Path, advice: str, keys: Collection[str] = ()) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        advice: what to do about a damaged one.
        keys: that it must have; dotted ones are of objects within.
    """
    return _read_mapping(path, advice, keys, json.loads)


def read_yaml(path: Path, advice: str, keys: Collection[str] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, with numbers as OmegaConf reads them (1e-3 is one, a date is text)."""
    return _read_mapping(path, advice, keys, parse_yaml)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's loader in C, which is ten times as fast as the one in Python, with OmegaConf's scalars."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # YAML 1.1 takes 1e-3 for text
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


_ALWAYS_SAFE = 10_000  # characters: too few to be nested so deeply that the parser crashes
_DEEPEST = 100


def parse_yaml(text: str) -> Any:
    """A YAML document, with numbers as OmegaConf reads them."""
    if "*" in text or len(text) > _ALWAYS_SAFE:
        depth = 0
        for event in yaml.parse(text, _Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:  # they fill the memory, or the parser's stack
                raise yaml.YAMLError("it has aliases, or is nested too deeply")
    return yaml.load(text, _Loader)


def read_table(path: Path, advice: str, columns: Sequence[str] = (), **options: Any) -> pd.DataFrame:
    """The table in a Parquet or CSV file.

    Args:
        path: the file, which ends in .parquet or .csv.
        advice: what to do about a damaged one.
        columns: that it must have; of a Parquet file no others are read.
        options: of pandas's reader.
    """
    import pandas as pd

    with whole(path, advice):
        _check(path.is_file(), "pandas reads an empty folder as an empty table")
        if path.suffix == ".parquet":
            return pd.read_parquet(path, columns=list(columns) or None, **options)
        table = from_csv(pd.read_csv(path, **options))
    if missing := [column for column in columns if column not in table.columns]:
        raise KwsError(f"'{path}' has no column {missing[0]}: {advice}")
    return table


@contextmanager
def open_arrays(path: Path, advice: str) -> Iterator[NpzFile]:
    """The arrays of an NPZ file; errors of reading one of them count as damage too."""
    import numpy as np

    with whole(path, advice), np.load(path) as arrays:
        yield arrays


def number_or_none(value: Any) -> float | None:
    """A number as it is, None as None.

    Raises:
        TypeError: it is neither.
        OverflowError: it is an integer beyond 64 bits.
    """
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) >= 2**63 and isinstance(value, int):
            raise OverflowError(f"{value:#x} has more than 64 bits")
        return value
    raise TypeError(f"{value!r} is not a number")


def _read_mapping(path: Path, advice: str, keys: Collection[str], parse: Callable[[str], Any]) -> dict[str, Any]:
    with whole(path, advice):
        _check(path.is_file(), "a pipe, which would block, or a device")
        values = parse(path.read_text(encoding="utf-8"))
        _check(isinstance(values, dict), "no object at the top level")
        _check(_is_shallow(values, _DEEPEST), "nested too deeply")
        for key in keys:
            node = values
            for name in key.split("."):
                node = node[name]
        return values


def _is_shallow(node: Any, depth: int) -> bool:
    """Whether mappings and lists are nested at most so deeply, so that all readers can walk through them."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return depth > 0 and all(_is_shallow(child, depth - 1) for child in children)


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)
