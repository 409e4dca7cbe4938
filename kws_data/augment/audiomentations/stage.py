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
from kws_data.draws import Draws
from kws_data.errors import KwsError


class Audiomentations(WaveformStage):
    """Run an audiomentations transform, or a whole `Compose`, on each clip.

    audiomentations draws from the process's global generators. They are seeded anew for every clip, so that what a clip
    gets depends on (seed, epoch, example id) alone, whatever the number of workers and whichever clips stand beside it.
    A transform of one's own must draw from `random` or `numpy.random` for the same to hold.

    - Rows of the silence class stay as they are: the level and kind of their noise is what makes the class.
    - A transform sees the clip's own samples, without padding. One that changes the length is cut, or zero-filled, back
      to it: lengths never change.
    - What a transform lets go beyond [-1, 1] is clipped, since the batch is int16; end with `audiomentations.Normalize`
      (`apply_to: only_too_loud_sounds`) to scale it down instead.

    Args:
        transform: a mapping with `_target_` and parameters, nested as YAML has it; it is built in each worker, so
            `_recursive_: false` stands beside it.
        num_workers: processes to run it in; they start at the first batch and end with `close` or with this process.
            With 0 it runs in this process, which restores the generators' states after each batch; a thread that draws
            from them meanwhile would disturb it.

    Raises:
        ValueError: no such class or parameter, or a value that a transform refuses.
    """

    def __init__(self, transform: Mapping[str, Any], num_workers: int = 1) -> None:
        if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
            raise ValueError(f"num_workers must be a whole number, at least 0, got {num_workers}")
        self.num_workers = num_workers
        self._config = transform
        self._transform = ClipTransform(transform)  # with workers too, so that what is wrong with it shows at once
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
        """End the workers; the stage can't be used any more."""
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
                weakref.finalize(self, self._pool.close)  # for those who forget, and at the interpreter's end
            return self._pool
