"""Whole sweeps, as a user starts them: `python train.py -m …`; jobs that crash, are stopped and are killed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from kws_data.storage.parallel import available_cpus
from kws_experiments.runs.find import find_runs
from kws_experiments.runs.sweep_record import DONE, FAILED, PRUNED, STOPPED, find_sweep
from tests.conftest import ROOT
from tests.kws_experiments.sweeps.whole import data, histories, wait_for
from tests.kws_experiments.test_train import start, train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_cache")]

CRASH = """
import os
def crash(input_shape, num_labels, filters, num_blocks):
    print("about to crash", flush=True)
    os.abort()
"""


def test_a_crash_is_one_failed_job(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "my_nets.py").write_text(CRASH)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "crash.yaml").write_text("_target_: my_nets.crash\nfilters: 8\nnum_blocks: 1\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    command = ["--config-dir", "conf", *data(place), "trainer=quick", "logger=mlflow"]

    output = train(tmp_path, "-m", *command, "model=crash,ds_cnn_s", status=1)

    sweep = find_sweep(tmp_path)
    assert sweep.command == shlex.join(["python", "train.py", "-m", *command, "model=crash,ds_cnn_s"])
    crashed, fine = sweep.jobs
    assert (sweep.status, crashed.status, fine.status) == (FAILED, FAILED, DONE)
    assert crashed.error is not None
    assert crashed.error.startswith("ended by SIGABRT")
    assert f"job 0 failed: {crashed.error}" in output
    assert "1 of 2 jobs are done" in output
    assert fine.folder is not None
    metrics = json.loads((fine.folder / "metrics.json").read_text())
    assert (fine.accuracy, fine.validation_accuracy) == (metrics["accuracy"], metrics["validation_accuracy"])
    history = pd.read_csv(fine.folder / "history.csv")
    assert fine.validation_accuracy == pytest.approx(history["val_accuracy"].max())
    assert "about to crash" in output  # one job at a time is heard
    assert "job 1: accuracy" in output
    assert "next:" not in output  # as after a single run
    assert "validation loss" in (fine.folder / "output.log").read_text()

    # What is done is left alone, what failed is tried again; a run of a sweep is a run as any other.
    before = (fine.folder / "output.log").stat().st_mtime_ns
    again = train(tmp_path, "-m", *command, "model=crash,ds_cnn_s", status=1)
    assert "job 1 is trained already" in again
    assert (fine.folder / "output.log").stat().st_mtime_ns == before
    assert "trained already" in train(tmp_path, *command, "model=ds_cnn_s")
    assert len(list(tmp_path.glob("mlruns/[0-9]*/*/meta.yaml"))) == 1
    assert find_runs(tmp_path, {"model": "ds_cnn_s"})["accuracy"].tolist() == [metrics["accuracy"]]


def test_jobs_at_once_are_killed_stopped_and_go_on(place: Path, tmp_path: Path) -> None:
    small = [override for override in data(place) if not override.startswith("threads.")]
    command = [sys.executable, str(ROOT / "train.py"), "-m", *small, "trainer.epochs=null", "trainer.steps=800"]
    command += ["trainer.eval_every=7", "trainer.checkpoint_every=1000", "trainer.print_confusion=false", "seed=1,2"]
    command += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    def steps() -> list[int]:
        return [int(pd.read_csv(path)["step"].max()) for path in sorted(histories(tmp_path))]

    def goes_on(then: list[int]) -> bool:
        now = steps()
        return len(now) == 2 and all(new > old for new, old in zip(now, then, strict=True))

    process = begin()
    wait_for(lambda: goes_on([0, 0]))
    process.kill()  # nobody is left to say so, but the jobs notice, save their state and end
    process.communicate(timeout=100)
    logs = [path.with_name("output.log") for path in histories(tmp_path)]
    wait_for(lambda: all("stopped; the same command goes on" in log.read_text() for log in logs))
    killed = find_sweep(tmp_path)
    assert killed.status == STOPPED

    then = steps()
    process = begin()
    wait_for(lambda: goes_on(then))
    another = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert another.returncode == 1
    assert another.stderr.strip().endswith("another process runs this very sweep")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 130, output
    assert "the same command does what is missing" in output
    stopped = find_sweep(tmp_path)
    assert stopped.status == STOPPED
    assert [job.status for job in stopped.jobs] == [STOPPED, STOPPED]
    assert len(list(tmp_path.glob("runs/train/*/checkpoint/state.npz"))) == 2

    process = begin()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    done = find_sweep(tmp_path)
    assert (done.status, [job.status for job in done.jobs]) == (DONE, [DONE, DONE])
    for job in done.jobs:
        assert job.folder is not None
        assert (job.folder / "output.log").read_text().count("resuming at step") == 2
        config = yaml.safe_load((job.folder / "config.yaml").read_text())
        assert config["threads"]["intra_op"] == config["pipeline"]["threads"] == max(1, available_cpus() // 2)


def test_a_search_that_prunes_is_killed_and_goes_on(place: Path, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    fixed = [*data(place), "trainer.epochs=null", "trainer.steps=120", "trainer.eval_every=6"]
    command = [
        "-m",
        *fixed,
        "hydra/sweeper=optuna",
        "hydra/sweeper/pruner=median",
        "hydra.sweeper.pruner.n_startup_trials=1",
    ]
    command += ["optimizer.learning_rate=0.01,1e-30", "hydra.sweeper.sampler.seed=6", "hydra.sweeper.n_trials=4"]

    process = start(tmp_path, *command)
    wait_for(lambda: histories(tmp_path))
    process.kill()
    process.communicate(timeout=100)
    (log,) = (path.with_name("output.log") for path in histories(tmp_path))
    wait_for(lambda: "stopped; the same command goes on" in log.read_text())
    output = train(tmp_path, *command)
    again = train(tmp_path, *command)  # nothing is left to do

    sweep = find_sweep(tmp_path)
    assert (sweep.status, sweep.planned) == (DONE, 4)
    assert "best: job 1, validation_accuracy" in output
    assert "Launching" not in again
    good, bad = sorted(sweep.jobs, key=lambda job: job.status)  # two runs, though there are four trials
    assert (good.status, bad.status) == (DONE, PRUNED)
    assert good.folder is not None
    assert "resuming at step" in (good.folder / "output.log").read_text()
    assert bad.folder is not None
    assert bad.accuracy is None
    assert "pruned by its search after step" in (bad.folder / "output.log").read_text()
    assert not list(tmp_path.glob("runs/train/*/checkpoint/state.npz"))
    assert len(pd.read_csv(bad.folder / "history.csv")) < len(pd.read_csv(good.folder / "history.csv")) == 20
    assert find_runs(tmp_path)["status"].value_counts().to_dict() == {"done": 1, "pruned": 1}
    journal = optuna.storages.journal.JournalFileBackend(str(sweep.path / "study.journal"))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(journal))
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]

    train(tmp_path, *fixed, "optimizer.learning_rate=1e-30")  # to the end, where that is wanted
    assert [job.status for job in find_sweep(tmp_path).jobs] == [DONE, DONE]


def test_a_search_of_which_every_trial_fails_says_why(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")

    output = train(
        tmp_path, "-m", *data(place), "trainer=quick", "sweep=optuna", "hydra.sweeper.n_trials=2", "schedule=piecewise",
        status=1,
    )  # fmt: skip

    assert "would do nothing: this schedule has rates of its own" in output
    assert "no trial is done, so that there is no best one" in output
    assert "Record does not exist" not in output
    assert find_sweep(tmp_path).status == FAILED


def test_a_job_of_submitit_that_is_preempted_goes_on(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    process = start(
        tmp_path, "-m", *data(place), "trainer.epochs=null", "trainer.steps=600", "trainer.eval_every=7", "seed=0",
        "hydra/launcher=submitit_local", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=5",
    )  # fmt: skip
    wait_for(lambda: histories(tmp_path))
    (worker,) = [
        found for found in psutil.process_iter(["cmdline"])
        if "submitit.core._submit" in found.info["cmdline"] and str(tmp_path) in " ".join(found.info["cmdline"])
    ]  # fmt: skip

    worker.send_signal(signal.SIGUSR2)  # as SLURM does before it takes the machine away

    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    sweep = find_sweep(tmp_path)
    assert (sweep.status, sweep.launcher, [job.status for job in sweep.jobs]) == (DONE, "submitit_local", [DONE])
    assert sweep.jobs[0].folder is not None
    printed = (sweep.jobs[0].folder / "output.log").read_text()
    assert "stopped; the same command goes on from here" in printed
    assert "resuming at step" in printed
