"""Commands on trained runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kws_data.errors import KwsError


def evaluate(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    dataset: Annotated[Path, typer.Option(help="a folder of word folders; _silence_ and _unknown_ are such too")],
) -> None:
    """Evaluate a run on all clips of another folder; words that the run doesn't know count as unknown."""
    from kws_experiments import summary
    from kws_experiments.evaluate_run import evaluate_run

    result, out = evaluate_run(run, dataset)
    summary.show(result, out)


def reproduce(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    out: Annotated[Path | None, typer.Option(help="the new folder; without it RUN/reproductions/<number>")] = None,
    data: Annotated[Path | None, typer.Option(help="where the data set is now, if no longer where it was")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="train though data changed, to see what that does")] = False,
) -> None:
    """Train a run again from what its folder says, and compare: exit status 0 bit for bit, 1 different, 2 could not."""
    from kws_experiments import reproduce as first_half

    try:
        first_half.reproduce(run, out=out, data=data, anyway=anyway)
    except KwsError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
    raise typer.Exit(first_half.COULD_NOT_RUN)
