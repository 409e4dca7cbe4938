"""The end of a sweep on the console: a row per job, the errors, and the sweep's folder."""

from __future__ import annotations

import re

from kws_experiments.console.output import say
from kws_experiments.console.tables import print_table
from kws_experiments.runs.sweep_record import DONE, FAILED, PRUNED, STOPPED, Sweep


def show(sweep: Sweep) -> None:
    """Print the table of results and failures."""
    jobs, swept = sweep.jobs, short_names(sweep.swept)
    values = [[_rounded(value) for value in job.values(sweep.swept).values()] for job in jobs]
    columns = [
        ("job", [str(job.number) for job in jobs]),
        *((heading, [row[index] for row in values]) for index, heading in enumerate(swept)),
        ("valid.", [_percent(job.validation_accuracy) for job in jobs]),
        ("test", [_percent(job.accuracy) for job in jobs]),
        ("time", ["–" if job.seconds is None else f"{job.seconds:.0f}" for job in jobs]),
        ("run", ["–" if job.folder is None else job.folder.name for job in jobs]),
        ("status", [job.status for job in jobs]),
    ]
    print_table(
        columns,
        title="Sweep",
        numeric=("valid.", "test", "time"),
        keep=("job", "valid.", "test", "run", "status"),
        rest="`kws report` shows all",
    )
    for job in sweep.jobs:
        if job.status == FAILED:
            say(f"job {job.number} failed: {job.error}", style="red")
    done = sum(job.status == DONE for job in sweep.jobs)
    pruned = sum(job.status == PRUNED for job in sweep.jobs)
    say(f"{done} of {sweep.planned} jobs are done" + (f", {pruned} were pruned" if pruned else ""))
    if sweep.status == STOPPED or done + pruned < sweep.planned:
        say("the same command does what is missing")
    say(sweep.path)


def short_names(keys: list[str]) -> list[str]:
    """The keys' last parts, if these differ; else the whole keys."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [short if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)]


def _rounded(value: str | None) -> str:
    """A value as typed; a searched-for number to four digits."""
    if value is None:
        return "–"
    if not re.fullmatch(r"-?\d+\.\d{4,}(e-?\d+)?", value):
        return value
    return f"{float(value):.4g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
