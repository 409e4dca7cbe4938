"""Files of a run that are damaged in every way: one line that names the file and says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from kws_data.errors import KwsError
from kws_experiments.runs.files import open_arrays, parse_yaml, read_json, read_lines, read_table, read_yaml

TABLE = pd.DataFrame({"word": ["yes", "null"], "score": [0.25, 0.5]})
ADVICE = "evaluate again"


def read_array(path: Path, advice: str) -> np.ndarray:
    with open_arrays(path, advice) as arrays:
        return arrays["v0"]


# by file name: what writes a whole file, and what reads it
KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path, str], Any]]] = {
    "a.json": (lambda path: path.write_text(json.dumps({"words": ["yes", "no"]})), read_json),
    "a.yaml": (lambda path: path.write_text("words: [yes, no]\nrate: 1e-3\n"), read_yaml),
    "a.txt": (lambda path: path.write_text("yes\nno\n"), read_lines),
    "a.csv": (lambda path: TABLE.to_csv(path, index=False), read_table),
    "a.parquet": (lambda path: TABLE.to_parquet(path), read_table),
    "a.npz": (lambda path: np.savez(path, v0=np.arange(1000)), read_array),
}
DAMAGES: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3]),
    "binary": lambda path: path.write_bytes(bytes(range(128, 256))),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
STILL_TEXT = {("truncated", "a.txt"), ("truncated", "a.csv")}  # of which nobody can tell


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_file_is_read(tmp_path: Path, name: str) -> None:
    write, read = KINDS[name]
    write(tmp_path / name)
    assert len(read(tmp_path / name, ADVICE)) > 0


@pytest.mark.parametrize(
    ("damage", "name"), [(damage, name) for damage in DAMAGES for name in KINDS if (damage, name) not in STILL_TEXT]
)
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: str, name: str) -> None:
    path, (write, read) = tmp_path / name, KINDS[name]
    write(path)
    DAMAGES[damage](path)
    with pytest.raises(KwsError) as caught:
        read(path, ADVICE)
    assert str(caught.value) == f"'{path}' is missing or damaged: {ADVICE}"


@pytest.mark.parametrize("text", ["[1]", "3", "null", '"words"', '{"words": 3}', '{"words": {"yes": 1}}', "[" * 99_999])
def test_an_object_without_its_keys_is_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    for read in (read_json, read_yaml):
        if read is read_yaml and text.startswith("[["):
            continue  # the parser in C takes its time
        with pytest.raises(KwsError, match=r"a\.json' is missing or damaged: evaluate again"):
            read(path, ADVICE, ["words.no"])


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_columns_that_a_table_must_have(tmp_path: Path, name: str) -> None:
    KINDS[name][0](tmp_path / name)
    assert list(read_table(tmp_path / name, ADVICE, ["score"]).columns)[-1] == "score"
    with pytest.raises(KwsError, match=rf"{name}' (has no column|is missing or damaged)"):
        read_table(tmp_path / name, ADVICE, ["luck"])


SCALARS = "1e-3 1E5 -2.5e+7 .5e3 .5e+3 1.5 0x1F 1_000 .inf 2026-01-01 12:30 yes null a1e3 e5"


@pytest.mark.parametrize("text", SCALARS.split())
def test_scalars_are_those_of_omegaconf(text: str) -> None:
    assert repr(parse_yaml(f"key: {text}")) == repr(OmegaConf.to_container(OmegaConf.create(f"key: {text}")))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1, 1]\n" + "\n".join(f"a{n + 1}: &a{n + 1} [*a{n or ''}, *a{n or ''}]" for n in range(30)),
        "[" * 300_000,
        "- " * 300_000,
        "a: &a\n  b: *a",
    ],
    ids=["aliases of aliases", "brackets", "dashes", "itself"],
)
def test_yaml_that_would_fill_the_memory_or_the_stack_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(KwsError, match=r"config\.yaml' is missing or damaged: start over"):
        read_yaml(tmp_path / "config.yaml", "start over")
