"""Play clips faster or slower."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.checks import check_probability, check_range
from kws_data.draws import Draws

STEPS = 400  # factors are multiples of 1/400, so that the filters (0.1 MB for each factor) can be kept
_BLOCK = 16  # output samples of one window: less arithmetic than with long blocks, less copying than with short ones
_ZERO_CROSSINGS = 16  # of the sinc on each side, and
_KAISER_BETA = 5.65  # its window: 60 dB, in a transition of 0.23 of the band (Kaiser's formulas), which
_CUTOFF = 0.885  # of the band puts wholly below the Nyquist frequency
# OpenBLAS divides a larger product of matrices among threads, when the last bits might depend on how many there are
_MOST_PERIODS = 100


class Speed(WaveformStage):
    """Resample by a factor uniform in `factor` = [low, high]: above 1 is faster and higher, as a tape would be.

    Where all clips have one length, a clip of that length is stretched about its middle, then zero-filled or cut at
    both ends; a shorter clip keeps its start and grows up to that length. Where clips keep their lengths, these change
    with the factor. Silence rows stay as they are, and a clip with the factor 1 keeps its bits.

    - Windowed-sinc filters pass frequencies below 0.77 of the Nyquist frequency (that of the slower rate, if the clip
      becomes faster), and lower aliases by about 60 dB.
    - The factor is rounded to a multiple of 1/400, a few cents of a semitone.
    - Like `time_shift`, it runs on the host before the stages of the graph: the noise that they add isn't resampled,
      and the clip that `mixup` adds keeps its speed.
    - A clip near full scale may pass it when resampled. It is clipped whatever `augment.clipping` says, since the batch
      is int16.
    """

    def __init__(self, factor: tuple[float, float], probability: float = 1.0) -> None:
        self.low, self.high = check_range("factor", factor, 0.5, 2.0)
        self.probability = check_probability("probability", probability)

    def factors(self, batch: ClipBatch, draws: Draws) -> np.ndarray:
        """[batch] float64, multiples of 1/`STEPS`; 1 for clips that stay as they are."""
        chance, fraction = draws.uniform("speed", 2).T
        chosen = (chance < self.probability) & ~batch.silence
        return np.where(chosen, np.rint((self.low + fraction * (self.high - self.low)) * STEPS) / STEPS, 1.0)

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """Resample the clips; changes lengths, and widens the batch where a clip becomes longer than it."""
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
        for index in np.flatnonzero(factors != 1.0):
            row, old, new = batch.pcm[index], int(lengths[index]), int(batch.lengths[index])
            if row[old : room[index]].any():  # a shift has moved a short clip into its padding
                old, new = int(room[index]), int(new_room[index])
            start, samples = _resampled(row[:old], factors[index], new, about_middle=bool(full[index]))
            row[:start] = 0
            row[start : start + len(samples)] = samples  # rounded already
            row[start + len(samples) :] = 0
        return {}


def _resampled(clip: np.ndarray, factor: float, count: int, *, about_middle: bool) -> tuple[int, np.ndarray]:
    """A clip at `factor` times its speed, without the zeros before and after it.

    Args:
        clip: [samples] int16.
        factor: a multiple of 1/`STEPS`.
        count: the largest number of samples.
        about_middle: whether the middle keeps its time; otherwise the start does.

    Returns:
        index of the first sample, in [0, `count`); and [samples] float32, whole numbers within int16.
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
    used = slice(max(0, first_input), max(0, min(len(clip), first_input + len(source))))
    source[used.start - first_input :][: used.stop - used.start] = clip[used]
    # Windows overlap within a period, but not from one period to the next, so that BLAS takes them without a copy.
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
    """The filters for one period of `STEPS` output samples.

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
    """Filters for the factor advance / `STEPS`, about a pivot on a sample or halfway between two."""
    factor = advance / STEPS
    stretch = max(1.0, factor)  # the band of the source, or of the output if that is narrower
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
