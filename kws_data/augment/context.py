"""Place each word anywhere in its window, with parts of other words beside it."""

from __future__ import annotations

import numpy as np

from kws_data.audio import to_int16
from kws_data.augment.active import active_regions
from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.checks import check_probability, check_range
from kws_data.draws import Draws

_SHORTEST_MS = 40  # a shorter part of a neighbour is left out


class Context(WaveformStage):
    """Clips as windows of running speech: the word at any place of its window, beside parts of its neighbours.

    A network that listens to a stream sees a word enter, pass and leave, and its neighbours with it; clips of single
    words have them in the middle, in silence. The word (`active_regions`) moves to a place drawn uniformly from those
    where it lies within the window. On each side, with probability `neighbour`, another training clip's word ends
    before it or begins after it, a gap of `gap_ms` away; at most half of that word is in the window, so that the
    label holds. Rows of the silence class stay as they are.

    Args:
        neighbour: the probability of a neighbour, for each side.
        gap_ms: [shortest, longest], between words.
        level_db: [lowest, highest], of a neighbour against the word, from RMS to RMS.
    """

    def __init__(
        self,
        neighbour: float = 0.5,
        gap_ms: tuple[float, float] = (20, 250),
        level_db: tuple[float, float] = (-9, 3),
    ) -> None:
        self.neighbour = check_probability("neighbour", neighbour)
        self.gap_ms = check_range("gap_ms", gap_ms, 0, 10_000)
        self.level_db = check_range("level_db", level_db, -60, 20)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """Move the words and add their neighbours, in `batch.pcm`."""
        rate = context.sample_rate
        place = draws.uniform("place")[:, 0]
        room = context.room(batch)
        starts, ends = active_regions(batch.pcm, room, rate)
        free = room - (ends - starts)
        moved = np.where(batch.silence | (free <= 0), 0, (place * free).astype(int) - starts)
        for row, length, shift in zip(batch.pcm, room, moved, strict=True):
            _shift(row[:length], shift)
        if not len(context.words):
            return {}
        starts, ends = starts + moved, ends + moved
        loudness = _rms(batch.pcm, starts, ends)
        for side in ("before", "after"):
            chance, gap, level = draws.uniform(side, 3).T
            chosen = np.flatnonzero((chance < self.neighbour) & ~batch.silence & (ends > 0))
            others = context.words[draws.integers(f"{side} clip", len(context.words))][chosen]
            if not len(others):
                continue
            partners = context.gather(others)
            clips = partners.pcm
            first, past = active_regions(clips, partners.lengths, rate)
            gain = loudness[chosen] / np.maximum(_rms(clips, first, past), 1.0)
            gain *= 10 ** ((self.level_db[0] + level[chosen] * (self.level_db[1] - self.level_db[0])) / 20)
            gaps = ((self.gap_ms[0] + gap[chosen] * (self.gap_ms[1] - self.gap_ms[0])) * rate / 1000).astype(int)
            for index, row in enumerate(chosen):
                half = (past[index] - first[index]) // 2
                if side == "before":
                    end = starts[row] - gaps[index]
                    size = min(half, end)
                    begin, piece = end - size, clips[index, past[index] - size : past[index]] if size > 0 else None
                else:
                    begin = ends[row] + gaps[index]
                    size = min(half, room[row] - begin)
                    piece = clips[index, first[index] : first[index] + size] if size > 0 else None
                if piece is not None and size >= _SHORTEST_MS * rate // 1000:
                    into = batch.pcm[row, begin : begin + size]
                    into[:] = to_int16((into + piece * gain[index]) / 32768)
        return {}


def _shift(row: np.ndarray, shift: int) -> None:
    """Move the samples by `shift`, with zeros at the free end."""
    if shift > 0:
        row[shift:] = row[:-shift].copy()
        row[:shift] = 0
    elif shift < 0:
        row[:shift] = row[-shift:].copy()
        row[shift:] = 0


def _rms(pcm: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """[batch], of the samples from start to end; 0 where there are none."""
    words = [row[start:end].astype(np.float32) for row, start, end in zip(pcm, starts, ends, strict=True)]
    return np.array([np.sqrt(np.mean(np.square(word))) if len(word) else 0.0 for word in words])
