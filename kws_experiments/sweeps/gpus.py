"""Which GPU a job of a sweep gets: each child process sees one, by turns."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from filelock import Timeout

from kws_data.storage.atomic import lock_for

VISIBLE = "CUDA_VISIBLE_DEVICES"
_SCHEDULERS = ("SLURM_JOB_ID", "RAY_JOB_ID", "RAY_RAYLET_PID")  # set by what gives out GPUs itself
_TIMEOUT_S = 30  # nvidia-smi loads the driver where nothing else keeps it loaded


@contextmanager
def one_gpu(number: int, folder: Path) -> Iterator[dict[str, str]]:
    """The environment variable that gives a job its GPU; empty where there is nothing to share out.

    The GPU is the job's number modulo their count, or the next one that no running job of the sweep has. Where more
    jobs run at once than there are GPUs, some share one.

    Args:
        number: of the job.
        folder: of the sweep; holds a lock file for each GPU.
    """
    gpus = shared_gpus(os.environ)
    if not gpus:
        yield {}
        return
    first = number % len(gpus)
    for gpu in [*gpus[first:], *gpus[:first]]:
        try:
            lock = lock_for(folder / f"gpu-{gpu}", timeout_s=0).acquire()
        except Timeout:
            continue
        with lock:
            yield {VISIBLE: gpu}
        return
    yield {VISIBLE: gpus[first]}


def shared_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that jobs share out, as CUDA_VISIBLE_DEVICES names them; empty where that variable stays as it is.

    It stays where SLURM or Ray has started this process, where it names one GPU or none already, and without a GPU.
    """
    chosen = environment.get(VISIBLE)
    if any(name in environment for name in _SCHEDULERS) or (chosen is not None and "," not in chosen):
        return []
    count = count_gpus()
    if chosen is None:
        return [str(index) for index in range(count)]

    def exists(name: str) -> bool:
        """Whether it may be a GPU's index or UUID; at the first that isn't, CUDA stops reading."""
        return int(name) < count if name.isdigit() else count > 0 and name[:1].isalpha()

    gpus = list(takewhile(exists, (name.strip() for name in chosen.split(","))))
    return gpus if len(gpus) > 1 else []


def count_gpus() -> int:
    """How many NVIDIA GPUs the machine has, without TensorFlow, which would take memory on each of them."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return len(list(Path("/dev").glob("nvidia[0-9]*")))
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())
