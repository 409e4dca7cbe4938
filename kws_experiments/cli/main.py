"""The `kws` command. Imports what a command needs only when it runs."""

from __future__ import annotations

from kws_experiments.config import interrupts

with interrupts.on_interrupt(interrupts.end):
    import logging
    import sys
    from typing import Any

    import typer
    import typer.core

    from kws_data.errors import KwsError
    from kws_data.storage.parallel import keep_current_folder_out
    from kws_experiments.cli import data, export, listen, models, reproduce, runs
    from kws_experiments.cli.trust import with_trust
    from kws_experiments.config import tensorflow_setup
    from kws_experiments.config.exit import one_line_errors
    from kws_experiments.config.overrides import with_home
    from kws_experiments.console.output import set_up


class _Commands(typer.core.TyperGroup):
    """All commands. Typer would take an EOFError for Ctrl-D at a question, and say no more than 'Aborted.'."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise RuntimeError(f"a file or a stream ended too early: {error}") from error


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(data.app, name="data")
for command in (
    models.models, with_trust(runs.evaluate), with_trust(runs.report), with_trust(reproduce.reproduce), runs.runs,
    with_trust(runs.add_word),
    with_trust(export.export), with_trust(listen.label), with_trust(listen.demo), with_trust(listen.stream),
    with_trust(listen.make_stream), with_trust(listen.evaluate_stream), with_trust(listen.tune),
    with_trust(listen.mine),
):  # fmt: skip
    app.command()(command)


@app.callback()
def _kws() -> None:
    """Keyword spotting: data sets, features, training, models and runs."""


@app.command(
    add_help_option=False,  # Hydra has its own
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def train(context: typer.Context) -> None:
    """Train, as `python train.py` does in a checkout: kws train key=value …; with -m, a sweep."""
    from kws_experiments.cli.train import main as train_by_command_line

    sys.argv = ["kws train", *context.args]
    train_by_command_line()


def main() -> None:
    """Run the command line: a user's mistake is one line and exit status 1."""
    set_up()
    tensorflow_setup.quiet()
    keep_current_folder_out()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.argv[1:] = with_home(sys.argv[1:])
    with one_line_errors():
        if "" in sys.argv[1:]:  # as a path it would be the current folder
            raise KwsError("an argument is empty: is it a shell variable without a value? the current folder is .")
        app()


if __name__ == "__main__":
    main()
