"""Play clips faster or slower."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.checks import check_probability, check_range
from kws_data.draws import Draws

STEPS = 400  # factors are multiples of 1/400: of a few factors the filters can be kept, 0.1 MB for each
_BLOCK = 16  # output samples of one window: less arithmetic than with long blocks, less copying than with short ones
_ZERO_CROSSINGS = 16  # of the sinc on each side, and
_KAISER_BETA = 5.65  # its window: 60 dB, in a transition of 0.23 of the band (Kaiser's formulas), which
_CUTOFF = 0.885  # of the band puts wholly below the Nyquist frequency
# OpenBLAS divides a larger product of matrices among threads, when the last bits might depend on how many there are
_MOST_PERIODS = 100


class Speed(WaveformStage):
    """Resample by a factor uniform in `factor` = [low, high]: above 1 is faster and higher, as a tape would be.

    Where all clips have one length, a clip of that length is stretched about its middle, and zero-filled or cut at both
    ends; a shorter one keeps its start, and grows up to that length. Where clips keep their lengths, these change with
    the factor. Silence rows stay as they are, and so do the bits of a clip whose factor is 1.

    - By windowed-sinc filters, which let through what lies below 0.77 of the Nyquist frequency, of the slower rate if
      the clip becomes faster, and lower what would alias by about 60 dB.
    - The factor is rounded to a multiple of 1/400, a few cents of a semitone.
    - It runs on the host, as `time_shift` does, before the stages of the graph: noise that they add isn't resampled,
      and a partner of `mixup` keeps its speed.
    - A clip near full scale may swing beyond it when resampled. It is clipped there whatever `augment.clipping` says,
      since the batch is int16.
    """

    def __init__(self, factor: tuple[float, float], probability: float = 1.0) -> None:
        self.low, self.high = check_range("factor", factor, 0.5, 2.0)
        self.probability = check_probability("probability", probability)

    def factors(self, batch: ClipBatch, draws: Draws) -> np.ndarray:
        """[batch] float64, multiples of 1/`STEPS`; 1 for clips that stay as they are."""
        chance, place = draws.uniform("speed", 2).T
        chosen = (chance < self.probability) & ~batch.silence
        return np.where(chosen, np.rint((self.low + place * (self.high - self.low)) * STEPS) / STEPS, 1.0)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """Resample the clips; changes lengths, and widens the batch where a clip outgrows it."""
        factors = self.factors(batch, draws)
        lengths, room = batch.lengths, context.room(batch)
        full = np.zeros(len(lengths), bool) if context.clip_samples is None else lengths == room
        changed = np.maximum(1, np.rint(lengths / factors))
        if context.clip_samples is not None:
            changed = np.where(full, lengths, np.minimum(changed, room))
        batch.lengths = changed.astype(np.int32)
        missing = batch.lengths.max(initial=0) - batch.pcm.shape[1]
        if missing > 0:
            batch.pcm = np.pad(batch.pcm, [(0, 0), (0, missing)])
        new_room = context.room(batch)
        for place in np.flatnonzero(factors != 1.0):
            row, old, new = batch.pcm[place], int(lengths[place]), int(batch.lengths[place])
            if row[old : room[place]].any():  # a shift has moved a short clip into its padding
                old, new = int(room[place]), int(new_room[place])
            start, samples = _resampled(row[:old], factors[place], new, about_middle=bool(full[place]))
            row[:start] = 0
            row[start : start + len(samples)] = samples  # rounded already
            row[start + len(samples) :] = 0
        return {}


def _resampled(clip: np.ndarray, factor: float, count: int, *, about_middle: bool) -> tuple[int, np.ndarray]:
    """A clip at `factor` times its speed, without the zeros before and after it.

    Args:
        clip: [samples] int16.
        factor: a multiple of 1/`STEPS`.
        count: the most samples that it may have.
        about_middle: whether the middle stays in place; otherwise it is the start that does.

    Returns:
        its first sample's place, in [0, `count`); and [samples] float32, whole numbers within int16.
    """
    pivot = (len(clip) - 1) / 2 if about_middle else 0.0
    start = max(0, math.floor(pivot - (pivot + 1) / factor) + 1)
    stop = min(count, math.ceil(pivot + (len(clip) - pivot) / factor))
    # Periods are counted from the pivot, as that is where the filters start.
    advance, first_tap, step, weights = _filters(round(factor * STEPS), about_middle and len(clip) % 2 == 0)
    before = -((start - int(pivot)) // STEPS)
    first_output = int(pivot) - before * STEPS
    periods = -((first_output - stop) // STEPS)
    blocks, taps, _ = weights.shape

    source = np.zeros((periods - 1) * advance + (blocks - 1) * step + taps, np.float32)
    first_input = int(pivot) - before * advance + first_tap
    heard = slice(max(0, first_input), max(0, min(len(clip), first_input + len(source))))
    source[heard.start - first_input :][: heard.stop - heard.start] = clip[heard]
    # Windows that overlap within a period, but not from one period to the next: BLAS takes them without a copy.
    strides = (step * source.itemsize, advance * source.itemsize, source.itemsize)
    windows: np.ndarray = np.ndarray((blocks, periods, taps), np.float32, source, 0, strides)
    resampled = np.empty((periods, blocks, _BLOCK), np.float32)
    for period in range(0, periods, _MOST_PERIODS):
        part = slice(period, period + _MOST_PERIODS)
        np.matmul(windows[:, part], weights, out=resampled[part].transpose(1, 0, 2))
    inside = resampled.reshape(-1)[start - first_output : stop - first_output]
    np.rint(inside, out=inside)
    return start, np.clip(inside, -32768, 32767, out=inside)


class _Filters(NamedTuple):
    """What makes one period of `STEPS` output samples.

    Attributes:
        advance: samples from the source of one period to that of the next.
        first_tap: where the first window starts, relative to the period's start.
        step: samples from a window to the next one within the period.
        weights: [windows, taps, output samples of a window] float32.
    """

    advance: int
    first_tap: int
    step: int
    weights: np.ndarray


@functools.cache
def _filters(advance: int, between_samples: bool) -> _Filters:
    """For the factor advance / `STEPS`, about a pivot that is a sample or lies halfway between two."""
    factor = advance / STEPS
    stretch = max(1.0, factor)  # the band is that of the source, or the narrower one of the output
    step = round(_BLOCK * factor)
    blocks = STEPS // _BLOCK
    pivot = 0.5 if between_samples else 0.0
    place = pivot + (np.arange(STEPS) - pivot) * factor  # of the output samples, in the source
    place = place.reshape(blocks, 1, _BLOCK) - step * np.arange(blocks)[:, None, None]
    first_tap = math.floor(place.min() - _ZERO_CROSSINGS * stretch)
    last_tap = math.ceil(place.max() + _ZERO_CROSSINGS * stretch)
    distance = (np.arange(first_tap, last_tap + 1)[:, None] - place) / stretch
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0.0, 1.0 - (distance / _ZERO_CROSSINGS) ** 2)))
    weights = np.sinc(_CUTOFF * distance) * np.where(np.abs(distance) < _ZERO_CROSSINGS, window, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)  # a constant stays the same constant
    return _Filters(advance, first_tap, step, weights.astype(np.float32))
