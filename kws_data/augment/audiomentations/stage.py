"""Any transform of audiomentations, in worker processes ahead of the graph."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from kws_data.augment.audiomentations.transform import DRAWS_PER_CLIP, ClipTransform
from kws_data.augment.audiomentations.worker_pool import WorkerPool
from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.checks import check_whole
from kws_data.draws import Draws
from kws_data.errors import KwsError


class Audiomentations(WaveformStage):
    """Run an audiomentations transform, or a whole `Compose`, on each clip.

    audiomentations draws from the process's global generators. They are seeded for every clip, so that its augmentation
    depends on (seed, epoch, example id) alone, not on the number of workers or on the other clips of the batch. Your
    own transforms must draw from `random` or `numpy.random` for this to hold.

    - Rows of the silence class stay as they are: the level and kind of their noise is what makes the class.
    - A transform gets the clip's own samples, without padding. Lengths never change: a longer result is cut, a shorter
      one filled with zeros.
    - Samples beyond [-1, 1] are clipped, since the batch is int16; end with `audiomentations.Normalize`
      (`apply_to: only_too_loud_sounds`) to scale such clips down instead.

    Args:
        transform: a mapping with `_target_` and parameters, nested as in YAML. Each worker builds it, so the
            configuration needs `_recursive_: false` beside it.
        num_workers: worker processes; they start at the first batch and end with `close` or with this process. With 0
            the transform runs in this process, and the generators' states are restored after each batch; another thread
            that draws from them meanwhile would disturb it.

    Raises:
        ValueError: no such class or parameter, or a value that a transform refuses.
    """

    def __init__(self, transform: Mapping[str, Any], num_workers: int = 1) -> None:
        self.num_workers = check_whole("num_workers", num_workers, 0)
        self._config = transform
        self._transform = ClipTransform(transform)  # built here too, so that errors in it show at once
        self._pool: WorkerPool | None = None
        self._closed = False
        self._starting = threading.Lock()

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """Change `batch.pcm` in place; may be called from several threads at once.

        Raises:
            KwsError: a transform failed (the message names it and the clip), or a worker died.
        """
        chosen = np.flatnonzero(~batch.silence & (batch.lengths > 0))
        if len(chosen) == 0:
            return {}
        seeds = draws.bits("audiomentations", DRAWS_PER_CLIP)[chosen]
        request = batch.lengths[chosen], batch.ids[chosen], seeds, context.sample_rate
        if self.num_workers:
            self._started_pool().run(batch.pcm, chosen, *request)
        else:
            pcm = batch.pcm[chosen]
            self._transform.run(pcm, *request)
            batch.pcm[chosen] = pcm
        return {}

    def close(self) -> None:
        """End the workers; the stage can't be used afterwards."""
        with self._starting:
            self._closed = True
            if self._pool is not None:
                self._pool.close()

    def _started_pool(self) -> WorkerPool:
        with self._starting:
            if self._closed:
                raise KwsError("audiomentations: the stage has been closed; build another one")
            if self._pool is None:
                self._pool = WorkerPool(self._config, self.num_workers)
                weakref.finalize(self, self._pool.close)  # if `close` is forgotten, and at exit
            return self._pool
