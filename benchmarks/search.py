"""A search by Optuna with and without pruning: how long each takes, and what it finds.

    python -m benchmarks.search [--trials 30] [--folder DIR] [trainer.steps=… model=…]

Both searches begin with the same trials and go on by what these reached. Stopped, the same command with the same folder
goes on.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from benchmarks.options import Overrides, machine, run, table
from kws_data.errors import KwsError
from kws_experiments.console.tables import Console
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.sweep_record import DONE, PRUNED, find_sweep

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
SEARCHES = {"full": [], "pruned": ["hydra/sweeper/pruner=median"]}
SMALL = [
    "trainer.epochs=null", "trainer.steps=300", "trainer.eval_every=20", "trainer.batch_size=50", "report=false",
    "trainer.tensorboard=false", "model.filters=16", "model.num_blocks=2", "features=log_mel_20ms",
    "threads.intra_op=1", "pipeline.threads=1", "optimizer.learning_rate=tag(log,interval(0.0003,0.1))",
]  # fmt: skip

Trials = Annotated[int, typer.Option(min=1, help="of each search")]
Folder = Annotated[Path | None, typer.Option(help="keep the runs there; by default nothing is kept")]


def main(overrides: Overrides = None, trials: Trials = 30, folder: Folder = None) -> None:
    """A search by Optuna with and without pruning: how long each takes, and what it finds."""
    printed = table(f"Searches of {trials} trials", ["search"], ["minutes", "pruned", "steps", "best on validation"])
    with tempfile.TemporaryDirectory(prefix="kws-search-") as temporary:
        for name, settings in SEARCHES.items():
            command = ["sweep=optuna", f"hydra.sweeper.n_trials={trials}", *SMALL, *(overrides or []), *settings]
            where = folder or Path(temporary)
            where.mkdir(parents=True, exist_ok=True)
            done = subprocess.run([sys.executable, TRAIN, "-m", f"name={name}", *command], cwd=where)
            if done.returncode:
                raise KwsError(f"the search ended with status {done.returncode}")
            printed.add_row(name, *figures(where / "runs" / name))
    Console().print(printed)
    print(machine())


def figures(folder: Path) -> list[str]:
    """The columns of a search's row: the time and the steps of all its jobs, those that were pruned included."""
    jobs = [job for job in find_sweep(folder).jobs if job.status in (DONE, PRUNED) and job.folder is not None]
    histories = [pd.read_csv(RunFolder(job.folder).training.history) for job in jobs if job.folder is not None]
    best = max((job.validation_accuracy for job in jobs if job.validation_accuracy is not None), default=float("nan"))
    minutes = sum(job.seconds or 0.0 for job in jobs) / 60
    pruned = sum(job.status == PRUNED for job in jobs)
    return [f"{minutes:.1f}", str(pruned), f"{sum(int(one['step'].max()) for one in histories):,}", f"{best:.1%}"]


if __name__ == "__main__":
    run(main)
