"""Stateless random draws: a value is a function of (seed, epoch, example id, stage) and of nothing else.

Batches are therefore the same whatever the number of threads or workers, and a resumed run draws what the unbroken
one would have drawn. The generator is counter-based: the key is hashed with the finaliser of SplitMix64 (Steele, Lea
and Flood, 'Fast splittable pseudorandom number generators', OOPSLA 2014; constants of variant 13 by D. Stafford), which
NumPy does for a whole batch at once. Seeding one `numpy.random.Generator` per clip would cost 50 times as much.
"""

from __future__ import annotations

import copy
import hashlib

import numpy as np

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53  # the top 53 bits make a float64 in [0, 1)


def _mix(z: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser on uint64, elementwise; wraps modulo 2^64 as intended."""
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def _absorb(state: np.ndarray, value: np.ndarray) -> np.ndarray:
    return _mix((state + _GOLDEN_GAMMA) ^ _mix(value + _GOLDEN_GAMMA))


def text_key(text: str) -> np.uint64:
    """A 64-bit key of a name, the same in every process (Python's own `hash` is salted)."""
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


class Draws:
    """The random numbers of one batch of examples in one epoch.

    Args:
        seed: the run's seed (or the data seed, for what must not change between runs).
        epoch: which pass over the data; evaluation always uses 0.
        ids: [batch] int64, the examples' ids.
    """

    def __init__(self, seed: int, epoch: int, ids: np.ndarray) -> None:
        key = np.array([seed, epoch], dtype=np.int64).view(np.uint64)
        run = _absorb(_absorb(np.zeros(1, np.uint64), key[:1]), key[1:])
        self.ids = np.asarray(ids, dtype=np.int64)
        self._state = _absorb(run, self.ids.view(np.uint64))

    def of(self, name: str) -> Draws:
        """Independent draws for the same examples, one set for each name."""
        other = copy.copy(self)
        other._state = _absorb(self._state, np.array([text_key(name)]))
        return other

    def bits(self, stage: str, count: int = 1) -> np.ndarray:
        """[batch, count] uint64, uniform; another `stage` gives independent numbers."""
        state = _absorb(self._state, np.array([text_key(stage)]))[:, None]
        counters = np.arange(1, count + 1, dtype=np.uint64)
        return _mix(state + counters * _GOLDEN_GAMMA)

    def uniform(self, stage: str, count: int = 1) -> np.ndarray:
        """[batch, count] float64, uniform in [0, 1)."""
        return (self.bits(stage, count) >> np.uint64(11)).astype(np.float64) * _TO_UNIT

    def integers(self, stage: str, high: np.ndarray | int) -> np.ndarray:
        """[batch] int64, uniform in [0, high); `high` may differ from clip to clip and is at least 1."""
        return np.floor(self.uniform(stage)[:, 0] * high).astype(np.int64)


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of `count` examples in `epoch`: [count] int64."""
    keys = Draws(seed, epoch, np.arange(count)).bits("order")[:, 0]
    return np.argsort(keys, kind="stable")


def text_order(texts: list[str], seed: int, stage: str) -> np.ndarray:
    """A seeded shuffle in which the sort key of a text depends on the text alone: adding files moves no others."""
    ids = np.array([text_key(text) for text in texts], dtype=np.uint64).view(np.int64)
    return np.argsort(Draws(seed, 0, ids).bits(stage)[:, 0], kind="stable")
