"""Processes that run a transform on clips, over shared memory.

Each worker is a fresh interpreter that imports no TensorFlow, whatever the main script imports (the children of
`multiprocessing` would import it again). Parent and worker share a few lanes, each a pipe for requests and a piece of
memory for samples; the memory has no name, so it can't outlive them. When the worker's standard input is closed,
be it by the kernel because the parent was killed, the worker ends, even in the middle of a transform.

joblib's workers (loky), which send samples through pipes, were measured against these and are slower.
"""

from __future__ import annotations

import itertools
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing.connection import Connection, Pipe
from multiprocessing.connection import wait as wait_for
from typing import Any

import numpy as np

from kws_data.errors import KwsError
from kws_data.storage.parallel import import_path, signal_name

# With two lanes a worker has its next clips before it finishes the last. Otherwise it would wait while this process,
# which is busy with other things too, copies results out and samples in, and for being woken (0.1 ms on a VM).
_LANES_PER_WORKER = 2
_SECONDS_TO_END = 5.0
_ENVIRONMENT = {
    # A worker is one thread of work; arithmetic libraries would start as many threads as there are cores in each.
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
        "1",
    ),
    # By default glibc returns arrays of a clip's size to the system and gets new memory, zeroed page by page, for every
    # transform. Other systems ignore these.
    **dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(1 << 28)),
}


class WorkerPool:
    """Workers that each build the transform of `config` once.

    Raises:
        KwsError: a worker didn't start.
    """

    def __init__(self, config: Mapping[str, Any], num_workers: int) -> None:
        lanes = _LANES_PER_WORKER * num_workers
        self._executor = ThreadPoolExecutor(lanes, thread_name_prefix="audiomentations")
        self._choosing = threading.Lock()
        self._workers: list[_Worker] = []
        try:
            for number in range(num_workers):
                self._workers.append(_Worker(config, f"worker {number + 1} of {num_workers}"))
            for worker in self._workers:
                worker.wait_until_built()
        except BaseException:
            self.close()
            raise

    def run(self, batch: np.ndarray, rows: np.ndarray, *request: Any) -> None:
        """Run the transform on rows of a batch, in place; may be called from several threads at once.

        Args:
            batch: [batch, samples] int16.
            rows: [clips] indices into it, at least one.
            request: the further arguments of `ClipTransform.run`: arrays of [clips, …], and the sample rate.

        Raises:
            KwsError: a transform failed (of several failures, that of the first clip), or a worker died.
        """
        count = min(len(rows), _LANES_PER_WORKER * len(self._workers))
        bounds = np.linspace(0, len(rows), count + 1).astype(int).tolist()
        *arrays, sample_rate = request
        futures = [
            self._executor.submit(
                self._run_chunk, batch, rows[low:high], [array[low:high] for array in arrays], sample_rate
            )
            for low, high in itertools.pairwise(bounds)
        ]
        wait(futures)
        for future in futures:
            future.result()

    def close(self) -> None:
        """End the workers; a batch that is being processed fails."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.ask_to_end()
        for worker in self._workers:
            worker.end()

    def _run_chunk(self, batch: np.ndarray, rows: np.ndarray, arrays: list[np.ndarray], sample_rate: int) -> None:
        with self._choosing:  # there are as many threads as lanes, so one is idle
            worker = max(self._workers, key=lambda worker: len(worker.idle))
            lane = worker.idle.pop()
        try:
            samples = lane.samples.array((len(rows), batch.shape[1]), grow=True)
            np.take(batch, rows, axis=0, out=samples, mode="clip")  # the default mode would copy twice
            worker.ask(lane, "while it augmented", (samples.shape, arrays, sample_rate))
            batch[rows] = samples
        finally:
            worker.idle.append(lane)


class _Worker:
    """The parent's side of one worker.

    Attributes:
        idle: its lanes that no thread is using.
    """

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self._name = name
        self.idle = [_Lane() for _ in range(_LANES_PER_WORKER)]
        descriptors = [number for lane in self.idle for number in (lane.theirs.fileno(), lane.samples.file)]
        code = f"from kws_data.augment.audiomentations.worker_pool import serve; serve({descriptors})"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=2,  # what a transform prints doesn't belong into a command's output
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": import_path()},
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        for lane in self.idle:
            lane.theirs.close()  # the worker has its own copy
        self.idle[0].connection.send(config)

    def wait_until_built(self) -> None:
        """Wait until it has built the transform; KwsError if it couldn't, or died."""
        self.ask(self.idle[0], "while it started")

    def ask(self, lane: _Lane, during: str, request: Any = None) -> None:
        """Send a request, unless it is None, and wait for the answer; KwsError if that is a failure, or it died."""
        try:
            if request is not None:
                lane.connection.send(request)
            failure = lane.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died(during) from error
        if failure is not None:
            raise KwsError(failure)

    def ask_to_end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> None:
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _died(self, during: str) -> KwsError:
        try:
            status = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            cause = "it closed its connection"
        else:
            cause = f"by {signal_name(-status)}" if status < 0 else f"with exit status {status}"
        return KwsError(
            f"audiomentations: {self._name} died {during}, {cause}: out of memory, or a crash in a transform's own code"
        )


class _SharedSamples:
    """Memory for clips that parent and worker both map, by the descriptor `file`."""

    def __init__(self, file: int) -> None:
        self.file = file
        self._memory: mmap.mmap | None = None

    def array(self, shape: tuple[int, int], *, grow: bool = False) -> np.ndarray:
        """[clips, samples] int16 at the start of the memory, which the parent grows if need be."""
        count = shape[0] * shape[1]
        if self._memory is None or len(self._memory) < 2 * count:
            if grow:
                os.ftruncate(self.file, 2 * count)
            self._memory = mmap.mmap(self.file, 2 * count)
        return np.frombuffer(self._memory, np.int16, count).reshape(shape)


class _Lane:
    """A pipe and shared memory to a worker; used by one thread at a time."""

    def __init__(self) -> None:
        self.connection, self.theirs = Pipe()
        self.samples = _SharedSamples(_anonymous_file())

    def __del__(self) -> None:
        os.close(self.samples.file)


def serve(descriptors: Sequence[int]) -> None:
    """The worker: build the transform, then answer requests until the parent is gone.

    Args:
        descriptors: of the pipe and the memory of each lane.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from kws_data.augment.audiomentations.transform import ClipTransform

    lanes = {
        Connection(pipe): _SharedSamples(file) for pipe, file in zip(descriptors[::2], descriptors[1::2], strict=True)
    }
    first = next(iter(lanes))
    try:
        try:
            transform = ClipTransform(first.recv(), owns_process=True)
        except ValueError as error:  # the parent could build it: something changed on disk
            first.send(f"audiomentations: {error}")
            return
        first.send(None)
        while True:
            ready = wait_for(list(lanes))
            for connection in [pipe for pipe in lanes if pipe in ready]:
                shape, (lengths, ids, seeds), sample_rate = connection.recv()
                failure = None
                try:
                    transform.run(lanes[connection].array(shape), lengths, ids, seeds, sample_rate)
                except KwsError as error:
                    failure = str(error)
                connection.send(failure)
    except (EOFError, OSError):  # the parent is gone
        return


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


def _anonymous_file() -> int:
    """A descriptor of memory without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("clips")
    with tempfile.TemporaryFile() as file:  # macOS: a mapped file that is already deleted
        return os.dup(file.fileno())
