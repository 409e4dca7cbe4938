"""`kws runs`, `evaluate`, `report` and `add-word`: what has been trained, how good it is, and one word more."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kws_data.errors import KwsError
from kws_data.text import to_csv
from kws_experiments.console.output import say, say_document

if TYPE_CHECKING:
    import pandas as pd

_BEST_FIRST = ("accuracy", "validation_accuracy", "best_accuracy")
_IN_PERCENT = (*_BEST_FIRST, "missed")
_FOR_CSV = ["path", "started", "seconds", "clips"]
_ALWAYS = ("run", "status", "accuracy", "error")


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
    from kws_experiments.runs.folder import RunFolder

    RunFolder(run).read_finished_record()  # a wrong or a hostile folder is refused before the slow imports
    RunFolder(run).read_config()
    from kws_experiments.evaluation.evaluate_run import evaluate_run
    from kws_experiments.reports import summary
    from kws_experiments.reports.run_report import renew_run_report

    result, folder = evaluate_run(run, dataset, split=split, snrs_db=ratios(noise_snr), out=out)
    if out is None:
        renew_run_report(run)
    summary.show(result, folder)


def add_word(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    word: Annotated[str, typer.Argument(help="the new word")],
    clips: Annotated[
        list[Path] | None, typer.Argument(help="3 to 20 clips of it: audio files, or folders; none: synthetic ones")
    ] = None,
    steps: Annotated[int, typer.Option(min=10, help="of the training, of a batch each")] = 1000,
    synthetic_clips: Annotated[int, typer.Option(min=0, help="of the word, by the speech engine; 0: none")] = 300,
) -> None:
    """Add a word to a run: a new run, trained for minutes, with what can be expected of the word."""
    from kws_experiments.runs.folder import RunFolder

    RunFolder(run).read_finished_record()
    RunFolder(run).read_config()
    from kws_experiments import add_word as adding

    adding.show(adding.add_word(run, word, clips or [], adding.AddWordSettings(steps, synthetic_clips)))


def ratios(text: str | None) -> list[float] | None:
    """'20,10,-5' as numbers; None for None.

    Raises:
        KwsError: one is not a number, or out of range.
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
            raise KwsError(f"--noise-snr: '{part.strip()}' is not a ratio from -60 to 100 dB; write 20,10,5,0,-5")
    return numbers


def report(
    path: Annotated[Path, typer.Argument(metavar="RUN|SWEEP", help="the folder of a finished run, or of a sweep")],
    out: Annotated[Path | None, typer.Option(help="of a run: a folder to write into; by default its own")] = None,
) -> None:
    """Write the report of a run or a sweep: report.html, which needs no other file, and report.md with its pictures."""
    from kws_experiments.runs.folder import RunFolder
    from kws_experiments.runs.sweep_record import find_sweep, find_sweeps

    if not RunFolder(path).record.is_file() and path.is_dir() and find_sweeps(path):
        if out is not None:
            raise KwsError("--out: the report of a sweep stands in the sweep's folder, beside what it links to")
        sweep = find_sweep(path)
        from kws_experiments.reports.sweep_report import write_sweep_report

        say(write_sweep_report(sweep))
        return
    RunFolder(path).read_finished_record()
    RunFolder(path).read_config()
    from kws_experiments.reports.run_report import write_run_report
    from kws_experiments.train import finish

    say(write_run_report(path, out))
    if out is None:
        finish(path)


