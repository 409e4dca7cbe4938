"""What benchmarks take on their command lines, and what they say about the machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.table import Table

from kws_data.errors import KwsError
from kws_data.storage.parallel import available_cpus
from kws_experiments.config import tensorflow_setup
from kws_experiments.config.exit import one_line_errors
from kws_experiments.console.output import set_up
from kws_experiments.console.tables import Console
from kws_experiments.reports import model_table
from kws_experiments.runs.environment import processor

Models = Annotated[str, typer.Option(help="names of conf/model/, separated by commas, or all")]
Threads = Annotated[int, typer.Option(min=1, help="of TensorFlow")]
Batch = Annotated[int, typer.Option(min=1, help="clips")]
Repeats = Annotated[int, typer.Option(min=1, help="rounds")]
Seconds = Annotated[float, typer.Option(min=0.001, help="of each measurement, about")]
Overrides = Annotated[list[str] | None, typer.Argument(help="as train.py takes them: features=…")]

ALL_CORES = available_cpus()
RATIOS = "KWS_BENCHMARK_RATIOS"  # the environment variable with the file that takes the ratios


@dataclass(frozen=True)
class Options:
    """What a benchmark of models measures: models by name, and the rest as on the command line."""

    models: list[str]
    threads: int
    repeats: int
    seconds: float
    batch: int = 1
    hop_ms: float = 0.0
    overrides: Sequence[str] = ()


def run(command: Callable[..., Any]) -> None:
    """Run a benchmark with the options on the command line; an error is one line."""
    set_up()
    tensorflow_setup.quiet()
    with one_line_errors():
        typer.run(command)


def chosen(option: str, text: str, known: Sequence[str]) -> list[str]:
    """Names separated by commas, or all of them.

    Raises:
        KwsError: one is not known.
    """
    names = list(known) if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise KwsError(f"{option}: must be all or some of {', '.join(known)}, got '{unknown[0]}'")
    return names


def chosen_models(text: str) -> list[str]:
    """The models that `--models` names."""
    return chosen("--models", text, model_table.names())


def table(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    """A table whose first columns hold text, and the others numbers."""
    made = Table(*names, title=title, title_justify="left")
    for heading in numbers:
        made.add_column(heading, justify="right")
    return made


def say_ratio(name: str, ratios: pd.Series, target: str) -> None:
    """Print a claimed ratio, its spread over the rounds and its target; `benchmarks.check` gets them too."""
    line = f"{name}: {ratios.median():.2f} ({ratios.min():.2f} to {ratios.max():.2f} over the rounds); target: {target}"
    Console().print(line, soft_wrap=True)
    if RATIOS in os.environ:
        with Path(os.environ[RATIOS]).open("a", encoding="utf-8") as file:
            found = {"name": name, "median": ratios.median(), "low": ratios.min(), "high": ratios.max()}
            file.write(json.dumps(found) + "\n")


def machine() -> str:
    """Such as `2 cores (AMD EPYC)`."""
    return f"{available_cpus()} cores ({processor()['model']})"
