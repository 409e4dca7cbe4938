"""The last thing that a sweep prints: a row per job, what failed, and where it is written."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from kws_experiments.sweeps import DONE, FAILED, STOPPED, Sweep


def show(sweep: Sweep) -> None:
    """Print the table of results and failures."""
    console = Console()
    table = Table("job", *sweep.swept, title="Sweep", title_justify="left")
    for heading in ("validation", "test", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("run", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for job in sweep.jobs:
        values = job.values(sweep.swept).values()
        table.add_row(
            str(job.number),
            *("–" if value is None else value for value in values),
            _percent(job.validation_accuracy),
            _percent(job.accuracy),
            "–" if job.seconds is None else f"{job.seconds:.0f}",
            "–" if job.folder is None else job.folder.name,
            job.status,
        )
    console.print(table)
    for job in sweep.jobs:
        if job.status == FAILED:
            console.print(f"job {job.number} failed: {job.error}", style="red", soft_wrap=True, highlight=False)
    done = sum(job.status == DONE for job in sweep.jobs)
    console.print(f"{done} of {sweep.planned} jobs are done", highlight=False)
    if sweep.status == STOPPED or done < sweep.planned:
        console.print("the same command does what is missing", highlight=False)
    console.print(str(sweep.path), soft_wrap=True, highlight=False)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
