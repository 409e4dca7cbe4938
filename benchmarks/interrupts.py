"""Ctrl-C in the first seconds of each command: with which status it ends, and how often something is wrong then.

    python -m benchmarks.interrupts [--every 0.1] [--seconds 8] [--run RUN] [--only train,sweep]

Each command is started again and again, as a terminal starts it (a process group of its own), and SIGINT is sent to
the whole group a little later each time. Exits with 1 if one printed a traceback, ended with another status than 0
and 130, ended with 130 and no line that says so, left a file half-written, or had a process 5 s after its end.

Target: nothing wrong.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.kills import SMALL
from benchmarks.options import chosen, run, table
from kws_data.errors import KwsError
from kws_experiments.config.compose import CONF
from kws_experiments.console.tables import Console

TRAIN, SWEEP = ([str(CONF.parent / "train.py"), *flags, *SMALL] for flags in ([], ["-m"]))
KWS = ["-m", "kws_experiments.cli.main"]
COMMANDS = {  # RUN stands for the folder of a finished run, CLIPS for the clips that it was trained on
    "train": TRAIN,
    "sweep": [*SWEEP, "seed=0,1"],
    "joblib": [*SWEEP, "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "ray": [*SWEEP, "seed=0,1", "hydra/launcher=ray"],
    "evaluate": [*KWS, "evaluate", "RUN"],
    "label": [*KWS, "label", "RUN", "CLIPS"],
    "export": [*KWS, "export", "RUN", "--format", "tflite", "--no-check"],
    "report": [*KWS, "report", "RUN"],
    "reproduce": [*KWS, "reproduce", "RUN"],
}
SECONDS_TO_END = 120.0
SECONDS_TO_END_CHILDREN = 5.0
BAD = ("Traceback", "Exception ignored", "Error executing job", "Fatal Python error")
# In a script's background SIGINT is ignored, and what is ignored is inherited; not so in a terminal.
AS_IN_A_TERMINAL = "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"


def main(
    every: Annotated[float, typer.Option(min=0.01, help="seconds from one moment to the next")] = 0.1,
    start: Annotated[float, typer.Option(min=0.0, help="the first moment; Python itself starts before 0.1 s")] = 0.1,
    seconds: Annotated[float, typer.Option(min=0.01, help="the last moment")] = 8.0,
    only: Annotated[str, typer.Option(help=f"some of {', '.join(COMMANDS)}")] = "all",
    show: Annotated[bool, typer.Option(help="print the output where something is wrong")] = False,
) -> None:
    """Send Ctrl-C to commands in their first seconds, and count what goes wrong."""
    names = chosen("--only", only, list(COMMANDS))
    printed = table("Ctrl-C", ["command"], ["times", "wrong", "statuses"])
    console, wrong = Console(), 0
    with tempfile.TemporaryDirectory(prefix="kws-interrupts-") as folder:
        environment = os.environ | {"KWS_DATA": str(Path(folder) / "cache")}
        done = subprocess.run([sys.executable, *TRAIN], cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise KwsError(f"the training failed: {done.stderr.strip().splitlines()[-1]}")
        (record,) = Path(folder).glob("runs/*/*/run.json")
        (clips,) = Path(folder).glob("cache/datasets/*/yes")
        values = {"RUN": str(record.parent), "CLIPS": str(clips)}
        for name in names:
            command = [values.get(word, word) for word in COMMANDS[name]]
            moments = np.arange(start, seconds + 1e-9, every)
            results = [interrupted(command, moment, Path(folder), environment) for moment in moments]
            bad = [f"{wrong}\n{output}" for wrong, _, output in results if wrong]
            statuses = Counter(status for _, status, _ in results)
            text = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
            printed.add_row(name, str(len(results)), str(len(bad)), text)
            wrong += len(bad)
            for output in bad if show else []:
                console.print(output, markup=False, highlight=False)
    console.print(printed)
    if wrong:
        raise typer.Exit(1)


def interrupted(command: list[str], seconds: float, shared: Path, environment: dict[str, str]) -> tuple[str, int, str]:
    """(what is wrong or '', exit status, output) of a command that gets Ctrl-C after so many seconds."""
    with tempfile.TemporaryDirectory(dir=shared) as folder, tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-c", AS_IN_A_TERMINAL, sys.executable, *command],
            cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, process_group=0,
        )  # fmt: skip
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        status = process.wait(SECONDS_TO_END)
        output.seek(0)
        text = output.read().decode(errors="replace")
        wrong = [bad for bad in BAD if bad in text]
        if status not in (0, 130, -2):  # -2: before Python has a handler
            wrong.append(f"status {status}")
        if status == 130 and "stopped" not in text:
            wrong.append("no line says that it was stopped")
        wrong += [f"{path.name} half-written" for path in shared.rglob("*") if ".tmp" in path.name]
        with suppress(ProcessLookupError):
            for _ in range(round(SECONDS_TO_END_CHILDREN / 0.1)):
                os.killpg(process.pid, 0)
                time.sleep(0.1)
            os.killpg(process.pid, signal.SIGKILL)
            wrong.append("a process was left")
    return ", ".join(wrong), status, f"-- {seconds:.2f} s, status {status}\n{text}"


if __name__ == "__main__":
    run(main)
