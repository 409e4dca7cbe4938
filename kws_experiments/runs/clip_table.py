"""`data/clips.parquet`: every clip and noise recording that a run used, by its content; and what changed since."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kws_data.catalog import BACKGROUND_NOISE
from kws_data.corpus import Corpus
from kws_data.storage.atomic import replace_file
from kws_experiments.runs.files import read_table

_KEY = ["source", "path", "start"]
CLASSES = "classes"  # the kind of change whose list holds class names
_NAMED = 3  # clips in one line; the table has the others


def clip_table(corpus: Corpus, examples: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """A row per example in the examples' order, then one per noise recording that is used.

    Returns:
        `split` ('' for noise, which is cut in time), `label` (a class name, or `_background_noise_`), `word`, `path`,
        `start` and `length` (samples at the run's rate, in the decoded file), `content` (hash of these samples; '' for
        silence rows, which have no file), `source` (number of the folder, -1 for silence rows), `root` (the folder).
    """
    names = dict(enumerate(labels))
    used = pd.concat(
        [
            examples.assign(label=examples["label"].map(names)),
            corpus.recordings.assign(split="", label=BACKGROUND_NOISE),
        ],
        ignore_index=True,
    )
    roots = {index: str(root) for index, root in enumerate(corpus.roots)}
    used["root"] = used["source"].map(roots).fillna("")
    return used[["split", "label", "word", "path", "start", "length", "content", "source", "root"]]


def write_clip_table(path: Path, table: pd.DataFrame) -> None:
    """Write the table, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        table.to_parquet(temporary, index=False)


def read_clip_table(path: Path) -> pd.DataFrame:
    """What `write_clip_table` wrote.

    Raises:
        KwsError: it is missing or damaged.
    """
    return read_table(path, "this run can't be repeated")


def recorded_root(table: pd.DataFrame) -> Path | None:
    """The data set's folder as it was; None where no example came from it."""
    roots = table.loc[table["source"] == 0, "root"]
    return Path(roots.iloc[0]) if len(roots) else None


def data_changes(recorded: pd.DataFrame, found: pd.DataFrame) -> dict[str, list[str]]:
    """Differences between two clip tables: paths by kind of change; empty where there are no differences.

    The kinds are `changed` (other samples), `missing`, `new`, `in another split or class` and `in another order`.
    """
    both = recorded.merge(found, on=_KEY, how="outer", suffixes=("", "_found"), indicator=True, sort=False)
    there, here = both["_merge"] != "right_only", both["_merge"] != "left_only"
    other_audio = there & here & (both["content"] != both["content_found"])
    moved = there & here & ((both["split"] != both["split_found"]) | (both["label"] != both["label_found"]))
    kinds = {"changed": other_audio, "missing": there & ~here, "new": here & ~there}
    kinds["in another split or class"] = moved
    changes = {kind: _clips_first(both[rows]) for kind, rows in kinds.items() if rows.any()}
    if not changes and not recorded[_KEY].reset_index(drop=True).equals(found[_KEY].reset_index(drop=True)):
        changes["in another order"] = recorded["path"].tolist()
    return changes


def _clips_first(rows: pd.DataFrame) -> list[str]:
    """The paths; silence rows, whose number follows from the clips', come last."""
    return rows.sort_values("source", key=lambda source: source < 0, kind="stable")["path"].tolist()


def summary(changes: dict[str, list[str]]) -> str:
    """Changes in one line: how many clips of each kind, and the first few."""
    parts = []
    for kind, paths in changes.items():
        more = f", and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        if kind == CLASSES:
            parts.append(f"the classes are now {', '.join(paths)}")
            continue
        clips = "clip" if len(paths) == 1 else "clips"
        parts.append(f"{len(paths)} {clips} {kind} ({', '.join(paths[:_NAMED])}{more})")
    return "; ".join(parts)
