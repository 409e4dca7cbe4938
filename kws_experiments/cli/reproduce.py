"""`kws reproduce`: its exit status says how the repetition went, so its errors have a status of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kws_experiments.config.exit import one_line_errors


def reproduce(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    out: Annotated[Path | None, typer.Option(help="the new folder; without it RUN/reproductions/<number>")] = None,
    data: Annotated[Path | None, typer.Option(help="where the data set is now, if no longer where it was")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="train though data changed, to see what that does")] = False,
) -> None:
    """Train a run again from what its folder says, and compare: exit status 0 bit for bit, 1 different, 2 could not."""
    from kws_experiments.reproduce import restart

    with one_line_errors(failed=restart.COULD_NOT_RUN):
        restart.restart(run, out=out, data=data, anyway=anyway)
