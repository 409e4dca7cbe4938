"""Which GPU each job of a sweep gets: the environment variable of its child process."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from kws_experiments.runs.sweep_record import DONE, SweepFolder
from kws_experiments.sweeps import run_job
from kws_experiments.sweeps.gpus import VISIBLE, count_gpus, one_gpu, shared_gpus

GPU = "GPU 0: NVIDIA H100 (UUID: GPU-1a)\\n  MIG 1g.10gb Device 0: (UUID: MIG-2b)\\n"  # as `nvidia-smi -L` lists one


def machine_with(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an nvidia-smi in front of the machine's own, and clear what a scheduler may have set."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name in (VISIBLE, "SLURM_JOB_ID", "RAY_JOB_ID", "RAY_RAYLET_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(tmp_path, monkeypatch, f"printf '{4 * GPU}'")


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path / "sweep")
    folder.path.mkdir()
    return folder


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("environment", "gpus"),
    [
        ({}, ["0", "1", "2", "3"]),
        ({VISIBLE: "3, 1"}, ["3", "1"]),
        ({VISIBLE: "GPU-1a,MIG-2b"}, ["GPU-1a", "MIG-2b"]),
        ({VISIBLE: "0,2,-1,3"}, ["0", "2"]),
        ({VISIBLE: "1,0,9"}, ["1", "0"]),
        ({VISIBLE: "2"}, []),
        ({VISIBLE: ""}, []),
        ({VISIBLE: "-1"}, []),
        ({VISIBLE: "2,"}, []),
        ({VISIBLE: "0,1", "SLURM_JOB_ID": "7"}, []),
        ({VISIBLE: "0,1", "RAY_JOB_ID": "01"}, []),
    ],
)
def test_gpus_that_jobs_share_out(environment: dict[str, str], gpus: list[str]) -> None:
    assert shared_gpus(environment) == gpus


@pytest.mark.parametrize("script", ["exit 6", "echo 'No devices found'"])
def test_without_a_gpu_nothing_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, sweep: SweepFolder
) -> None:
    machine_with(tmp_path, monkeypatch, script)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [])  # no /dev/nvidia0
    assert count_gpus() == 0
    for environment in ({}, {VISIBLE: "0,1"}):
        assert shared_gpus(environment) == []
    with one_gpu(0, sweep.path) as gpu:
        assert gpu == {}


def visible_in_child(number: int, folder: Path, sweep: SweepFolder) -> str:
    """What the job's child process, which prints it, says of the variable."""
    folder.mkdir(exist_ok=True)
    assert run_job._train_in_child({}, folder, sweep, number, launcher=None) == (DONE, None)
    return (folder / "output.log").read_text().splitlines()[-1]


@pytest.fixture
def printing_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process that doesn't train but print the variable."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "printing.py").write_text(f"import os\nprint(os.environ.get('{VISIBLE}'))\n")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setattr(run_job, "child", SimpleNamespace(__name__="printing", send=lambda config, pipe: None))


@pytest.mark.usefixtures("four_gpus", "printing_child")
def test_each_child_sees_one_gpu_by_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: SweepFolder) -> None:
    assert [visible_in_child(number, tmp_path / "run", sweep) for number in range(6)] == list("012301")
    monkeypatch.setenv(VISIBLE, "3,1")
    assert [visible_in_child(number, tmp_path / "run", sweep) for number in range(3)] == list("313")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert visible_in_child(0, tmp_path / "run", sweep) == "3,1"


@pytest.mark.usefixtures("printing_child")
def test_a_child_without_a_gpu_sees_what_its_sweep_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: SweepFolder
) -> None:
    machine_with(tmp_path, monkeypatch, "echo 'No devices found'")
    assert visible_in_child(1, tmp_path / "run", sweep) == "None"


@pytest.mark.usefixtures("four_gpus")
def test_jobs_at_once_have_different_gpus_while_there_are_any(sweep: SweepFolder) -> None:
    with one_gpu(0, sweep.path) as first, one_gpu(4, sweep.path) as fifth, one_gpu(2, sweep.path) as third:
        assert [gpu[VISIBLE] for gpu in (first, fifth, third)] == ["0", "1", "2"]
        with one_gpu(5, sweep.path) as fourth, one_gpu(9, sweep.path) as more:
            assert (fourth[VISIBLE], more[VISIBLE]) == ("3", "1")  # all are taken: by turns
    with one_gpu(4, sweep.path) as again:
        assert again[VISIBLE] == "0"
