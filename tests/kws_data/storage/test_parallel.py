from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import psutil
import pytest

from kws_data.storage import parallel
from tests.conftest import ROOT


class Doubled:
    def __call__(self, items: Sequence[int]) -> list[int]:
        return [2 * item for item in items]


@pytest.mark.parametrize("small_job", [0, 1000])
def test_chunks_come_in_order_from_workers_as_from_this_process(
    small_job: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "SMALL_JOB", small_job)
    monkeypatch.setattr(parallel, "available_cpus", lambda: 2)
    results = list(parallel.map_chunks(Doubled(), list(range(20)), "doubling", chunk=3))
    assert [len(result) for result in results] == [3, 3, 3, 3, 3, 3, 2]
    assert [value for result in results for value in result] == list(range(0, 40, 2))


PARENT = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # not as in a script's background
from kws_data.storage import parallel
from kws_experiments.config.exit import one_line_errors

parallel.available_cpus = lambda: 2

def work(items):
    print(os.getpid(), flush=True)
    time.sleep(600)
    return len(items)

with one_line_errors():
    list(parallel.map_chunks(work, range(parallel.SMALL_JOB), "working", chunk=1000))
"""
SECONDS_TO_END = 10


@pytest.fixture
def working() -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A process with workers that have begun to work, a group of its own, and the workers."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        workers = [psutil.Process(int(process.stdout.readline())) for _ in range(2)]
        yield process, workers
        process.kill()
        for worker in workers:
            if worker.is_running():
                worker.kill()


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(working: tuple[subprocess.Popen[str], list[psutil.Process]]) -> None:
    process, workers = working
    process.kill()
    _, alive = psutil.wait_procs(workers, SECONDS_TO_END)
    assert alive == []


@pytest.mark.slow
def test_ctrl_c_is_one_line_of_the_parent(working: tuple[subprocess.Popen[str], list[psutil.Process]]) -> None:
    process, workers = working
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "stopped\n")
    assert psutil.wait_procs(workers, SECONDS_TO_END)[1] == []


def test_a_process_that_ends_at_once_leaves_no_warnings() -> None:
    """As Ctrl-C ends it where an interrupt is lost, in a destructor; joblib's workers are cleaned up after it."""
    script = """
import os
from kws_data.storage.parallel import SMALL_JOB, map_chunks
results = map_chunks(len, range(2 * SMALL_JOB), "", SMALL_JOB // 4)
next(results)
os._exit(130)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (130, "")  # its end closes this pipe only after the clean-up
