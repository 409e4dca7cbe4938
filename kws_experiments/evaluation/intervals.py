"""Confidence intervals: of an accuracy (Wilson's, and a bootstrap over speakers), and of a rate an hour (Poisson)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, chi2

RESAMPLES = 2000
LEVEL = 0.95
_COUNTS_AT_ONCE = 2_000_000  # of the bootstrap's weights in memory: 16 MB

Interval = tuple[float, float]


@cache  # scipy takes a millisecond each, and many speakers have the same counts
def wilson(correct: int, clips: int) -> Interval:
    """The 95 % interval of a fraction (Wilson 1927, score interval), by scipy.

    It takes clips for independent draws. Those of one speaker are not, so with few speakers it is too narrow. It
    holds up near 0 and 1 and for few clips.
    """
    if not clips:
        return 0.0, 1.0
    interval = binomtest(correct, clips).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def wilson_each(correct: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """`wilson` of many fractions: [fractions] twice → [fractions, 2], (low, high)."""
    return np.array([wilson(*counts) for counts in zip(correct.tolist(), clips.tolist(), strict=True)]).reshape(-1, 2)


def by_speaker(
    predictions: pd.DataFrame, labels: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval | None]:
    """95 % intervals of `accuracy` and `macro_f1` by resampling speakers (cluster bootstrap, percentiles).

    Speakers are drawn with replacement, each with all their clips (Field and Welsh 2007), since the clips of a speaker
    are alike. It takes speakers for independent draws from those that the model will meet. Rows without a speaker
    (generated silence) are drawn one by one. If nothing is wrong (or right), that holds for every resample too, and the
    interval has no width: read Wilson's then. If every file counts as a speaker of its own, this is the plain
    bootstrap over clips.

    Args:
        predictions: rows with `label`, `predicted` and `speaker`.
        labels: class names; the macro F1 is over those that have a clip (in a resample: that occur there).
        resamples: how many.
        seed: of the draws; the same predictions give the same intervals.

    Returns:
        (low, high) each; None with fewer than two speakers.
    """
    if predictions.loc[predictions["speaker"] != "", "speaker"].nunique() < 2:
        return {"accuracy": None, "macro_f1": None}
    counts = _counts_by_cluster(predictions, labels)
    accuracies, scores = [], []
    generator = np.random.default_rng(seed)
    for drawn in _weights(len(counts), resamples, generator):
        clips, *per_class = np.moveaxis((drawn @ counts.reshape(len(counts), -1)).reshape(len(drawn), 4, -1), 1, 0)
        own, taken, right = per_class
        accuracies.append(right.sum(axis=1) / clips[:, 0])
        both = own + taken
        with np.errstate(invalid="ignore"):  # 0/0 where a class doesn't occur in a resample
            scores.append(np.nanmean(np.where(own.sum(axis=0) > 0, 2 * right / both, np.nan), axis=1))
    return {"accuracy": _percentiles(accuracies), "macro_f1": _percentiles(scores)}


def _counts_by_cluster(predictions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """[clusters, 4, labels]: all clips (in each column), clips of the label, clips taken for it, and both."""
    speaker = predictions["speaker"].to_numpy(dtype=object)
    numbers = np.where(speaker == "", len(speaker) + np.arange(len(speaker)), pd.factorize(speaker)[0])
    cluster = np.unique(numbers, return_inverse=True)[1]
    index = pd.Index(labels)
    truth, predicted = index.get_indexer(predictions["label"]), index.get_indexer(predictions["predicted"])
    counts = np.zeros((cluster.max() + 1, 4, len(labels)))
    np.add.at(counts[:, 0], cluster, 1)
    np.add.at(counts[:, 1], (cluster, truth), 1)
    np.add.at(counts[:, 2], (cluster, predicted), 1)
    np.add.at(counts[:, 3], (cluster[truth == predicted], truth[truth == predicted]), 1)
    return counts


def _weights(clusters: int, resamples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """[some, clusters] at a time, in all `resamples` rows: how often each cluster is drawn."""
    at_once = max(1, _COUNTS_AT_ONCE // clusters)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = generator.integers(0, clusters, (rows, clusters)) + clusters * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(np.float64)


def _percentiles(parts: Sequence[np.ndarray]) -> Interval:
    low, high = np.quantile(np.concatenate(parts), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def poisson_rate(events: int, hours: float) -> Interval:
    """The exact 95 % interval of a rate an hour (Garwood 1936), of so many events in so many hours.

    It takes events for independent. Hours that repeat the same few clips hold less than they seem to.
    """
    low = chi2.ppf((1 - LEVEL) / 2, 2 * events) / 2 if events else 0.0
    return float(low / hours), float(chi2.ppf((1 + LEVEL) / 2, 2 * events + 2) / 2 / hours)


def hours_for(events: int, rate: float) -> float:
    """The hours in which so many events would show, with 95 % confidence, that no more than `rate` an hour happen.

    Without a single event they are 3 / rate.
    """
    return float(chi2.ppf(LEVEL, 2 * events + 2) / 2 / rate)


def false_accepts(events: int, hours: float, asked: float | None = None) -> dict[str, Any]:
    """A rate of false accepts with all that it must stand with.

    Args:
        events: false accepts.
        hours: of audio in which they happened.
        asked: the rate that is claimed not to be exceeded, if any.

    Returns:
        `false_accepts`, `hours`, `false_accepts_per_hour`, `false_accepts_per_hour_95`; of a claim also `shown`,
        whether the hours carry it, and `hours_needed`, those that would with as many events.
    """
    result: dict[str, Any] = {
        "false_accepts": events, "hours": hours, "false_accepts_per_hour": events / hours,
        "false_accepts_per_hour_95": poisson_rate(events, hours),
    }  # fmt: skip
    if asked is not None:
        needed = hours_for(events, asked)
        result |= {"shown": hours >= needed, "hours_needed": needed}
    return result


def as_text(rate: dict[str, Any]) -> str:
    """`false_accepts` as a text: 3.2 an hour (16 in 5.00 h, 95 % interval 1.8 to 5.2)."""
    low, high = rate["false_accepts_per_hour_95"]
    return (
        f"{rate['false_accepts_per_hour']:.1f} an hour ({rate['false_accepts']} in {rate['hours']:.2f} h, 95 % interval"
        f" {low:.1f} to {high:.1f})"
    )


def claim(rate: dict[str, Any], asked: float) -> str:
    """What hours say about the claim that no more than `asked` an hour happen: a few words for a table."""
    if rate["shown"]:
        return "shown"
    return "exceeded" if _exceeded(rate, asked) else f"not shown: needs {rate['hours_needed']:.1f} h"


def not_shown(rate: dict[str, Any], asked: float) -> str:
    """The remark on a claim that its hours can't carry."""
    if _exceeded(rate, asked):
        return f"at most {asked:g} an hour is exceeded: {as_text(rate)}"
    count = rate["false_accepts"]
    accepts = f"{count} false accept{'s' * (count != 1)}"
    return (
        f"at most {asked:g} an hour is not shown by {rate['hours']:.2f} h with {accepts};"
        f" it needs {rate['hours_needed']:.1f} h with as many"
    )


def _exceeded(rate: dict[str, Any], asked: float) -> bool:
    return rate["false_accepts_per_hour_95"][0] > asked
