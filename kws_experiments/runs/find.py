"""The runs below a folder as a table, for `kws runs` and for notebooks.

    from kws_experiments.runs.find import find_runs
    runs = find_runs("runs", where={"model": "ds_cnn_s"})
    runs.groupby("features")["accuracy"].agg(["mean", "std", "count"])

Imports no TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from kws_data.errors import KwsError
from kws_experiments.config.compose import NOT_VALID, flattened
from kws_experiments.config.overrides import near
from kws_experiments.config.upgrade import upgraded
from kws_experiments.runs.files import START_OVER, number_or_none, parse_yaml, read_table, read_yaml, whole
from kws_experiments.runs.folder import PRUNED, TRAINED, UNFINISHED, RunFolder
from kws_experiments.runs.listening import DEFAULT, Listening
from kws_experiments.runs.sweep_record import DONE, find_sweeps, read_sweep

FIRST = ("path", "name", "run", "status", "started", "seconds")
METRICS = ("accuracy", "validation_accuracy", "clips", "parameters", "missed")
DAMAGED, NOT_BEGUN, REPORT_MISSING, NOT_CLOSED = "damaged", "not begun", "report missing", "not closed"
_SAME_FOR_ALL = ("name", "force")  # keys that say nothing about what was trained
_GROUPS_ONLY = ("experiment", "sweep", "logger")  # choices that are spelled out by other keys


def find_runs(folder: str | Path, where: Mapping[str, Any] | None = None, *, all_keys: bool = False) -> pd.DataFrame:
    """The runs below a folder, a row each, in the order of their paths.

    Args:
        folder: `runs`, say, or any above or below it.
        where: config keys or choices, and the value that a run must have to be listed, or several in a list:
            {"model": "conv", "seed": [1, 2], "trainer.batch_size": 100}.
        all_keys: keep the columns of keys that are the same in all runs.

    Returns:
        `path`, `name`, `run` (the fingerprint of its configuration, and the attempt), `status` ('done', 'training',
        'pruned', 'report missing', 'not closed' (its loggers, that is), 'not begun', 'damaged'), `started` (UTC),
        `seconds` (of training); then the choices (`model`, `features`, …) and the config keys that differ among the
        runs listed, dotted; then `accuracy` (of the test split), `validation_accuracy`, `clips`, `parameters`, `missed`
        (of the keywords in validation streams, at medium sensitivity); then `error`, which says what is damaged.

    Raises:
        KwsError: there is no such folder, or no run has a key of `where`.
    """
    root = Path(folder)
    if not root.is_dir():
        raise KwsError(f"no folder '{root}'")
    found = [_read(path) for path in _run_folders(root)]
    for key, wanted in (where or {}).items():
        if found and not any(key in keys for _, keys in found):
            raise KwsError(f"no run has a key '{key}'" + near(key, {known for _, keys in found for known in keys}))
        found = [(row, keys) for row, keys in found if key in keys and _matches(keys[key], wanted)]
    names = _differing([keys for _, keys in found if keys], all_keys)
    rows = [row | {name: _of_table(keys.get(name)) for name in names} for row, keys in found]
    return pd.DataFrame(rows, columns=[*FIRST, *names, *METRICS, "error"]).convert_dtypes()


def find_sweeps_below(folder: str | Path) -> pd.DataFrame:
    """The sweeps below a folder, a row each: what each sweeps over, how far it is, its best accuracy.

    Raises:
        KwsError: there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise KwsError(f"no folder '{root}'")
    rows: list[dict[str, Any]] = []
    for path in find_sweeps(root):
        try:
            sweep = read_sweep(path)
        except KwsError as error:
            rows.append({"path": str(path), "status": DAMAGED, "error": str(error)})
            continue
        done = [job for job in sweep.jobs if job.status == DONE and job.accuracy is not None]
        rows.append(
            {
                "path": str(path), "status": sweep.status, "started": sweep.started, "swept": " ".join(sweep.swept),
                "done": len(done), "pruned": sum(job.status == PRUNED for job in sweep.jobs),
                "planned": sweep.planned,
                "best_accuracy": max((job.accuracy for job in done if job.accuracy is not None), default=None),
            }
        )  # fmt: skip
    columns = ["path", "status", "started", "swept", "done", "pruned", "planned", "best_accuracy", "error"]
    return pd.DataFrame(rows, columns=columns).convert_dtypes()


