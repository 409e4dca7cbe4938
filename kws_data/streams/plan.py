"""Which words a stream holds, and when. Each draw is a function of the seed and of the word's number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kws_data.audio import INT16_SCALE
from kws_data.checks import check_number, check_range, check_whole
from kws_data.draws import Draws, text_order
from kws_data.errors import KwsError
from kws_data.streams.source import StreamSource
from kws_data.streams.speech_extent import speech_extent

SPEECH_DB = -26.0  # RMS of the loudest words, of full scale: the usual level of speech (ITU-T P.56), far from clipping
_LONGEST_MINUTES = 24 * 60.0  # a WAV file holds no more than 4 GB
_SHORTEST_WORD_S = 0.1  # with its gap; limits the number of draws


@dataclass(frozen=True)
class StreamSettings:
    """How a stream is made.

    Attributes:
        minutes: its length.
        snr_db: (low, high), the level of each word's speech above the noise, uniform.
        gap_ms: (low, high), from the end of a clip to the start of the next, uniform.
        unknown_percentage: percentage of words outside the task.
        seed: the seed of all draws.

    Raises:
        ValueError: naming the attribute.
    """

    minutes: float = 30.0
    snr_db: tuple[float, float] = (15.0, 15.0)
    gap_ms: tuple[float, float] = (1000.0, 3000.0)
    unknown_percentage: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("minutes", self.minutes, 0.05, _LONGEST_MINUTES)
        check_range("snr_db", self.snr_db, -40, 50)  # 16 bits hold no noise much quieter
        check_range("gap_ms", self.gap_ms, 0, 600_000)
        check_number("unknown_percentage", self.unknown_percentage, 0, 100)
        check_whole("seed", self.seed, -(2**63))


def plan_words(data: StreamSource, settings: StreamSettings) -> pd.DataFrame:
    """Draw words, gaps and levels until the stream is full.

    Returns:
        a row per word: `row` (of the corpus's clips), `clip`, `word`, `keyword`, `start` and `length` (samples),
        `gain`, `snr_db`, `time_ms` and `end_ms` (of the speech in the clip).

    Raises:
        KwsError: not even one word fits in.
    """
    rate, total = data.corpus.sample_rate, round(settings.minutes * 60 * data.corpus.sample_rate)
    keywords, unknown = (_endless(data, rows, settings.seed) for rows in (data.keywords, data.unknown))
    most = math.ceil(total / rate / _SHORTEST_WORD_S)
    draws = Draws(settings.seed, 0, np.arange(most))
    is_unknown = draws.uniform("unknown")[:, 0] * 100 < (settings.unknown_percentage if len(data.unknown) else 0)
    gaps, levels = (
        low + draws.uniform(name)[:, 0] * (high - low)
        for name, (low, high) in (("gap", settings.gap_ms), ("snr", settings.snr_db))
    )
    rows, position, clips = [], 0, data.corpus.clips
    for number in range(most):
        row = next(unknown if is_unknown[number] else keywords)
        samples = data.samples(row)
        start = position + round(gaps[number] * rate / 1000)
        position = start + len(samples)
        if position > total:
            break
        begin, end = speech_extent(samples, rate)
        snr_db = round(float(levels[number]), 2)
        level_db = noise_db(settings) + snr_db
        rms = math.sqrt(np.mean(np.square(samples[begin:end], dtype=np.float64))) or 1.0
        rows.append(
            {
                "row": row, "clip": clips["path"][row], "word": clips["word"][row], "keyword": not is_unknown[number],
                "start": start, "length": len(samples), "gain": 10 ** (level_db / 20) * INT16_SCALE / rms,
                "snr_db": snr_db, "time_ms": round(1000 * (start + begin) / rate),
                "end_ms": round(1000 * (start + end) / rate),
            }
        )  # fmt: skip
    if not rows:
        raise KwsError(f"--minutes: no word fits into {settings.minutes:g} minutes with gaps of {settings.gap_ms} ms")
    return pd.DataFrame(rows)


def noise_db(settings: StreamSettings) -> float:
    """RMS of the noise in dB of full scale, so that the loudest words are at SPEECH_DB."""
    return SPEECH_DB - settings.snr_db[1]


def _endless(data: StreamSource, rows: np.ndarray, seed: int) -> Iterator[int]:
    """The rows in a drawn order, then in another, and so on: no row repeats before all have been used."""
    clips = data.corpus.clips.loc[rows]
    names = (clips["path"] + "@" + clips["offset"].astype(str)).tolist()
    for turn in itertools.count():
        yield from rows[text_order(names, seed, f"stream {turn}")]
