"""Processes that run a transform on clips, over shared memory.

Each worker is a fresh interpreter that imports no TensorFlow, whatever the main script imports (as `multiprocessing`'s
children would). It shares with its parent some lanes, each a pipe for requests and a piece of anonymous memory for
samples, which has no name that could outlive them both, and its standard input: once the other end of that is closed,
be it by the kernel because the parent was killed, the worker ends, even in the middle of a transform.
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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing.connection import Connection, Pipe
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import numpy as np

from kws_data.errors import KwsError

# A worker has its next clips before it is done with the last: else it would wait while this process, which is busy
# with other things too, copies results out and samples in, and for being woken up (0.1 ms on a virtual machine).
_LANES_PER_WORKER = 2
_SECONDS_TO_END = 5.0
# Each worker is one thread of work; arithmetic libraries would start as many threads as there are cores in each.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
# A clip's arrays are larger than what glibc keeps by default: it would give them back to the system and take them anew,
# zeroed page by page, for every transform. Other systems pass these by.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 28), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}


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
            rows: [clips], at least one, which rows of it.
            request: the further arguments of `ClipTransform.run`, arrays of [clips, …] but for the sample rate.

        Raises:
            KwsError: a transform failed (of several, that of the first clip), or a worker died.
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
        """End the workers; a batch that is under way fails."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.ask_to_end()
        for worker in self._workers:
            worker.end()

    def _run_chunk(self, batch: np.ndarray, rows: np.ndarray, arrays: list[np.ndarray], sample_rate: int) -> None:
        with self._choosing:  # as many threads as lanes: there is one
            worker = max(self._workers, key=lambda worker: len(worker.idle))
            lane = worker.idle.pop()
        try:
            worker.run(lane, batch, rows, arrays, sample_rate)
        finally:
            worker.idle.append(lane)


class _Worker:
    """The parent's side of one worker.

    Attributes:
        idle: those of its lanes that no thread uses.
    """

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self._name = name
        self.idle = [_Lane() for _ in range(_LANES_PER_WORKER)]
        descriptors = [descriptor for lane in self.idle for descriptor in lane.descriptors()]
        code = f"from kws_data.augment.audiomentations.worker_pool import serve; serve({descriptors})"
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=2,  # what a transform prints doesn't belong into a command's output
            env=os.environ | _ONE_THREAD | _KEEP_MEMORY | {"PYTHONPATH": path},
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        for lane in self.idle:
            lane.started()
        self.idle[0].connection.send(config)

    def wait_until_built(self) -> None:
        """Wait for its word that it could build the transform.

        Raises:
            KwsError: it couldn't, or died.
        """
        self._answer("while it started", self.idle[0].connection.recv)

    def run(self, lane: _Lane, batch: np.ndarray, rows: np.ndarray, arrays: list[np.ndarray], sample_rate: int) -> None:
        """As `WorkerPool.run`, over one of this worker's lanes."""
        shared = lane.samples((len(rows), batch.shape[1]))
        np.take(batch, rows, axis=0, out=shared, mode="clip")  # the default mode would copy twice
        self._answer("while it augmented", lambda: lane.ask(shared.shape, arrays, sample_rate))
        batch[rows] = shared

    def _answer(self, during: str, ask: Callable[[], str | None]) -> None:
        try:
            failure = ask()
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
            cause = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        return KwsError(
            f"audiomentations: {self._name} died {during}, {cause}: out of memory, or a crash in a transform's own code"
        )


class _Lane:
    """A pipe and shared memory to a worker; used by one thread at a time."""

    def __init__(self) -> None:
        self.connection, self._theirs = Pipe()
        self._memory_file = _anonymous_file()
        self._memory: mmap.mmap | None = None

    def descriptors(self) -> tuple[int, int]:
        """The worker's ends: of the pipe, and the memory."""
        return self._theirs.fileno(), self._memory_file

    def started(self) -> None:
        """The worker has its own copies of the descriptors."""
        self._theirs.close()

    def samples(self, shape: tuple[int, int]) -> np.ndarray:
        """Room for clips in the shared memory: [clips, samples] int16."""
        size = 2 * shape[0] * shape[1]
        if self._memory is None or len(self._memory) < size:
            os.ftruncate(self._memory_file, size)
            self._memory = mmap.mmap(self._memory_file, size)
        return np.frombuffer(self._memory, np.int16, shape[0] * shape[1]).reshape(shape)

    def ask(self, *request: Any) -> str | None:
        """Have the clips there changed; why that failed, if it did.

        Raises:
            EOFError, OSError: the worker is gone.
        """
        self.connection.send(request)
        return self.connection.recv()

    def __del__(self) -> None:
        os.close(self._memory_file)


def serve(descriptors: Sequence[int]) -> None:
    """What a worker does: build the transform, then answer requests until the parent is gone.

    Args:
        descriptors: of each lane's pipe and memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from kws_data.augment.audiomentations.transform import ClipTransform

    pipes = [Connection(pipe) for pipe in descriptors[::2]]
    memory_files = dict(zip(pipes, descriptors[1::2], strict=True))
    memories: dict[Any, mmap.mmap] = {}
    first = pipes[0]
    try:
        try:
            transform = ClipTransform(first.recv(), owns_process=True)
        except ValueError as error:  # the parent could build it: something changed on disk
            first.send(f"audiomentations: {error}")
            return
        first.send(None)
        while True:
            ready = wait_for(pipes)
            for connection in (pipe for pipe in pipes if pipe in ready):
                shape, (lengths, ids, seeds), sample_rate = connection.recv()
                size = 2 * int(np.prod(shape))
                if connection not in memories or len(memories[connection]) < size:
                    memories[connection] = mmap.mmap(memory_files[connection], size)
                failure = None
                try:
                    pcm = np.frombuffer(memories[connection], np.int16, size // 2).reshape(shape)
                    transform.run(pcm, lengths, ids, seeds, sample_rate)
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
    with tempfile.TemporaryFile() as file:  # macOS: a file that is already deleted, mapped
        return os.dup(file.fileno())