def _run_folders(root: Path) -> list[Path]:
    """What holds a run's record, or is what `train.py` made for one; those of `kws reproduce` belong to their run."""
    begun = {path.parent for name in ("run.json", ".hydra") for path in root.rglob(name)}
    again = {path for path in begun if path.parent.parent in begun}  # RUN/reproductions/1
    return sorted(path for path in begun - again if path.name != NOT_VALID)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the row of a run but for its keys, all its choices and config keys)."""
    row: dict[str, Any] = {"path": str(path), "name": path.parent.name, "run": path.name, "status": NOT_BEGUN}
    keys: dict[str, Any] = {}
    folder = RunFolder(path)
    try:
        record = folder.read_record()
        if record is None:
            return row, keys
        started = record.get("started")
        row |= {"status": record["status"], "started": started and str(started), "seconds": _seconds(folder)}
        config = upgraded(read_yaml(folder.config, START_OVER))
        keys = _choices(folder) | flattened(config)
        row["name"] = config.get("name", row["name"])
        if record["status"] == TRAINED:
            row["status"] = NOT_CLOSED if folder.report.is_file() or not config.get("report") else REPORT_MISSING
        if record["status"] not in (UNFINISHED, PRUNED):
            metrics = folder.read_metrics()
            with whole(folder.metrics, START_OVER):
                row |= {name: number_or_none(metrics.get(name)) for name in METRICS}
                if folder.listening.is_file() and (medium := Listening.read(path).tuned.get(DEFAULT)):
                    row["missed"] = number_or_none(medium["measured"]["miss_rate"])
    except Exception as error:  # of whatever kind: one folder must not end the table of all
        row |= {"status": DAMAGED, "error": str(error) if isinstance(error, KwsError) else f"'{path}' is damaged"}
    return row, keys


def _choices(folder: RunFolder) -> dict[str, str]:
    """What was chosen in each config group, as Hydra noted it: {'model': 'conv', …}; empty where it didn't."""
    path = folder.path / ".hydra" / "hydra.yaml"
    if not path.is_file():
        return {}
    choices = read_yaml(path, START_OVER, ["hydra.runtime.choices"])["hydra"]["runtime"]["choices"]
    return {
        key: value
        for key, value in reversed(choices.items())  # as `defaults` lists them
        if "/" not in key and "@" not in key and key not in _GROUPS_ONLY
    }


def _seconds(folder: RunFolder) -> float | None:
    """How long it has trained, over all its starts."""
    if not folder.training.history.is_file():
        return None
    table = read_table(folder.training.history, START_OVER, ["seconds"])
    with whole(folder.training.history, START_OVER):
        return float(table["seconds"].iloc[-1])


def _of_table(value: Any) -> Any:
    """A value as a table can hold it: integers beyond 64 bits become text."""
    return f"{value:#x}" if isinstance(value, int) and abs(value) >= 2**63 else value


def _matches(value: Any, wanted: Any) -> bool:
    """Whether a value is the wanted one, or one of several; numbers, and lists of words, may be spelled in any way."""
    return any(
        _plain(value, read) == _plain(one, read)
        for one in (wanted if isinstance(wanted, list | tuple) else [wanted])
        for read in (parse_yaml, _parsed_texts)  # of the words yes, no, on and off, YAML makes true and false
    )


def _parsed_texts(text: str) -> Any:
    return yaml.load(text, yaml.BaseLoader)


def _plain(value: Any, read: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        with suppress(yaml.YAMLError, ValueError, RecursionError):
            value = read(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        value = float(value)
    return json.dumps(_of_table(value), default=str)


def _differing(configs: list[dict[str, Any]], all_keys: bool) -> list[str]:
    """The keys of all configurations in their order, or those that don't have the same value everywhere."""
    names = dict.fromkeys(name for config in configs for name in config if name not in _SAME_FOR_ALL)
    taken = {*FIRST, *METRICS, "error"}
    return [
        name for name in names if name not in taken and (all_keys or _differs(config.get(name) for config in configs))
    ]


def _differs(values: Iterable[Any]) -> bool:
    return len({json.dumps(value, default=str, sort_keys=True) for value in values}) > 1
