"""What stands where in a stream that is made of test clips: every draw a function of the seed and a word's number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kws_data.audio import INT16_SCALE
from kws_data.checks import check_number, check_range, check_whole
from kws_data.corpus import Corpus
from kws_data.draws import Draws, text_order
from kws_data.errors import KwsError
from kws_data.streams.speech_extent import speech_extent
from kws_experiments.streaming.stream_source import StreamSource

SPEECH_DB = -26.0  # RMS of the loudest words, of full scale: the usual level of speech (ITU-T P.56), far from clipping
_LONGEST_MINUTES = 24 * 60.0  # a WAV file holds no more than 4 GB
_SHORTEST_WORD_S = 0.1  # with its gap, to bound the draws


@dataclass(frozen=True)
class StreamSettings:
    """What `kws make-stream` makes.

    Attributes:
        minutes: length.
        snr_db: (low, high), each word's speech above the noise, uniform.
        gap_ms: (low, high), from one clip's end to the next one's beginning, uniform.
        unknown_percentage: of the words, those that are none of the task's.
        seed: of all draws.

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
    """Which clip stands where.

    Returns:
        a row per word: `row` (of the corpus' clips), `clip`, `word`, `keyword`, `start` and `length` (samples), `gain`,
        `snr_db`, `time_ms` and `end_ms` (of the speech in the clip).

    Raises:
        KwsError: no word fits in.
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
    for place in range(most):
        row = next(unknown if is_unknown[place] else keywords)
        samples = clip_samples(data.corpus, row)
        start = position + round(gaps[place] * rate / 1000)
        position = start + len(samples)
        if position > total:
            break
        begin, end = speech_extent(samples, rate)
        snr_db = round(float(levels[place]), 2)
        level_db = noise_db(settings) + snr_db
        rms = math.sqrt(np.mean(np.square(samples[begin:end], dtype=np.float64))) or 1.0
        rows.append(
            {
                "row": row, "clip": clips["path"][row], "word": clips["word"][row], "keyword": not is_unknown[place],
                "start": start, "length": len(samples), "gain": 10 ** (level_db / 20) * INT16_SCALE / rms,
                "snr_db": snr_db, "time_ms": round(1000 * (start + begin) / rate),
                "end_ms": round(1000 * (start + end) / rate),
            }
        )  # fmt: skip
    if not rows:
        raise KwsError(f"--minutes: no word fits into {settings.minutes:g} minutes with gaps of {settings.gap_ms} ms")
    return pd.DataFrame(rows)


def noise_db(settings: StreamSettings) -> float:
    """The noise's RMS in dB of full scale, with which the loudest words stand at SPEECH_DB."""
    return SPEECH_DB - settings.snr_db[1]


def clip_samples(corpus: Corpus, row: int) -> np.ndarray:
    """[samples] int16 of a row of the corpus' clips."""
    clip = corpus.clips.loc[row]
    return corpus.pcm[clip["source"]][clip["offset"] : clip["offset"] + clip["length"]]


def _endless(data: StreamSource, rows: np.ndarray, seed: int) -> Iterator[int]:
    """The rows in a drawn order, again and again in other orders: none comes twice before all have come once."""
    clips = data.corpus.clips.loc[rows]
    names = (clips["path"] + "@" + clips["offset"].astype(str)).tolist()
    for turn in itertools.count():
        yield from rows[text_order(names, seed, f"stream {turn}")]
