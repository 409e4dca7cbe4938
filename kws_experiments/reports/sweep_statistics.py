"""Statistics of a sweep: spread over seeds, differences between settings, effects of keys, the Pareto front.

A setting is a choice of all swept keys but the seed. Settings are compared on the clips that all were tested on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

SEED = "seed"
RESAMPLES = 10_000
LEVEL = 0.95  # of all intervals of one table together
_CLIP = ["clip", "offset", "label"]  # identify a test row
COMPARISON = ["better", "worse", "difference", "low", "high", "distinguishable", "mcnemar_p"]


def settings_table(runs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """A row per setting, the best on validation first: `runs`, mean, standard deviation and range of `accuracy`.

    Args:
        runs: a row per finished run, with `setting`, `accuracy`, `validation_accuracy` and the swept keys.
        keys: the swept keys without the seed.

    Returns:
        index `setting`; the keys, `runs`, `validation_mean`, `mean`, `std` (sample; NaN for one run), `min`, `max`.
    """
    groups = runs.groupby("setting", sort=False)
    accuracy = groups["accuracy"]
    columns = {"runs": accuracy.size(), "validation_mean": groups["validation_accuracy"].mean()}
    columns |= {name: getattr(accuracy, name)() for name in ("mean", "std", "min", "max")}
    table = pd.DataFrame({key: groups[key].first() for key in keys} | columns)
    return table.sort_values(["validation_mean", "mean"], ascending=False, kind="stable")


@dataclass(frozen=True)
class TestRows:
    """Which test clips each run had right, where all runs were tested on the same.

    Attributes:
        correct: [runs, clips] bool.
        speakers: [clips], their numbers from 0; a silence row is a speaker of its own.
        settings: [runs], each run's setting.
    """

    __test__ = False  # pytest would take it for a test

    correct: np.ndarray
    speakers: np.ndarray
    settings: np.ndarray

    def of(self, setting: str) -> np.ndarray:
        """The rows of `correct` of one setting."""
        return self.correct[self.settings == setting]


def same_test_rows(predictions: Mapping[Any, pd.DataFrame], settings: Mapping[Any, str]) -> TestRows | None:
    """The runs' test rows in one order; None if they were not tested on the same clips with the same labels.

    Args:
        predictions: by run, its `predictions.parquet`.
        settings: by run.
    """
    tables = {run: table.sort_values(_CLIP, kind="stable").reset_index(drop=True) for run, table in predictions.items()}
    first = next(iter(tables.values()))
    if any(not table[_CLIP].equals(first[_CLIP]) for table in tables.values()):
        return None
    correct = np.stack([(table["label"] == table["predicted"]).to_numpy() for table in tables.values()])
    named = first["speaker"].fillna("").astype(str)
    speakers = pd.factorize(named.where(named != "", "row " + first.index.astype(str)))[0]
    return TestRows(correct, speakers, np.array([settings[run] for run in tables]))


def compare(rows: TestRows, pairs: Sequence[tuple[str, str]], seed: int = 0) -> pd.DataFrame:
    """The difference in accuracy of pairs of settings, with an interval.

    Speakers are drawn anew with all their clips, since a speaker's clips are right or wrong together, and so are each
    setting's runs, if it has several (a two-way cluster bootstrap, percentile intervals; with two or three runs the
    intervals are somewhat narrow). The level is divided among the pairs (Bonferroni), so that `LEVEL` holds for the
    whole table. If a setting has one run, its spread over seeds is unknown, and the interval is of the clips alone;
    for two such settings there is McNemar's exact test too.

    Returns:
        a row per pair: `better`, `worse` (by their means), `difference`, `low`, `high`, `distinguishable`,
        `mcnemar_p` (NaN where a setting has several runs).
    """
    generator = np.random.default_rng(seed)
    sums = _sums_by_speaker(rows)
    counts = np.bincount(rows.speakers)
    speakers = len(counts)
    weights = generator.multinomial(speakers, np.full(speakers, 1 / speakers), RESAMPLES)
    clips = weights @ counts
    tail = (1 - LEVEL) / 2 / max(1, len(pairs))
    resampled = {
        name: _accuracies(sums[rows.settings == name], weights, clips, generator) for pair in pairs for name in pair
    }
    table = []
    for one, other in pairs:
        difference = float(rows.of(one).mean() - rows.of(other).mean())
        better, worse = (one, other) if difference >= 0 else (other, one)
        low, high = np.quantile(resampled[better] - resampled[worse], [tail, 1 - tail])
        single = len(rows.of(one)) == len(rows.of(other)) == 1
        p = mcnemar(rows.of(one)[0], rows.of(other)[0]) if single else float("nan")
        table.append((better, worse, abs(difference), float(low), float(high), bool(low > 0), p))
    return pd.DataFrame(table, columns=COMPARISON)


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """p of McNemar's exact test of two classifiers on the same clips ([clips] bool: right); 1 if they never differ."""
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    return float(binomtest(only_one, only_one + only_other).pvalue) if only_one + only_other else 1.0


def key_effects(runs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The effect of each value of a swept key, all else equal: a row per key and value.

    Runs that differ in this key alone form a block. Only blocks in which every value of the key finished count. A
    value's effect is the mean over them of its accuracy less its block's.

    Returns:
        `key`, `value`, `effect`, `std` (over blocks; NaN for one), `blocks`; no row for a key without a complete block.
    """
    rows = []
    for key in keys:
        others = [other for other in keys if other != key]
        table = runs.assign(block=runs[others].astype(str).agg("\0".join, axis=1) if others else "")
        grid = table.pivot_table(index="block", columns=key, values="accuracy", sort=False).dropna()
        effects = grid.sub(grid.mean(axis=1), axis=0)
        if len(grid) and grid.shape[1] > 1:
            rows += [
                {"key": key, "value": value, "effect": column.mean(), "std": column.std(), "blocks": len(column)}
                for value, column in effects.items()
            ]
    return pd.DataFrame(rows, columns=["key", "value", "effect", "std", "blocks"])


def pareto_front(costs: Sequence[float], accuracies: Sequence[float]) -> np.ndarray:
    """[points] bool: whether no other point is better in cost or accuracy without being worse in the other."""
    cost, accuracy = np.asarray(costs, float), np.asarray(accuracies, float)
    no_worse = (cost[:, None] <= cost) & (accuracy[:, None] >= accuracy)
    better = (cost[:, None] < cost) | (accuracy[:, None] > accuracy)
    return np.asarray(~(no_worse & better).any(axis=0))


def _sums_by_speaker(rows: TestRows) -> np.ndarray:
    """[runs, speakers] float64: each run's correct clips of each speaker."""
    return np.stack([np.bincount(rows.speakers, weights=run) for run in rows.correct.astype(np.float64)])


def _accuracies(sums: np.ndarray, weights: np.ndarray, clips: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[resamples]: a setting's accuracy over drawn speakers (the same for every setting) and drawn runs of its own."""
    runs = len(sums)
    drawn = generator.multinomial(runs, np.full(runs, 1 / runs), len(weights)) / runs  # [resamples, runs]
    return ((weights @ sums.T) * drawn).sum(axis=1) / clips