def runs(
    folder: Annotated[Path, typer.Argument(help="runs and sweeps at or below it are listed")] = Path("runs"),
    where: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE[,VALUE]: only runs with this choice or config key: model=conv seed=1,2"),
    ] = None,
    sort: Annotated[str | None, typer.Option(help="a column; accuracies best first, all else smallest first")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="the other way round")] = False,
    columns: Annotated[str | None, typer.Option(help="COLUMN,COLUMN,…: these alone, any config key included")] = None,
    sweeps: Annotated[bool, typer.Option("--sweeps", help="list the sweeps alone")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="print CSV: the runs, or with --sweeps the sweeps")] = False,
) -> None:
    """List runs and sweeps: how far they are, the config keys in which they differ, and their results.

    Damaged folders are listed with what is wrong. `kws_experiments.runs.find.find_runs` gives a pandas DataFrame.
    """
    from kws_experiments.runs.find import find_runs, find_sweeps_below

    if sweeps:
        if where:
            raise KwsError("--where: goes with runs, not with --sweeps")
        table = _arranged(find_sweeps_below(folder), sort, reverse, columns)
        _print(table, csv, "Sweeps")
        return
    listed = find_runs(folder, _conditions(where or []), all_keys=columns is not None)
    table = _arranged(listed, sort, reverse, columns)
    if columns is None and not csv:  # what a person can do without
        table = _concise(table)
    if listed.empty and not csv:
        say(f"no run in '{folder}'" + (f" has {' and '.join(where)}" if where else ""))
    else:
        _print(table, csv, "Runs")
    if not csv and not where and columns is None and len(found := find_sweeps_below(folder)):
        _print(found, csv, "Sweeps")


def _conditions(where: list[str]) -> dict[str, Any]:
    conditions = {}
    for text in where:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise KwsError(f"--where must be KEY=VALUE, got '{text}'")
        conditions[key] = [value] if value.startswith("[") else value.split(",")
    return conditions


def _arranged(table: pd.DataFrame, sort: str | None, reverse: bool, columns: str | None) -> pd.DataFrame:
    from kws_experiments.config.overrides import near

    for option, names in (("--sort", [sort] if sort else []), ("--columns", columns.split(",") if columns else [])):
        if unknown := [name for name in names if name not in table.columns]:
            raise KwsError(f"{option}: no column '{unknown[0]}'" + near(unknown[0], table.columns))
    if sort:
        order = {"ascending": (sort in _BEST_FIRST) == reverse, "kind": "stable", "na_position": "last"}
        try:
            table = table.sort_values(sort, **order)
        except TypeError:  # names and numbers, say
            table = table.sort_values(sort, key=lambda column: column.map(str, na_action="ignore"), **order)
    return table[columns.split(",")] if columns else table


def _concise(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns that say nothing, or nothing that a shorter column doesn't say as well."""
    import pandas as pd

    table = table.drop(columns=_FOR_CSV)
    if table["name"].nunique() == 1:
        table = table.drop(columns="name")
    table = table.drop(columns=[name for name in table.columns if name.startswith(("pipeline.", "loggers", "report"))])
    texts = table.map(str)
    dropped = [name for name in table.columns if name not in _ALWAYS and table[name].isna().all()]
    for name in table.columns:
        group, dot, _ = name.partition(".")
        if not dot:
            continue
        set_by_choice = group in texts and not pd.crosstab(texts[group], texts[name]).gt(0).sum(axis=1).gt(1).any()
        shorter = [other for other in texts if other.partition(".")[0] == group and len(other) < len(name)]
        last = name.rsplit(".", 1)[-1]
        if set_by_choice or any(o.rsplit(".", 1)[-1] == last and texts[o].equals(texts[name]) for o in shorter):
            dropped.append(name)
    return table.drop(columns=dropped)


def _print(table: pd.DataFrame, csv: bool, title: str) -> None:
    if csv:
        say_document(to_csv(table))
        return
    from kws_experiments.console.tables import print_table
    from kws_experiments.reports.sweep_summary import short_names

    errors = table["error"].dropna() if "error" in table else []
    table = table.drop(columns="error", errors="ignore")
    columns = [
        (heading, [_cell(name, value) for value in table[name]])
        for name, heading in zip(table.columns, short_names(list(table.columns)), strict=True)
    ]
    print_table(columns, title=title, keep=(*_ALWAYS, "model"), rest="a wider terminal, --columns or --csv shows them")
    for error in errors:
        say(error, style="red")


def _cell(name: str, value: Any) -> str:
    import pandas as pd

    if not isinstance(value, list | dict) and pd.isna(value):
        return "–"
    if name == "started":
        return str(value)[:16].replace("T", " ")
    if name in _IN_PERCENT:
        return f"{value:.1%}"
    if name == "swept":
        from kws_experiments.reports.sweep_summary import short_names

        return " ".join(short_names(value.split()))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
