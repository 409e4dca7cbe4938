"""The contents of a sweep's report as plain data, from the sweep's record and its runs' folders."""

from __future__ import annotations

import itertools
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from kws_data.errors import KwsError
from kws_experiments.reports import sweep_statistics as statistics
from kws_experiments.reports.tables import percent
from kws_experiments.runs.files import read_table
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.sweep_record import DONE, PRUNED, Job, Sweep

log = logging.getLogger(__name__)

MOST_COMPARED = 8  # settings, the best on validation: 28 pairs; with more, no difference would show any more
COSTS = {"parameters": "parameters", "multiply_adds": "multiply-adds for one clip", "latency_ms": "latency (ms)"}
_FROM_RUNS = ("validation_accuracy", "accuracy", "macro_f1", *COSTS)


@dataclass(frozen=True)
class SweepContents:
    """A sweep and the results of its runs together.

    Attributes:
        sweep: its record.
        keys: the swept keys but the seed.
        runs: a row per finished run: `job`, `run`, `report` (relative to the sweep's folder), `setting`, the swept
            keys, `accuracy`, `validation_accuracy`, `macro_f1`, `seconds` and `COSTS`; NaN if a run does not have it.
        settings: see `sweep_statistics.settings_table`; `COSTS` are the medians over the setting's runs.
        comparisons: see `sweep_statistics.compare`.
        effects: see `sweep_statistics.key_effects`.
        not_compared: why there are no comparisons; empty if there are some.
        statements: the results in sentences.
    """

    sweep: Sweep
    keys: list[str]
    runs: pd.DataFrame
    settings: pd.DataFrame
    comparisons: pd.DataFrame
    effects: pd.DataFrame
    not_compared: str
    statements: list[str]

    @property
    def unfinished(self) -> list[Job]:
        """Jobs that failed, were stopped or still run."""
        return [job for job in self.sweep.jobs if job.status not in (DONE, PRUNED)]

    @property
    def pruned(self) -> list[Job]:
        """Jobs that a search gave up; they have no result, so no mean has them."""
        return [job for job in self.sweep.jobs if job.status == PRUNED]


def gather(sweep: Sweep) -> SweepContents:
    """Read the runs of a sweep and compare them.

    Raises:
        KwsError: no job is done yet.
    """
    done = [job for job in sweep.jobs if job.status == DONE]
    if not done:
        raise KwsError(f"'{sweep.path}': none of its {len(sweep.jobs)} jobs is done; the same sweep command does them")
    keys = [key for key in sweep.swept if key.lstrip("+") != statistics.SEED]
    runs = pd.DataFrame([_row(sweep, job, keys) for job in done])
    settings = statistics.settings_table(runs, keys)
    costs = runs.groupby("setting")[list(COSTS)].median()
    settings = settings.join(costs)
    comparisons, reason = _comparisons(done, runs, settings)
    return SweepContents(
        sweep,
        keys,
        runs,
        settings,
        comparisons,
        _effects(runs, sweep.swept, keys),
        reason,
        statements(settings, comparisons, reason),
    )


def statements(settings: pd.DataFrame, comparisons: pd.DataFrame, not_compared: str) -> list[str]:
    """Which setting is best on validation, its test accuracy, and how it differs from the others, in sentences."""
    best = settings.index[0]
    row = settings.iloc[0]
    deviation = f", standard deviation {100 * row['std']:.1f} points over {row['runs']:.0f} runs"
    spread = "" if np.isnan(row["std"]) else deviation
    known = not_compared or settings["validation_mean"].notna().any()
    on = "validation" if known else "the test clips (the runs have no validation accuracy)"
    sentences = [f"Best on {on}: {best}; {percent(row['mean'])} of the test clips{spread}."]
    if not_compared:
        return [*sentences, not_compared]
    for pair in comparisons[(comparisons["better"] == best) | (comparisons["worse"] == best)].itertuples():
        points = _points(pair.difference, pair.low, pair.high)
        if not pair.distinguishable:
            other = pair.worse if pair.better == best else pair.better
            if pair.better != best:
                points = _points(-pair.difference, -pair.high, -pair.low)
            sentences.append(f"It cannot be distinguished from {other}: {points}.")
        elif pair.better == best:
            sentences.append(f"It is better than {pair.worse}: {points}.")
        else:
            sentences.append(f"On the test clips {pair.better} is better: {points}.")
    if len(settings) > MOST_COMPARED:
        sentences.append(f"Of {len(settings)} settings, only the {MOST_COMPARED} best on validation are compared.")
    return sentences


def _comparisons(done: list[Job], runs: pd.DataFrame, settings: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The differences between the best settings, and the reason if there are none."""
    nothing = pd.DataFrame(columns=statistics.COMPARISON)
    if len(settings) < 2:
        return nothing, "There is one setting: nothing to compare."
    compared = list(settings.index[:MOST_COMPARED])
    setting_of = {
        job.folder: setting for job, setting in zip(done, runs["setting"], strict=True) if setting in compared
    }
    rows = statistics.same_test_rows({folder: _predictions(folder) for folder in setting_of}, setting_of)
    if rows is None:
        return nothing, "The runs were not tested on the same clips with the same labels, so they can't be compared."
    return statistics.compare(rows, list(itertools.combinations(compared, 2))), ""


def _effects(runs: pd.DataFrame, swept: list[str], keys: list[str]) -> pd.DataFrame:
    """Effects of all keys but the seed; the seed is in the blocks, which compare runs of the same seed."""
    effects = statistics.key_effects(runs, swept)
    return effects[effects["key"].isin(keys)].reset_index(drop=True)


def _row(sweep: Sweep, job: Job, keys: list[str]) -> dict[str, Any]:
    assert job.folder is not None
    folder = RunFolder(job.folder)
    values = {key: _typed(value) for key, value in job.values(sweep.swept).items()}
    metrics = folder.read_metrics()
    results = dict.fromkeys(_FROM_RUNS, np.nan) | {key: metrics.get(key) for key in _FROM_RUNS[:3]} | _costs(folder)
    report = quote(os.path.relpath(folder.report, sweep.path)) if folder.report.is_file() else None
    setting = ", ".join(f"{key.lstrip('+')}={values[key]}" for key in keys) or "all runs"
    return {"job": job.number, "run": job.folder.name, "report": report, "setting": setting, **values,
            "seconds": job.seconds, **results}  # fmt: skip


def _costs(folder: RunFolder) -> dict[str, Any]:
    """Parameters, multiply-adds and median latency; {} for a run without them."""
    try:
        cost = folder.read_cost()
    except KwsError as error:
        log.warning("%s: this run's cost is left out", error)
        return {}
    if not cost:
        return {}
    return {"parameters": cost["parameters"], "multiply_adds": cost["multiply_adds"],
            "latency_ms": cost["latency_ms"]["median"]}  # fmt: skip


def _predictions(folder: Path | None) -> pd.DataFrame:
    assert folder is not None
    path = RunFolder(folder).predictions
    columns = ["clip", "offset", "speaker", "label", "predicted"]
    return read_table(path, "start that run over with force=true", columns)


def _typed(value: str | None) -> Any:
    """An override's value: numbers as numbers, so that they sort and plot as such."""
    try:
        return float(value) if value is not None and not value.lstrip("+-").isdigit() else int(value or "")
    except ValueError:
        return value


def _points(difference: float, low: float, high: float) -> str:
    text = f"{100 * difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    return text.replace("-", "−")
