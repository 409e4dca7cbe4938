"""Runs that are killed (SIGKILL) and started again end like an unbroken run, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT, MakeFolder, folder_maker
from tests.kws_experiments.test_train import (
    SMALL,
    assert_same_arrays,
    only_run,
    start,
    train,
    wait_for_evaluation,
)

pytestmark = pytest.mark.slow

# Everything that has a state: momentum, the seeds of dropout, an average of weights, a rate that depends on the
# history, augmentation that differs between epochs, labels drawn by class.
STATEFUL = [
    *SMALL, "task.words=[yes,no]", "augment=light", "+augment/waveform=mixup", "model.dropout_rate=0.2",
    "optimizer=sgd", "optimizer.learning_rate=0.05", "optimizer.momentum=0.9", "optimizer.nesterov=true",
    "optimizer.weight_decay=0.01", "optimizer.global_clipnorm=1", "schedule=plateau", "schedule.patience=1",
    "features.normalise=true", "trainer.label_smoothing=0.1", "trainer.class_balance=sampling",
    "trainer.ema_momentum=0.8", "trainer.restore_best=false", "trainer.eval_every=7", "trainer.checkpoint_every=3",
    "trainer.print_confusion=false", "pipeline.cache_memory_mb=0", "trainer.epochs=null",
]  # fmt: skip

# Runs train.py, and kills itself at a chosen moment.
DRIVER = f"""
import io, os, runpy, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from kws_experiments.runs import checkpoint
from kws_experiments.config import tensorflow_setup
tensorflow_setup.quiet()
moment, number = sys.argv[1].split(":")
left = int(number)

def due():
    global left
    left -= 1
    return left < 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def before(module, name):
    function = getattr(module, name)
    setattr(module, name, lambda *args, **kwargs: die() if due() else function(*args, **kwargs))

def after(module, name):
    function = getattr(module, name)
    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        if due():
            die()
        return result
    setattr(module, name, call)

def half_written(file, **arrays):
    if f".{{moment}}." in file.name and due():
        whole = io.BytesIO()
        savez(whole, **arrays)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        die()
    savez(file, **arrays)

if moment.endswith(".npz"):
    savez, np.savez = np.savez, half_written
elif moment == "step":
    from kws_experiments.training.loop import TrainingStep
    after(TrainingStep, "__call__")
elif moment == "best_written":
    after(checkpoint, "save_weights")
elif moment == "state_due":
    before(checkpoint, "save")
elif moment == "trained":
    from kws_experiments.evaluation import evaluate_network as results
    before(results, "evaluate_network")
elif moment in ("status_trained", "status_done"):
    from kws_experiments.runs.folder import RunFolder
    write = RunFolder.write_record
    def write_record(self, **values):
        write(self, **values)
        if moment == "status_" + values["status"]:
            die()
    RunFolder.write_record = write_record
elif moment == "report.html":
    from pathlib import Path
    replace = Path.replace
    Path.replace = lambda self, target: die() if f".{{moment}}." in self.name else replace(self, target)
sys.argv = [{str(ROOT / "train.py")!r}, *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def killed_at(moment: str, folder: Path, *overrides: str) -> None:
    """Train in `folder` until the process kills itself at the moment 'NAME:COUNT' (after COUNT earlier ones)."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, moment, *overrides], cwd=folder, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def leftovers(run: Path) -> list[str]:
    """The half-written and scratch files of a run's folder."""
    return [path.name for path in run.rglob("*") if ".tmp" in path.name]


def assert_same_results(ours: Path, theirs: Path) -> None:
    for name in ("predictions.parquet", "listening.json", "labels.txt"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    for name in ("checkpoint/initial.npz", "checkpoint/best.npz"):
        assert_same_arrays(ours / name, theirs / name)
    histories = [pd.read_csv(run / "history.csv").drop(columns="seconds") for run in (ours, theirs)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert leftovers(ours) == []
    assert not (ours / "checkpoint" / "state.npz").exists()
    assert json.loads((ours / "run.json").read_text())["status"] == "done"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """(the command, the folder of its run)."""
    folder = tmp_path_factory.mktemp("unbroken")
    command = ["dataset=folder", f"dataset.path={folder_maker(folder)()}", *STATEFUL, "trainer.steps=45", "report=true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KWS_DATA", str(folder / "cache"))
        train(folder, *command)
    rates = pd.read_csv(only_run(folder) / "history.csv")["learning_rate"]
    assert rates.nunique() > 1, "the plateau must have an effect"
    return command, only_run(folder)


@pytest.mark.parametrize(
    "moments",
    [
        # moment: (a file that is left behind, the step to resume from)
        {
            "initial.npz:0": (".initial.npz.", None),
            "step:1": ("", None),
            "step:7": ("", 7),
            "state.npz:1": (".state.npz.", 9),
        },
        {
            "best.npz:0": (".best.npz.", 6),
            "best_written:0": ("", 6),  # the best weights are newer than the state, unlike the history
            "state_due:2": ("", 9),
        },
        {"state_due:4": ("", 9), "trained:0": ("", 45), "status_trained:0": ("", 45)},
        {"report.html:0": (".report.html.", 45), "status_done:0": ("", 45)},
    ],
    ids=["while it writes", "while it evaluates", "at the end", "while it reports"],
)
def test_killed_at_chosen_moments(
    unbroken: tuple[list[str], Path], tmp_path: Path, moments: dict[str, tuple[str, int | None]]
) -> None:
    command, whole = unbroken

    for moment, (left, step) in moments.items():
        killed_at(moment, tmp_path, *command)
        run = only_run(tmp_path)
        assert not left or any(left in name for name in leftovers(run)), f"{moment}: {leftovers(run)}"
        state = run / "checkpoint" / "state.npz"
        assert state.exists() == (step is not None)
        if step is not None:
            with np.load(state) as saved:
                assert json.loads(str(saved["state"]))["step"] == step, moment
    output = train(tmp_path, *command)

    assert ("trained already" in output) == any(moment.startswith(("status_", "report")) for moment in moments)
    assert ("adding what is missing (its report)" in output) == ("status_trained:0" in moments)
    assert_same_results(only_run(tmp_path), whole)
    assert (only_run(tmp_path) / "report.html").is_file()


@pytest.mark.both_stacks
def test_killed_at_any_moment(make_folder: MakeFolder, tmp_path: Path) -> None:
    command = ["dataset=folder", f"dataset.path={make_folder()}", *STATEFUL, "trainer.steps=600"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    train(whole, *command)
    moments = random.Random(0)

    kills = 0
    for _ in range(4):
        process = start(broken, *command)
        wait_for_evaluation(process)
        time.sleep(moments.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=100)
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 2, "the runs ended before they could be killed"
    train(broken, *command)

    assert_same_results(only_run(broken), only_run(whole))
