"""Commands on trained runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from kws_data.errors import KwsError


def evaluate(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    dataset: Annotated[
        str | None,
        typer.Option(
            help="a folder of word folders (_silence_ and _unknown_ are such too), or test_set_v0.01 or test_set_v0.02"
            " once downloaded; without it the run's own data"
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="of the run's own data: testing (the default), validation or training")
    ] = None,
    noise_snr: Annotated[
        str | None, typer.Option(help="signal-to-noise ratios in dB to test at too, such as 20,10,5,0,-5")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="where to write; by default RUN/evaluations/…")] = None,
) -> None:
    """Evaluate a run: on its own test clips again, or on all of another folder, where other words count as unknown."""
    from kws_experiments.evaluation.evaluate_run import evaluate_run
    from kws_experiments.reports import summary
    from kws_experiments.reports.run_report import renew_run_report

    result, folder = evaluate_run(run, dataset, split=split, snrs_db=ratios(noise_snr), out=out)
    if out is None:
        renew_run_report(run)
    summary.show(result, folder)


def ratios(text: str | None) -> list[float] | None:
    """'20,10,-5' as numbers; None where nothing is given.

    Raises:
        KwsError: one of them is none, or out of range.
    """
    if text is None:
        return None
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(float(part))
        except ValueError:
            numbers.append(math.nan)
        if not -60 <= numbers[-1] <= 100:
            raise KwsError(f"--noise-snr: '{part.strip()}' is no ratio from -60 to 100 dB; write 20,10,5,0,-5")
    return numbers


def report(
    path: Annotated[Path, typer.Argument(metavar="RUN|SWEEP", help="the folder of a finished run, or of a sweep")],
    out: Annotated[Path | None, typer.Option(help="of a run: a folder to write into; by default its own")] = None,
) -> None:
    """Write the report of a run or a sweep: report.html, which needs no other file, and report.md with its pictures."""
    from kws_experiments.reports.run_report import write_run_report
    from kws_experiments.reports.sweep_report import write_sweep_report
    from kws_experiments.runs.folder import RunFolder
    from kws_experiments.runs.sweep_record import find_sweep, find_sweeps

    if not RunFolder(path).record.is_file() and path.is_dir() and find_sweeps(path):
        if out is not None:
            raise KwsError("--out: the report of a sweep stands in the sweep's folder, beside what it links to")
        print(write_sweep_report(find_sweep(path)))
        return
    print(write_run_report(path, out))
