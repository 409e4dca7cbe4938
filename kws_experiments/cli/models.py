"""`kws models`: what the models cost, beside what their papers report."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kws_data.errors import KwsError
from kws_data.text import printable
from kws_experiments.console.output import say, say_document

if TYPE_CHECKING:
    from kws_experiments.reports.model_table import Row

log = logging.getLogger(__name__)


def models(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|OVERRIDE]...",
            help="names of models (default: all), and overrides as train.py takes them: features=… task=…",
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="print Markdown")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="print CSV with plain numbers")] = False,
    arena: Annotated[
        bool, typer.Option("--arena", help="convert to int8 and measure the arena, in 10 to 30 s a model")
    ] = False,
    update: Annotated[Path | None, typer.Option(help="put the Markdown between the markers of this file")] = None,
    config_dir: Annotated[Path | None, typer.Option(help="a folder of your own configs, as train.py takes it")] = None,
) -> None:
    """List the models: parameters, multiply-adds for one clip, size, and what their sources report.

    Each is built for the features and the task of its source unless you choose others. `parameters`: all values;
    `trained`: without running statistics; `folded`: the weights at inference, batch normalisation folded into the
    layer before; `float32` and `int8`: these in 4 bytes, or in 1 (biases in 4), without a file's structure, kB of 1,000
    bytes; `activations`: the most that must be kept at once, in int8. An arena is some kB larger: `--arena` measures
    it, as `kws export` does. Multiply-adds are those of convolutions and matrix products, and of other weights that
    don't fold.
    """
    from kws_experiments.reports import model_table

    if markdown + csv + (update is not None) > 1:
        raise KwsError("--markdown, --csv, --update: choose one")
    overrides = [argument for argument in arguments or [] if "=" in argument]
    chosen = [argument for argument in arguments or [] if "=" not in argument]
    known = model_table.names(config_dir)
    if unknown := [name for name in chosen if name not in known]:
        raise KwsError(f"no model '{unknown[0]}'; there are {', '.join(known)}")
    rows = _rows(chosen or known, overrides, config_dir, arena=arena)
    if markdown:
        say_document(model_table.as_markdown(rows))
    elif csv:
        say_document(model_table.as_csv(rows))
    elif update is not None:
        model_table.update(update, rows)
        say(update)
    else:
        _print(rows)
    for row in rows:
        if row.error:
            log.warning("%s: %s", row.model, row.error)
        elif row.micro and row.arena is None:
            log.warning("%s: %s", row.model, row.micro["not_measured"])


def _rows(names: list[str], overrides: list[str], config_dir: Path | None, *, arena: bool) -> list[Row]:
    from tqdm import tqdm

    from kws_experiments.export.arena import untrained_arena
    from kws_experiments.reports.model_table import choose, count

    choices = [choose(name, overrides, config_dir) for name in names]  # all, before TensorFlow takes its seconds
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # TensorFlow has started already
        tf.config.set_visible_devices([], "GPU")  # building networks needs none, and would take all of its memory
    with tqdm(choices, unit="model", disable=None, leave=False) as bar:
        rows = []
        for choice in bar:
            bar.set_description(printable(choice.model))
            row = count(choice)
            if arena and not row.error:
                row = replace(row, micro=untrained_arena(choice.experiment, row.labels))
            rows.append(row)
    return rows


def _print(rows: list[Row]) -> None:
    from kws_experiments.console.tables import print_table
    from kws_experiments.reports.model_table import NUMERIC, cells, headings

    columns = zip(*(cells(row) for row in rows), strict=True)
    print_table(
        list(zip(headings(rows), columns, strict=True)),
        numeric=NUMERIC,
        keep=("model", "parameters", "multiply-adds", "int8", "activations", "arena"),
        rest="a wider terminal or --csv shows them",
    )
