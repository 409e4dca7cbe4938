"""The `kws` command: everything that is not training. Imports what a command needs only when it runs."""

from __future__ import annotations

import logging
import os
import sys

import typer

from kws_data.errors import KwsError
from kws_experiments.cli import data as data_commands
from kws_experiments.cli import demo as demo_commands
from kws_experiments.cli import evaluate as run_commands
from kws_experiments.cli import export as export_commands
from kws_experiments.cli import label as label_commands
from kws_experiments.cli import models as model_commands
from kws_experiments.cli import reproduce as reproduce_commands
from kws_experiments.cli import runs as runs_commands
from kws_experiments.cli import stream as stream_commands
from kws_experiments.config import tensorflow_setup

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(data_commands.app, name="data")
app.command()(model_commands.models)
app.command()(run_commands.evaluate)
app.command()(run_commands.report)
app.command()(reproduce_commands.reproduce)
app.command()(runs_commands.runs)
app.command()(export_commands.export)
app.command()(label_commands.label)
app.command()(demo_commands.demo)
app.command()(stream_commands.stream)
app.command()(stream_commands.make_stream)
app.command()(stream_commands.evaluate_stream)


@app.callback()
def _kws() -> None:
    """Keyword spotting: data sets, features, models and runs. Training is `python train.py`."""


def main() -> None:
    """Run the command line: a user's mistake is one line and exit status 1."""
    tensorflow_setup.quiet()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        app()
    except KwsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
