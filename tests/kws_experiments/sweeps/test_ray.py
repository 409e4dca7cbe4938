"""Whole sweeps by Ray, as a user starts them: jobs that fail, are stopped and are killed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kws_experiments.config.exit import STATUS_STOPPED
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.sweep_record import DONE, FAILED, STOPPED, find_sweep
from tests.kws_experiments.sweeps.whole import data, histories, wait_for
from tests.kws_experiments.test_train import only_run, start, train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_cache")]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray cluster of two machines with one processor each, as far as Ray can tell."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    if sys.platform == "darwin":
        monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    from ray.cluster_utils import Cluster

    machine = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    machines = Cluster(initialize_head=True, head_node_args=machine)
    try:
        machines.add_node(**machine)
        yield machines.address
    finally:
        machines.shutdown()


def trainings(folder: Path) -> list[psutil.Process]:
    """The processes that train jobs of a sweep."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "kws_experiments.sweeps.child" in (words := process.info["cmdline"] or [])
        and words[-1].startswith(str(folder))
    ]


RAY = ["trainer.epochs=null", "trainer.steps=150", "trainer.eval_every=5", "trainer.checkpoint_every=25"]


def test_a_job_of_ray_whose_worker_is_killed_goes_on(place: Path, tmp_path: Path, cluster: str) -> None:
    process = start(
        tmp_path, "-m", *data(place), *RAY, "seed=1,2", "hydra/launcher=ray", f"hydra.launcher.address={cluster}",
    )  # fmt: skip
    wait_for(lambda: len(histories(tmp_path)) == 2)

    trainings(tmp_path)[0].parent().kill()

    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    sweep = find_sweep(tmp_path)
    assert (sweep.status, sweep.launcher, [job.status for job in sweep.jobs]) == (DONE, "ray", [DONE] * 2)
    (resumed,) = [
        job for job in sweep.jobs if job.folder and "resuming at step" in (job.folder / "output.log").read_text()
    ]
    assert f"job {resumed.number}: its worker died (WorkerCrashedError); it is started again (1 of 3)" in output
    assert all(f"job {number}: accuracy" in output for number in range(2))
    assert "Traceback" not in output
    assert "raylet" not in output
    (tmp_path / "alone").mkdir()
    train(tmp_path / "alone", *data(place), *RAY, f"seed={resumed.number + 1}")
    assert resumed.folder is not None
    ours, theirs = (RunFolder(run).read_record() for run in (resumed.folder, only_run(tmp_path / "alone")))
    assert ours is not None
    assert theirs is not None
    assert ours["weights_sha256"] == theirs["weights_sha256"]
    assert ours["fingerprint"] == theirs["fingerprint"]


def test_ray_is_stopped_and_leaves_nothing_behind(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = ["-m", *data(place), *RAY, "seed=1,2", "hydra/launcher=ray", "hydra.launcher.max_retries=0"]
    process = start(tmp_path, *command)
    wait_for(lambda: histories(tmp_path))
    of_ray = psutil.Process(process.pid).children(recursive=True)

    process.send_signal(signal.SIGINT)

    output, _ = process.communicate(timeout=100)
    assert process.returncode == STATUS_STOPPED, output
    assert "stopping: the jobs save their state" in output
    assert "the same command does what is missing" in output
    assert "Traceback" not in output
    assert len(of_ray) > 3
    assert not psutil.wait_procs(of_ray, timeout=30)[1]
    stopped = find_sweep(tmp_path)
    assert stopped.status == STOPPED
    assert {job.status for job in stopped.jobs} == {STOPPED}

    process = start(tmp_path, *command)
    wait_for(lambda: trainings(tmp_path))
    process.kill()  # nobody is left to say so, but the jobs notice, save their state and end
    process.communicate(timeout=100)
    wait_for(lambda: not trainings(tmp_path))

    output = train(tmp_path, *command)
    done = find_sweep(tmp_path)
    assert (done.status, [job.status for job in done.jobs]) == (DONE, [DONE] * 2)
    assert "resuming at step" in "".join(log.with_name("output.log").read_text() for log in histories(tmp_path))


def test_ray_is_stopped_while_it_starts(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    process = start(tmp_path, "-m", *data(place), *RAY, "seed=1,2", "hydra/launcher=ray")
    of_train = psutil.Process(process.pid)
    wait_for(lambda: any("raylet" in " ".join(child.cmdline()) for child in of_train.children()))
    of_ray = of_train.children(recursive=True)

    process.send_signal(signal.SIGINT)

    output, _ = process.communicate(timeout=100)
    assert process.returncode == STATUS_STOPPED, output
    assert output == "stopping: the jobs save their state (Ctrl-C again: at once)\nstopped\n"
    assert not psutil.wait_procs(of_ray, timeout=30)[1]
    assert not list(tmp_path.glob("runs/*"))


def test_a_search_by_ray_tells_of_failed_jobs(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("optuna")

    output = train(
        tmp_path, "-m", *data(place), "trainer=quick", "hydra/sweeper=optuna", "model.filters=-8,8",
        "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2", "hydra/launcher=ray", status=1,
    )  # fmt: skip

    assert [(job.number, job.status) for job in find_sweep(tmp_path).jobs] == [(1, FAILED), (2, DONE)]
    assert "job 1 failed: model.filters" in output
    assert "best: job 0, validation_accuracy" in output
    assert "job 2: accuracy" in output  # it found the run of job 0
