"""The `kws` command: everything that is not training. Imports what a command needs only when it runs."""

from __future__ import annotations

import logging
import os
import sys

import typer

from kws_data.errors import KwsError
from kws_experiments.cli import data, export, listen, models, reproduce, runs
from kws_experiments.config import tensorflow_setup
from kws_experiments.config.exit import one_line_errors

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(data.app, name="data")
for command in (
    models.models, runs.evaluate, runs.report, reproduce.reproduce, runs.runs, export.export,
    listen.label, listen.demo, listen.stream, listen.make_stream, listen.evaluate_stream,
):  # fmt: skip
    app.command()(command)


@app.callback()
def _kws() -> None:
    """Keyword spotting: data sets, features, models and runs. Training is `python train.py`."""


def main() -> None:
    """Run the command line: a user's mistake is one line and exit status 1."""
    tensorflow_setup.quiet()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with one_line_errors():
        if "" in sys.argv[1:]:  # as a path it would be the current folder
            raise KwsError("an argument is empty: is it a shell variable without a value? the current folder is .")
        try:
            app()
        except BrokenPipeError:  # the reader (head, say) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
