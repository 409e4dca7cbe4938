"""One threshold per word for a rate of false accepts of all words together.

From averaged scores only peaks are kept: of a word wherever a keyword is spoken, and in between. A threshold below a
peak detects there, so that counts at all thresholds are those of the peaks above.

Few false accepts are there to choose by: in half an hour, 2 an hour is one. A threshold per word just above the
highest false peak of each would fit that accident, and no count could tell 0.5 an hour from 1. So the rates are those
of a model. On the scale of log-odds the highest peaks of all words together fall off exponentially (peaks over
threshold, Pickands 1975, with shape 0), and each word has a share in them, which is drawn to that of all words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from kws_experiments.streaming.curve import Smoothed
from kws_experiments.streaming.matching import Spoken

LOWEST, HIGHEST = 0.2, 0.9999  # thresholds
GRID = np.linspace(logit(LOWEST), logit(HIGHEST), 300)  # log-odds
_TAIL = 20  # peaks that the tail is fitted to
_SHARED = 1.0  # false peaks of a word that are taken from all words, beside its own
_PRICES = np.geomspace(1e-3, 1e4, 400)  # that a false accept costs, in units of gains


@dataclass(frozen=True)
class Peaks:
    """Peaks of averaged scores, in log-odds.

    Attributes:
        at_words: [spoken keywords, keywords]: of each keyword's average while one of them is spoken.
        spoken: [spoken keywords] index of that one.
        false: for each keyword, those where no keyword is spoken, down to LOWEST.
    """

    at_words: np.ndarray
    spoken: np.ndarray
    false: list[np.ndarray]

    @classmethod
    def of(
        cls, smoothed: Smoothed, columns: dict[str, int], truth: Sequence[Spoken], tolerance_ms: float, echo_ms: float
    ) -> Peaks:
        """The peaks of one recording.

        Args:
            smoothed: the averages.
            columns: each keyword's column in them.
            truth: the words that are spoken.
            tolerance_ms: as of `match`: a detection so close to a word is of that word.
            echo_ms: for so long after a word its average may still be high: the window's length and the average's.
        """
        times, averages = smoothed.times_ms, np.nan_to_num(smoothed.averages[:, list(columns.values())])
        elsewhere = np.ones(len(times), bool)
        rows, spoken = [], []
        for word in truth:
            if word.word in columns:
                begin, end = np.searchsorted(times, [word.time_ms - tolerance_ms, word.end_ms + tolerance_ms + 1])
                elsewhere[begin : np.searchsorted(times, word.end_ms + max(tolerance_ms, echo_ms))] = False
                rows.append(averages[begin:end].max(axis=0, initial=0))
                spoken.append(list(columns).index(word.word))
        above = np.pad((averages > LOWEST) & elsewhere[:, None], ((1, 1), (0, 0)))
        false = []
        for column, flags in zip(averages.T, above.T.astype(np.int8), strict=True):
            begins, ends = (np.flatnonzero(np.diff(flags) == step) for step in (1, -1))
            false.append(_log_odds([column[begin:end].max() for begin, end in zip(begins, ends, strict=True)]))
        return cls(_log_odds(rows).reshape(len(rows), len(columns)), np.array(spoken, int), false)

    def false_accepts(self) -> np.ndarray:
        """[keywords, GRID] the expected number of false accepts at each threshold, by the model."""
        pooled = np.sort(np.concatenate([*self.false, [GRID[0]]]))[::-1]  # one more, so that none is not never
        tail = pooled[:_TAIL]
        scale = max(float(tail.mean() - tail[-1]), 0.1)
        number = np.where(
            tail[-1] <= GRID,
            len(tail) * np.exp(-(GRID - tail[-1]) / scale),
            len(pooled) - np.searchsorted(pooled[::-1], GRID, "right"),
        )
        own = np.array([len(peaks) for peaks in self.false]) + _SHARED
        return (own / own.sum())[:, None] * number

    def gains(self) -> np.ndarray:
        """[keywords, GRID] what each threshold is worth: the root of correct less wrong detections.

        By their number alone, a word with many false accepts would be given up at low rates. The root makes the first
        detections of each word worth more than the last ones of another, and costs hardly any detections in all.
        """
        own = self.spoken[:, None] == np.arange(len(self.false))
        signs = np.where(own, 1, -1)
        counts = [
            (sign[:, None] * (peaks[:, None] > GRID)).sum(axis=0)
            for peaks, sign in zip(self.at_words.T, signs.T, strict=True)
        ]
        return np.sqrt(np.maximum(counts, 0))


def thresholds_by_price(peaks: Peaks) -> tuple[np.ndarray, np.ndarray]:
    """All that is worth choosing, from the most false accepts to the fewest.

    At each price of a false accept every word takes the threshold that pays most. Of all thresholds with so many false
    accepts together, these gain most (Everett 1963).

    Returns:
        [choices, keywords] thresholds, and [choices] the expected number of false accepts.
    """
    accepts, gains = peaks.false_accepts(), peaks.gains()
    chosen: list[np.ndarray] = []
    for price in _PRICES:
        worth = gains - price * accepts
        best = worth.shape[1] - 1 - worth[:, ::-1].argmax(axis=1)  # of equals the highest
        if not chosen or (best != chosen[-1]).any():
            chosen.append(best)
    choices = np.stack(chosen)
    expected = np.take_along_axis(accepts, choices.T, axis=1).sum(axis=0)
    return np.round(expit(GRID[choices]), 4), expected


def _log_odds(scores: Sequence[np.ndarray] | Sequence[float]) -> np.ndarray:
    return logit(np.clip(np.asarray(scores, np.float64), 1e-6, 1 - 1e-6))
