"""Trainings that are killed (SIGKILL) at random moments and started again, against one that is not.

    python -m benchmarks.kills [--kills 20] [--seed 0] [model=… augment=…]

Each training has a folder and a cache of its own, so that it may be killed anywhere from making the data to writing
the report. The same command, given again, must give the same weights and predictions and a run that is done, and leave
nothing half-written; processes that the killed one had started must be gone after a few seconds. Otherwise it exits
with 1.

Target: nothing different, nothing left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks.options import Overrides, run
from kws_data.errors import KwsError
from kws_experiments.config.compose import CONF
from kws_experiments.console.tables import Console

SMALL = [
    "trainer=quick", "dataset.clips_per_word=8", "task.words=[yes,no]", "model.filters=8", "model.num_blocks=1",
    "trainer.checkpoint_every=1", "trainer.eval_every=2", "threads.intra_op=1",
]  # fmt: skip
SECONDS_TO_END = 5.0  # for the children of a killed process


def main(
    overrides: Overrides = None,
    kills: Annotated[int, typer.Option(min=1)] = 20,
    seed: Annotated[int, typer.Option(help="of the moments")] = 0,
) -> None:
    """Kill trainings at random moments, start them again, and compare them with one that was not killed."""
    command = [sys.executable, str(CONF.parent / "train.py"), *SMALL, *(overrides or [])]
    moments = random.Random(seed)
    console, wrong = Console(), 0
    with tempfile.TemporaryDirectory(prefix="kws-kills-") as name:
        begin = time.monotonic()
        train(command, Path(name) / "whole")
        seconds = time.monotonic() - begin
        whole = results(Path(name) / "whole")
        for number in range(kills):
            folder, moment = Path(name) / str(number), moments.uniform(0, 1.05 * seconds)
            alive = killed_after(moment, command, folder)
            state = next((json.loads(path.read_text())["status"] for path in folder.rglob("run.json")), "not begun")
            train(command, folder)
            now = results(folder)
            different = ", ".join(key for key in whole if now[key] != whole[key])
            left = ", ".join(path.name for path in folder.rglob("*") if ".tmp" in path.name)
            wrong += bool(different or left or alive)
            console.print(
                f"killed after {moment:.1f} s ({state}): {different or 'nothing'} different, {left or 'nothing'}"
                f" half-written, {alive or 'nothing'} alive"
            )
    console.print(f"{kills} kills; {wrong} with something different, half-written or alive")
    if wrong:
        raise typer.Exit(1)


def train(command: list[str], folder: Path) -> None:
    """Train in `folder` to the end.

    Raises:
        KwsError: the training failed; the message is its last line.
    """
    done = start(command, folder, stdout=subprocess.PIPE, text=True)
    output, _ = done.communicate()
    if done.returncode:
        raise KwsError(f"the training failed: {(output.strip().splitlines() or ['no word'])[-1]}")


def start(command: list[str], folder: Path, **options: Any) -> subprocess.Popen[Any]:
    """Start the training in `folder`, with a cache of its own there."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"KWS_DATA": str(folder / "cache")}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.STDOUT, **options)


def killed_after(seconds: float, command: list[str], folder: Path) -> str:
    """Start the training and kill it; the names of processes that it started and that don't end then."""
    process = start(command, folder, stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, SECONDS_TO_END)
    return ", ".join(" ".join(child.cmdline())[:80] for child in alive if child.is_running())


def results(folder: Path) -> dict[str, Any]:
    """What must be the same: weights, predictions, history, and that the run is done and has its report."""
    (record,) = folder.glob("runs/*/*/run.json")
    values, run_folder = json.loads(record.read_text()), record.parent
    return {
        "status": values["status"],
        "weights": values["weights_sha256"],
        "predictions": (run_folder / "predictions.parquet").read_bytes(),
        "history": [line.rpartition(",")[0] for line in (run_folder / "history.csv").read_text().splitlines()],
        "report": (run_folder / "report.html").is_file() and (run_folder / "report.md").is_file(),
        "state": (run_folder / "checkpoint" / "state.npz").exists(),
    }


if __name__ == "__main__":
    run(main)
