"""Which examples stand in which batch: a pure function of (seed, epoch), so that any step can be computed alone."""

from __future__ import annotations

import functools
import math

import numpy as np

from kws_data.draws import Draws, permutation

# Batches whose examples are sorted by length together; more sorts finer, fewer shuffles better.
BUCKET_BATCHES = 50


class BatchPlan:
    """The order of a split's examples, epoch by epoch.

    Args:
        ids: [examples] int64, the examples' ids.
        batch_size: examples per batch; an epoch's last batch may be smaller.
        seed: the run's seed; None keeps the order as it is.
        lengths: [examples] samples, given where batches shall hold clips of similar length.
        labels: [examples], given where an epoch, of as many clips as there are, shall hold every label equally often:
            some clips several times (augmented alike), others not.
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
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.ids = np.asarray(ids, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.lengths = lengths
        self.labels = labels
        self.steps_per_epoch = math.ceil(len(self.ids) / batch_size)
        self._epoch_order = functools.lru_cache(maxsize=2)(self._compute_order)

    def epoch_of(self, step: int) -> int:
        """The epoch that `step` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def batch_ids(self, step: int) -> np.ndarray:
        """The example ids of the batch at `step`, counted from 0 over all epochs: [batch] int64."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order, batch_order = self._epoch_order(epoch)
        start = int(batch_order[place]) * self.batch_size
        return self.ids[order[start : start + self.batch_size]]

    def _compute_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(places in `ids`, order of the batches) for one epoch."""
        batches = np.arange(self.steps_per_epoch)
        if self.seed is None:
            order = np.arange(len(self.ids))
            if self.lengths is not None:
                order = np.argsort(self.lengths, kind="stable")
            return order, batches
        order = permutation(self.seed, epoch, len(self.ids))
        if self.labels is not None:
            order = _balanced(order, self.labels, self.seed, epoch)
        if self.lengths is None:
            return order, batches
        bucket = self.batch_size * BUCKET_BATCHES
        for start in range(0, len(order), bucket):
            part = order[start : start + bucket]
            order[start : start + bucket] = part[np.argsort(self.lengths[part], kind="stable")]
        keys = Draws(self.seed, epoch, batches).bits("batch order")[:, 0]
        return order, np.argsort(keys, kind="stable")


def _balanced(order: np.ndarray, labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many places as in `order`, of each label equally many (one more for some, others in each epoch), shuffled."""
    present = np.unique(labels)
    shares = [len(part) for part in np.array_split(order, len(present))]
    chosen = [
        np.resize(order[labels[order] == label], shares[(place + epoch) % len(present)])
        for place, label in enumerate(present)
    ]
    keys = Draws(seed, epoch, np.arange(len(order))).bits("balanced order")[:, 0]
    return np.concatenate(chosen)[np.argsort(keys, kind="stable")]
