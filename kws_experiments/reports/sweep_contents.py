"""What the report of a sweep says, as plain data: from the sweep's record and its runs' folders."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kws_data.errors import KwsError
from kws_experiments.reports import sweep_statistics as statistics
from kws_experiments.runs.files import read_table
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.sweep_record import DONE, Job, Sweep

log = logging.getLogger(__name__)

MOST_COMPARED = 8  # settings, the best on validation: 28 pairs, beyond which no difference would show any more
COSTS = {"parameters": "parameters", "multiply_adds": "multiply-adds for one clip", "latency_ms": "latency (ms)"}
_FROM_RUNS = ("validation_accuracy", "accuracy", "macro_f1", *COSTS)


@dataclass(frozen=True)
class SweepContents:
    """A sweep and what its runs say together.

    Attributes:
        sweep: its record.
        keys: the swept keys but the seed.
        runs: a row per finished run: `job`, `run`, `report` (relative to the sweep's folder), `setting`, the swept
            keys, `accuracy`, `validation_accuracy`, `macro_f1`, `seconds` and `COSTS`; NaN for what a run doesn't tell.
        settings: see `sweep_statistics.settings_table`; `COSTS` are the medians over the setting's runs.
        comparisons: see `sweep_statistics.compare`.
        effects: see `sweep_statistics.key_effects`.
        not_compared: why there are no comparisons; empty where there are some.
        statements: what can be said, sentence by sentence.
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
        return [job for job in self.sweep.jobs if job.status != DONE]


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
    """Which setting is best on validation, its test accuracy, and which others it can be told apart from."""
    best = settings.index[0]
    row = settings.iloc[0]
    spread = (
        ""
        if np.isnan(row["std"])
        else f", standard deviation {100 * row['std']:.1f} points over {row['runs']:.0f} runs"
    )
    said = [f"Best on validation: {best}; {_percent(row['mean'])} of the test clips{spread}."]
    if not_compared:
        return [*said, not_compared]
    if settings["validation_mean"].isna().all():
        said[0] = said[0].replace("Best on validation", "Best on the test clips (the runs tell no validation accuracy)")
    for pair in comparisons[(comparisons["better"] == best) | (comparisons["worse"] == best)].itertuples():
        if not pair.distinguishable:
            other = pair.worse if pair.better == best else pair.better
            sign = 1 if pair.better == best else -1
            low, high = sorted((sign * pair.low, sign * pair.high))
            said.append(f"It can't be told apart from {other}: {_points(sign * pair.difference, low, high)}.")
        elif pair.better == best:
            said.append(f"It is better than {pair.worse}: {_points(pair.difference, pair.low, pair.high)}.")
        else:
            said.append(f"On the test clips {pair.better} is better: {_points(pair.difference, pair.low, pair.high)}.")
    if len(settings) > MOST_COMPARED:
        said.append(f"Only the {MOST_COMPARED} settings that are best on validation are compared, of {len(settings)}.")
    return said


def _comparisons(done: list[Job], runs: pd.DataFrame, settings: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The differences between the best settings, or the reason why there are none."""
    nothing = statistics.compare_nothing()
    if len(settings) < 2:
        return nothing, "There is one setting: nothing to compare."
    compared = list(settings.index[:MOST_COMPARED])
    predictions, setting_of = {}, {}
    for job, setting in zip(done, runs["setting"], strict=True):
        if setting in compared:
            predictions[str(job.folder)] = _predictions(job)
            setting_of[str(job.folder)] = setting
    rows = statistics.same_test_rows(predictions, setting_of)
    if rows is None:
        return nothing, "The runs were not tested on the same clips with the same labels, so they can't be compared."
    return statistics.compare(rows, statistics.all_pairs(compared)), ""


def _effects(runs: pd.DataFrame, swept: list[str], keys: list[str]) -> pd.DataFrame:
    """Of the keys but the seed, which takes part in the blocks: the same seed with another value of the key."""
    effects = statistics.key_effects(runs, swept)
    return effects[effects["key"].isin(keys)].reset_index(drop=True)


def _row(sweep: Sweep, job: Job, keys: list[str]) -> dict[str, Any]:
    assert job.folder is not None
    folder = RunFolder(job.folder)
    values = {key: _typed(value) for key, value in job.values(sweep.swept).items()}
    figures = dict.fromkeys(_FROM_RUNS, np.nan) | {key: folder.read_metrics().get(key) for key in _FROM_RUNS[:3]}
    figures |= _costs(folder)
    report = os.path.relpath(folder.report, sweep.path) if folder.report.is_file() else None
    setting = ", ".join(f"{key.lstrip('+')}={values[key]}" for key in keys) or "all runs"
    return {"job": job.number, "run": job.folder.name, "report": report, "setting": setting, **values,
            "seconds": job.seconds, **figures}  # fmt: skip


def _costs(folder: RunFolder) -> dict[str, Any]:
    """Parameters, multiply-adds and median latency; nothing of a run that doesn't tell."""
    try:
        cost = folder.read_cost()
    except KwsError as error:
        log.warning("%s: this run's cost is left out", error)
        return {}
    if not cost:
        return {}
    return {"parameters": cost["parameters"], "multiply_adds": cost["multiply_adds"],
            "latency_ms": cost["latency_ms"]["median"]}  # fmt: skip


def _predictions(job: Job) -> pd.DataFrame:
    assert job.folder is not None
    path = RunFolder(job.folder).predictions
    columns = ["clip", "offset", "speaker", "label", "predicted"]
    return read_table(path, "start that run over with force=true", columns)


def _typed(value: str | None) -> Any:
    """An override's value: numbers as such, so that they sort and plot as numbers."""
    try:
        return float(value) if value is not None and not value.lstrip("+-").isdigit() else int(value or "")
    except ValueError:
        return value


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _points(difference: float, low: float, high: float) -> str:
    text = f"{100 * difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    return text.replace("-", "−")
