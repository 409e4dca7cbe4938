"""Which examples are in which batch: a pure function of seed and step, so that any step can be computed alone."""

from __future__ import annotations

import functools
import math

import numpy as np

from kws_data.checks import check_whole
from kws_data.draws import Draws, permutation

# So many batches are sorted by length together: more make lengths more alike, fewer shuffle better.
BUCKET_BATCHES = 50
_TIMES = 2**40  # more than the number of examples


class BatchPlan:
    """The order of a split's examples, epoch by epoch.

    Args:
        ids: [examples] int64, the examples' ids.
        batch_size: examples per batch; the last batch of an epoch may be smaller.
        seed: the run's seed; None keeps the order of `ids`.
        lengths: [examples] samples; if given, a batch has clips of similar length.
        labels: [examples]; if given, every label is equally often in an epoch, which keeps its number of clips: some
            clips are used several times, others not at all.
    """

    def __init__(
        self,
        ids: np.ndarray,
        batch_size: int,
        *,
        seed: int | None,
        lengths: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        self.ids = np.asarray(ids, dtype=np.int64)
        self.batch_size = check_whole("batch_size", batch_size, 1)
        self.seed = seed
        self.lengths = lengths
        self.labels = labels
        self.steps_per_epoch = math.ceil(len(self.ids) / batch_size)
        self._epoch_order = functools.lru_cache(maxsize=2)(self._compute_order)

    def epoch_of(self, step: int) -> int:
        """The epoch of `step`, both counted from 0."""
        return step // self.steps_per_epoch

    def batch_ids(self, step: int) -> np.ndarray:
        """The example ids of the batch at `step`, counted from 0 over all epochs: [batch] int64."""
        return self.ids[self._batch(step)[0]]

    def draw_ids(self, step: int) -> np.ndarray:
        """`batch_ids`, but with another id for each repetition of an example in its epoch, so that its draws differ."""
        indices, times = self._batch(step)
        return self.ids[indices] + times * _TIMES

    def _batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(indices into `ids`, how often each was used in this epoch before) of the batch at `step`."""
        epoch, number = divmod(step, self.steps_per_epoch)
        order, times, batch_order = self._epoch_order(epoch)
        start = int(batch_order[number]) * self.batch_size
        return order[start : start + self.batch_size], times[start : start + self.batch_size]

    def _compute_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(indices into `ids`, how often each was used before, order of the batches) for one epoch."""
        times = np.zeros(len(self.ids), np.int64)
        batches = np.arange(self.steps_per_epoch)
        if self.seed is None:
            order = np.arange(len(self.ids))
            if self.lengths is not None:
                order = np.argsort(self.lengths, kind="stable")
            return order, times, batches
        order = permutation(self.seed, epoch, len(self.ids))
        if self.labels is not None:
            order, times = _balanced(order, self.labels, self.seed, epoch)
        if self.lengths is None:
            return order, times, batches
        bucket = self.batch_size * BUCKET_BATCHES
        for start in range(0, len(order), bucket):
            part = slice(start, start + bucket)
            by_length = np.argsort(self.lengths[order[part]], kind="stable")
            order[part], times[part] = order[part][by_length], times[part][by_length]
        keys = Draws(self.seed, epoch, batches).bits("batch order")[:, 0]
        return order, times, np.argsort(keys, kind="stable")


def _balanced(order: np.ndarray, labels: np.ndarray, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """As many indices as in `order`, shuffled, with each label equally often; and how often each was used before.

    If the labels don't divide the number, some have one index more; which ones changes with the epoch.
    """
    present = np.unique(labels)
    shares = [len(part) for part in np.array_split(order, len(present))]
    chosen, times = [], []
    for number, label in enumerate(present):
        indices, share = order[labels[order] == label], shares[(number + epoch) % len(present)]
        chosen.append(np.resize(indices, share))
        times.append(np.arange(share) // len(indices))
    keys = Draws(seed, epoch, np.arange(len(order))).bits("balanced order")[:, 0]
    shuffled = np.argsort(keys, kind="stable")
    return np.concatenate(chosen)[shuffled], np.concatenate(times)[shuffled]
