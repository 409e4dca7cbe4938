"""`kws reproduce`, as typed: its exit status tells what came of it, so that its errors have a status of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kws_data.errors import KwsError


def reproduce(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    out: Annotated[Path | None, typer.Option(help="the new folder; without it RUN/reproductions/<number>")] = None,
    data: Annotated[Path | None, typer.Option(help="where the data set is now, if no longer where it was")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="train though data changed, to see what that does")] = False,
) -> None:
    """Train a run again from what its folder says, and compare: exit status 0 bit for bit, 1 different, 2 could not."""
    from kws_experiments.reproduce import restart as first_half

    try:
        first_half.reproduce(run, out=out, data=data, anyway=anyway)
    except KwsError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
    raise typer.Exit(first_half.COULD_NOT_RUN)
