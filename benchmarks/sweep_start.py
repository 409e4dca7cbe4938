"""Seconds from the start of a sweep's second job to its first training step, against a bare `import tensorflow`.

    python -m benchmarks.sweep_start [--repeats 5] [dataset=… model=…]

A first job fills the caches, as in any sweep. Then jobs with other seeds are started as a sweep starts them, each a
process of its own that ends after its first step, and take turns with processes that import TensorFlow and do nothing
else. The table says when each part of the start is over; medians over the rounds, and of the ratios within a round.

Target: under 2.5 times a bare `import tensorflow`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from benchmarks.options import Overrides, Repeats, run, say_ratio, table
from kws_data.errors import KwsError
from kws_data.storage.parallel import available_cpus
from kws_experiments.config.compose import CONF, register_resolvers, resolved
from kws_experiments.console.tables import Console
from kws_experiments.sweeps import child

TARGET = 2.5
BARE = "bare import tensorflow"
MARKS = {  # functions of kws_experiments.train whose return ends a part of the start
    "tensorflow_setup": "TensorFlow imported",
    "check": "configuration checked",
    "prepare_data": "data ready",
    "set_initial_weights": "network built",
}
FIRST_STEP = "first step"

# The job's own process, which tells when it passes by, and ends with its first step.
DRIVER = f"""
import os
from kws_experiments.sweeps import child
from kws_experiments import train
from kws_experiments.config import tensorflow_setup

def mark(name):
    print(f"@{{name}}", flush=True)

def after(module, name, line):
    function = getattr(module, name)
    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        mark(line)
        return result
    setattr(module, name, call)

def started(*args, **kwargs):
    start(*args, **kwargs)
    from kws_experiments.training import initial_weights
    from kws_experiments.training import step as training_step
    after(initial_weights, "set_initial_weights", {MARKS["set_initial_weights"]!r})
    step = training_step.TrainingStep.__call__
    def first(*args, **kwargs):
        step(*args, **kwargs)
        mark({FIRST_STEP!r})
        os._exit(0)
    training_step.TrainingStep.__call__ = first
    mark({MARKS["tensorflow_setup"]!r})

start, tensorflow_setup.start = tensorflow_setup.start, started
after(train.Experiment, "check", {MARKS["check"]!r})
after(train, "prepare_data", {MARKS["prepare_data"]!r})
child.main()
"""


def main(overrides: Overrides = None, repeats: Repeats = 5) -> None:
    """Seconds from the start of a sweep's second job to its first training step, against `import tensorflow`."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="kws-sweep-start-") as folder:
        seconds_of_job(overrides or [], Path(folder), seed=0)
        for number in range(repeats):
            bare = seconds_of_import()
            rows.append({BARE: bare, **seconds_of_job(overrides or [], Path(folder), seed=1 + number)})
    show(pd.DataFrame(rows))


def seconds_of_import() -> float:
    """From the start of a process until it has imported TensorFlow; its end, which takes a while, doesn't count."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", "import tensorflow; print(flush=True)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.readline()
    seconds = time.perf_counter() - begin
    if process.wait():
        raise KwsError("TensorFlow can't be imported")
    return seconds


def seconds_of_job(overrides: list[str], folder: Path, seed: int) -> dict[str, float]:
    """When each part of a job's start is over, from the start of its process.

    Raises:
        KwsError: the job ended before its first step; the message is its last line.
    """
    register_resolvers()
    settings = [*overrides, f"seed={seed}", "hydra.mode=MULTIRUN", f"hydra.runtime.output_dir={folder / str(seed)}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", settings, return_hydra_config=True)
    cfg.hydra.job.name = "train"
    HydraConfig.instance().set_config(cfg)
    config = resolved(cfg)
    (folder / str(seed)).mkdir()
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder)],
        env=os.environ | {"PYTHONUNBUFFERED": "1"}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    child.send(config, process.stdin.buffer)  # type: ignore[attr-defined]
    parts, last = {}, ""
    for line in process.stdout:
        last = line.strip() or last
        if line.startswith("@"):
            parts[line[1:].strip()] = time.perf_counter() - begin
    if process.wait() or FIRST_STEP not in parts:
        raise KwsError(f"the job ended before its first step: {last}")
    return parts


def show(seconds: pd.DataFrame) -> None:
    """Print the medians, the ratios, the target and the machine."""
    ratios = seconds.div(seconds[BARE], axis=0)
    printed = table("Second job of a sweep", ["after the start of the process"], ["seconds", "of a bare import"])
    for name in seconds.columns:
        printed.add_row(name, f"{seconds[name].median():.2f}", f"{ratios[name].median():.2f}")
    console = Console()
    console.print(printed)
    say_ratio(f"{FIRST_STEP}, of a bare import", ratios[FIRST_STEP], f"under {TARGET:g}")
    console.print(f"{available_cpus()} cores, median of {len(seconds)} rounds")


if __name__ == "__main__":
    run(main)
