"""The launcher for Ray, without a cluster: its settings, its messages, and what a job gets of the command."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from kws_data.errors import KwsError
from kws_experiments.config.compose import CONF, register_resolvers
from kws_experiments.runs.sweep_record import FAILED, RUNNING, Job, SweepFolder
from kws_experiments.sweeps import ray_launcher
from kws_experiments.sweeps.gpus import VISIBLE, shared_gpus
from kws_experiments.sweeps.ray_launcher import RayLauncher, _Command
from tests.kws_experiments.sweeps.test_sweeps import begun

RAY = "hydra/launcher=ray"


def composed(*overrides: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [RAY, *overrides], return_hydra_config=True)


def launcher(*overrides: str) -> RayLauncher:
    """As Hydra makes it."""
    pytest.importorskip("ray")
    made = Plugins.instance().instantiate_launcher(
        hydra_context=None,  # type: ignore[arg-type]
        task_function=lambda config: None,
        config=composed(*overrides),
    )
    assert isinstance(made, RayLauncher)
    return made


def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(KwsError, match=r"^hydra/launcher=ray needs the extra 'ray': pip install -e '\.\[ray\]'$"):
        RayLauncher(None, 1, 0, 3).setup(hydra_context=None, task_function=None, config=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("address=ray://head:10001", "hydra.launcher.address must be host:port of a Ray cluster, without ray://, or"),
        ("address=auto", "hydra.launcher.address must be host:port"),
        ("cpus_per_task=0", "hydra.launcher.cpus_per_task must be a whole number at least 1, got 0"),
        ("cpus_per_task=1.5", "hydra.launcher.cpus_per_task must be a whole number"),
        ("cpus_per_task=null", "hydra.launcher.cpus_per_task must be a whole number"),
        ("gpus_per_task=-1", "hydra.launcher.gpus_per_task must be a number at least 0"),
        ("gpus_per_task=1.5", "hydra.launcher.gpus_per_task must be a part of one, or a whole number, got 1.5"),
        ("max_retries=-1", "hydra.launcher.max_retries must be a whole number at least 0, got -1"),
    ],
)
def test_a_wrong_setting_is_one_line_before_a_job_is_begun(override: str, line: str) -> None:
    with pytest.raises(KwsError) as caught:
        launcher(f"hydra.launcher.{override}")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [(), ("gpus_per_task=0.5", "address=head:6379"), ("address='[::1]:6379'",)])
def test_right_settings_are_taken(settings: tuple[str, ...]) -> None:
    assert launcher(*(f"hydra.launcher.{setting}" for setting in settings))


def test_where_no_cluster_answers_one_line_says_so_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, but nobody listens
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(KwsError, match=rf"^hydra\.launcher\.address={address}: no Ray cluster answers there: "):
            launcher(f"hydra.launcher.address={address}")._connect()


def test_ray_is_imported_only_where_it_is_used() -> None:
    code = "import sys, kws_experiments.cli.train; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """This process is one of Ray's workers, which has been given the GPUs 2 and 5 of its machine."""
    ray = pytest.importorskip("ray")
    given = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": ["2", "5"]})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: given)
    monkeypatch.setattr(os, "environ", {"RAY_JOB_ID": "01", "KWS_DATA": "/of/the/machine", "OMP_NUM_THREADS": "1"})
    monkeypatch.setattr(sys, "path", ["/", *sys.path])
    monkeypatch.chdir("/")
    return begun(tmp_path)


def command(sweep: SweepFolder, **changes: Any) -> _Command:
    values = {
        "folder": sweep.path, "path": ["/of/the/command"], "environment": {"KWS_DATA": "/of/the/command"},
        "sweep": sweep, "record": sweep.record.read_bytes(),
    }  # fmt: skip
    return _Command(**(values | changes))


def test_a_job_has_the_folder_and_the_environment_of_the_command_and_the_gpus_of_ray(worker: SweepFolder) -> None:
    command(worker).enter()

    assert os.environ == {"KWS_DATA": "/of/the/command", "RAY_JOB_ID": "01", VISIBLE: "2,5"}
    assert shared_gpus(os.environ) == []  # which are not shared out once more
    assert Path.cwd() == worker.path
    assert sys.path[0] == "/of/the/command"


@pytest.mark.parametrize("case", ["no such folder", "no record", "another record"])
def test_a_machine_that_does_not_see_the_folder_is_one_line(worker: SweepFolder, case: str) -> None:
    sent = command(worker, **({"folder": Path("/not/here")} if case == "no such folder" else {}))
    if case == "no record":
        worker.record.unlink()
    if case == "another record":  # of the same sweep on a disk of the machine's own
        worker.record.write_text("{}")

    with pytest.raises(KwsError) as caught:
        sent.enter()

    assert str(caught.value) == (
        f"machine '{socket.gethostname()}' of the Ray cluster does not see the record '{worker.path}':"
        " give the command in a folder that all machines share"
    )


@pytest.mark.parametrize("begun_already", [True, False])
def test_a_job_whose_workers_all_died_has_failed(tmp_path: Path, begun_already: bool) -> None:
    sweep = begun(tmp_path)
    if begun_already:
        sweep.write_job(Job(1, ["seed=2"], tmp_path / "r2", RUNNING))

    result = ray_launcher._give_up(sweep, 1, ["seed=2"], "its worker died (WorkerCrashedError), 4 times")

    assert result.return_value is None  # as that of any job that failed
    (job,) = sweep.read_jobs()
    assert (job.status, job.error) == (FAILED, "its worker died (WorkerCrashedError), 4 times")
    assert job.folder == (tmp_path / "r2" if begun_already else None)
