"""What was missed and falsely accepted by signal-to-noise ratio, room, channel, word, speaker and recording."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kws_experiments.evaluation.intervals import poisson_rate, wilson_each
from kws_experiments.streaming.matching import FALSE_ACCEPT, NOTHING

_CONDITIONS = ("recording", "snr_db", "room", "channel", "word", "speaker")
COLUMNS = [
    "condition", "value", "said", "missed", "miss_rate", "miss_rate_low", "miss_rate_high", "latency_ms",
    "false_accepts", "hours", "false_accepts_per_hour", "false_accepts_per_hour_low", "false_accepts_per_hour_high",
]  # fmt: skip
_MOST_VALUES = 8  # of the signal-to-noise ratio; more are put into steps
_STEP_DB = 5


def by_condition(
    found: pd.DataFrame, words: pd.DataFrame, keywords: Sequence[str], hours: Mapping[str, float]
) -> pd.DataFrame:
    """Count misses and false accepts for each value of each condition that has several.

    A false accept counts for what is said there, a word or running speech. Where nothing is said, it counts for its
    word and its recording alone.

    Args:
        found: detections: `time_ms`, `word`, `outcome`, `on_speech` and `recording`.
        words: those spoken: `time_ms`, `end_ms`, `word`, `detected_ms`, `recording` and, as text that may be empty, the
            conditions.
        keywords: those of the model.
        hours: length of each recording.

    Returns:
        `condition`, `value`, `said` (keywords), `missed`, `miss_rate` with its 95 % interval `miss_rate_low` and
        `miss_rate_high` (Wilson), `latency_ms` (median), `false_accepts`, and of recordings `hours` and
        `false_accepts_per_hour` with its interval (Poisson); the speakers with the most misses first.
    """
    words, snrs = _with_snr_steps(words)
    accepts = found[found["outcome"] == FALSE_ACCEPT]
    said_there = words.reindex(_nearest(accepts, words)).set_axis(accepts.index)
    said_there = said_there.assign(recording=accepts["recording"], word=accepts["word"])
    spoken = words[words["word"].isin(keywords)]
    spoken = spoken.assign(latency_ms=spoken["detected_ms"] - spoken["end_ms"])
    tables = []
    for condition in _CONDITIONS:
        values = {"word": keywords, "snr_db": snrs, "recording": list(hours)}.get(
            condition, sorted(words[condition].unique())
        )
        counts = spoken.groupby(condition)
        table = pd.DataFrame(
            {
                "said": counts.size(), "detected": counts["detected_ms"].count(),
                "latency_ms": counts["latency_ms"].median(), "false_accepts": said_there[condition].value_counts(),
            }, index=pd.Index([value for value in values if value], name="value"),
        )  # fmt: skip
        if len(table) > 1:
            tables.append(_with_rates(table, hours if condition == "recording" else {}).assign(condition=condition))
        if len(table) > 1 and condition == "speaker":
            tables[-1] = tables[-1].sort_values(["miss_rate", "missed", "false_accepts"], ascending=False)
    return pd.concat(tables, ignore_index=True)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)


def worst_speakers(table: pd.DataFrame) -> dict[str, Any] | None:
    """The tenth of the speakers with the most misses.

    Args:
        table: see `by_condition`.

    Returns:
        `speakers` (the worst first), `of` (how many there are), `said`, `missed`, `miss_rate`; None with fewer than
        two speakers of keywords.
    """
    speakers = table[(table["condition"] == "speaker") & (table["said"] > 0)]
    if len(speakers) < 2:
        return None
    worst = speakers.head(math.ceil(len(speakers) / 10))
    said, missed = int(worst["said"].sum()), int(worst["missed"].sum())
    return {
        "speakers": worst["value"].tolist(), "of": len(speakers), "said": said, "missed": missed,
        "miss_rate": missed / said,
    }  # fmt: skip


def _with_rates(table: pd.DataFrame, hours: Mapping[str, float]) -> pd.DataFrame:
    table = table.reset_index().fillna({"said": 0, "detected": 0, "false_accepts": 0})
    table = table.astype({"said": "int64", "detected": "int64", "false_accepts": "int64"})
    missed, known = table["said"] - table["detected"], table["value"].map(dict(hours)).astype(float)
    misses = wilson_each(missed.to_numpy(), table["said"].to_numpy())
    accepts = [poisson_rate(*row) for row in zip(table["false_accepts"], known, strict=True)]
    accepts_low, accepts_high = np.array(accepts).T
    return table.assign(
        missed=missed, miss_rate=missed / table["said"].where(table["said"] > 0),
        miss_rate_low=misses[:, 0], miss_rate_high=misses[:, 1], hours=known,
        false_accepts_per_hour=table["false_accepts"] / known,
        false_accepts_per_hour_low=accepts_low, false_accepts_per_hour_high=accepts_high,
    )  # fmt: skip


def _with_snr_steps(words: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The words with their ratio as text, and its values in order: steps of 5 dB where it has many."""
    numbers = pd.to_numeric(words["snr_db"], errors="coerce")
    if numbers.nunique() > _MOST_VALUES:
        numbers = np.floor(numbers / _STEP_DB) * _STEP_DB
        names = {low: f"{low:g} to {low + _STEP_DB:g}" for low in np.sort(numbers.dropna().unique())}
    else:
        names = {number: f"{number:g}" for number in np.sort(numbers.dropna().unique())}
    return words.assign(snr_db=numbers.map(names).fillna("")), list(names.values())


def _nearest(accepts: pd.DataFrame, words: pd.DataFrame) -> np.ndarray:
    """[accepts] the index of what is said there; NOTHING where nothing is."""
    nearest = np.full(len(accepts), NOTHING)
    for recording, rows in words.groupby("recording"):
        own = ((accepts["recording"] == recording) & accepts["on_speech"]).to_numpy()
        times = accepts["time_ms"].to_numpy()[own][:, None]
        distance = np.maximum(rows["time_ms"].to_numpy() - times, times - rows["end_ms"].to_numpy())
        nearest[own] = rows.index.to_numpy()[distance.argmin(axis=1)]
    return nearest
