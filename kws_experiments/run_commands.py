"""Commands on trained runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    dataset: Annotated[Path, typer.Option(help="a folder of word folders; _silence_ and _unknown_ are such too")],
) -> None:
    """Evaluate a run on all clips of another folder; words that the run doesn't know count as unknown."""
    from kws_experiments import summary
    from kws_experiments.evaluate_run import evaluate_run

    result, out = evaluate_run(run, dataset)
    summary.show(result, out)
