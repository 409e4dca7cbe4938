"""A split's features on disk, computed once for all runs that evaluate on the same samples with the same front end."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from filelock import Timeout

from kws_data.features.base import FeatureLayer
from kws_data.pipeline import ClipSource, evaluation_batches, evaluation_plan, host_batches
from kws_data.storage.atomic import lock_for, replace_dir
from kws_data.storage.cache import features_dir
from kws_data.storage.seal import is_intact, seal

log = logging.getLogger(__name__)

_BATCHES = "batches"  # prefix of the file names
_LOOK_S = 0.5  # how often a thread that waits for another run looks whether it should stop


class CachedBatches:
    """The bits of `pipeline.evaluation_batches`, read from the cache folder once any run has computed them.

    A thread looks them up, or computes them, from the start on, so that training can start meanwhile; the first
    iteration waits for it, and raises what it raised. Leaving the context stops it; nothing half-written is kept.

    Args:
        source: fills batches with samples.
        split: the split of the examples.
        features: a built feature layer.
        identity: plain data of what else the bits depend on: the layer's configuration and code, and the machine's
            arithmetic. The samples and the layer's weights are hashed here.
        threads: batches computed at once; changes nothing but speed.
        in_memory: whether the first iteration keeps them in memory for the next ones.
    """

    def __init__(
        self,
        source: ClipSource,
        split: str,
        features: FeatureLayer,
        identity: Any,
        *,
        threads: int,
        in_memory: bool = False,
    ) -> None:
        self._batches = evaluation_batches(source, split, features, threads=threads)
        self.element_spec = self._batches.element_spec
        plan = evaluation_plan(source, split)
        self._samples = host_batches(source, split, plan, steps=plan.steps_per_epoch, threads=threads)
        # the same samples may have one length for all, or each its own
        self._names = [json.dumps([identity, repr(self.element_spec)], sort_keys=True).encode()]
        self._names += [np.asarray(weight).tobytes() for weight in features.weights]
        self._in_memory = in_memory
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, "features")

    def __enter__(self) -> CachedBatches:
        self._made = self._thread.submit(self._make)
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.shutdown()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.dataset())

    def dataset(self) -> tf.data.Dataset:
        """The batches; waits until they can be read."""
        return self._made.result()

    def _make(self) -> tf.data.Dataset:
        batches = self._kept()
        return batches.cache() if self._in_memory else batches

    def _kept(self) -> tf.data.Dataset:
        folder = features_dir() / self._key()
        try:
            with self._locked(folder):
                if not is_intact(folder):
                    if folder.is_dir():
                        log.warning("'%s' is damaged: its features are computed again", folder)
                    with replace_dir(folder) as temporary:
                        for _ in self._until_stopped(self._batches.cache(str(temporary / _BATCHES))):
                            pass
                        seal(temporary)
        except (OSError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:200]
            log.warning("'%s': can't cache features there; they are computed for this run only (%s)", folder, reason)
            return self._batches
        return self._batches.cache(str(folder / _BATCHES))

    def _key(self) -> str:
        """16 hex digits that name the features. The samples are hashed, so whatever they depend on is included."""
        digest = hashlib.blake2b(digest_size=8)
        for name in self._names:
            digest.update(name)
        for batch in self._until_stopped(self._samples.as_numpy_iterator()):
            for name, values in sorted(batch.items()):
                digest.update(f"{name} {values.shape}".encode())
                digest.update(values.tobytes())
        return digest.hexdigest()

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """Hold the folder's lock; another run may hold it for as long as it computes the same features."""
        lock = lock_for(folder, timeout_s=_LOOK_S)
        for _ in self._until_stopped(itertools.repeat(None)):
            with suppress(Timeout), lock:
                yield
                return

    def _until_stopped(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if self._stop.is_set():
                raise _StoppedError
            yield item


class _StoppedError(Exception):
    """Nobody waits for the features any more."""
