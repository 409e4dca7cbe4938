"""The report of a sweep: HTML, Markdown with its pictures, and the tables as CSV, in the sweep's folder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from kws_data.storage.atomic import replace_dir
from kws_data.text import to_csv
from kws_experiments.plots import sweeps
from kws_experiments.reports.html import HTML, as_html
from kws_experiments.reports.markdown import as_markdown
from kws_experiments.reports.page import Bullets, Code, Group, Page, Part, Section, Text, filled
from kws_experiments.reports.pictures import Picture, draw
from kws_experiments.reports.run_report import MARKDOWN
from kws_experiments.reports.sweep_contents import COSTS, SweepContents, gather
from kws_experiments.reports.sweep_statistics import LEVEL, pareto_front
from kws_experiments.reports.tables import Columns, Table, fixed, number, percent, table
from kws_experiments.runs.folder import write_text
from kws_experiments.runs.sweep_record import Job, Sweep

PICTURES = "report_pictures"
CSV_FILES = ("settings", "comparisons", "effects", "runs")
_MOST_VALUES = 8  # of a key: with more, a key of numbers has an axis of its own
_ABOUT_DIFFERENCES = (
    f"Points of test accuracy. The intervals hold at {100 * LEVEL:.0f} % for all of them together: speakers are"
    " drawn anew with all their clips, and so are each setting's runs, if it has several (bootstrap, Bonferroni). If a"
    " setting has one run, its spread over seeds is unknown, and the interval leaves it out. Settings whose interval"
    " contains zero cannot be distinguished by these clips."
)
_ABOUT_EFFECTS = (
    "Runs that differ in one key alone are compared: the effect of a value is its accuracy less the mean over the key's"
    " values, averaged over all such blocks in which every value is done."
)
_ABOUT_PRUNED = (
    "The search gave them up, since others were better at the same evaluation. They have no result, so they are in no"
    " mean, and the sweep's command leaves them alone. `python train.py` with a job's overrides trains it to the end."
)
_ABOUT_UNFINISHED = "The sweep's command, given again, does what is missing and leaves the rest alone."


def write_sweep_report(sweep: Sweep) -> Path:
    """Write the report into the sweep's folder; an older one is replaced.

    Returns:
        the HTML file.

    Raises:
        KwsError: no job is done, or a run's files are damaged.
    """
    contents = gather(sweep)
    page = _page(contents)
    html, markdown = as_html(page), as_markdown(page, PICTURES)
    with replace_dir(sweep.path / PICTURES) as folder:
        for picture in page.pictures():
            (folder / f"{picture.name}.png").write_bytes(picture.png)
    for name in CSV_FILES:
        frame = getattr(contents, name)
        write_text(sweep.path / f"{name}.csv", to_csv(frame.reset_index() if name == "settings" else frame))
    write_text(sweep.path / MARKDOWN, markdown)
    write_text(sweep.path / HTML, html)
    return sweep.path / HTML


def _page(contents: SweepContents) -> Page:
    sweep, settings, effects = contents.sweep, contents.settings, contents.effects
    by_setting = draw("settings", "Test accuracy by setting", partial(sweeps.by_setting, settings, contents.runs))
    pruned = _jobs("Jobs that were pruned", contents.pruned)
    unfinished = _jobs("Jobs that failed, were stopped or still run", contents.unfinished)
    sections = [
        Section("result", "Results", [Bullets(contents.statements), _settings(settings), by_setting]),
        Section("differences", "Differences", _about(_ABOUT_DIFFERENCES, _differences(contents))),
        Section("costs", "Accuracy against cost", filled(Group(list(_by_cost(settings))))),
        Section(
            "effects",
            "Effects of the swept keys",
            _about(_ABOUT_EFFECTS, Group(list(_by_key(contents))), _effects(effects)),
        ),
        Section("runs", "Runs", [_runs(contents)]),
        Section("pruned", "Pruned jobs", _about(_ABOUT_PRUNED, pruned)),
        Section(
            "unfinished",
            "Unfinished jobs",
            _about(_ABOUT_UNFINISHED, unfinished, look="warning"),
        ),
        Section("repeat", "How to repeat it", [Code(sweep.command)]),
    ]
    name = f"Sweep: {sweep.path.parent.parent.name}"
    summary = (
        f"{len(contents.runs)} of {sweep.planned} jobs are done"
        + (f", {len(contents.pruned)} were pruned" if contents.pruned else "")
        + f"; swept: {', '.join(sweep.swept) or 'nothing'}; begun {sweep.started[:16].replace('T', ' ')} UTC"
    )
    return Page(
        title=name,
        heading=name,
        lead=[Text(summary, "subtitle")],
        sections=[section for section in sections if section.parts],
        footer=f"The tables of this page are beside it as CSV: {', '.join(f'{name}.csv' for name in CSV_FILES)}.",
    )


def _about(text: str, *parts: Part, look: str = "note") -> list[Part]:
    """The parts that have contents, after a text about them; nothing without them."""
    shown = filled(*parts)
    return [Text(text, look), *shown] if shown else []


def _by_cost(settings: pd.DataFrame) -> Iterator[Picture]:
    for cost, label in COSTS.items():
        known = settings.dropna(subset=[cost, "mean"])
        if known[cost].nunique() > 1:
            front = known[pareto_front(known[cost].to_numpy(), known["mean"].to_numpy())]
            figure = partial(sweeps.against_cost, known, front, cost, label)
            yield draw(f"cost_{cost}", f"Test accuracy against {label}", figure)


def _by_key(contents: SweepContents) -> Iterator[Picture]:
    runs, effects = contents.runs, contents.effects
    for index, key in enumerate(contents.keys):
        if pd.api.types.is_numeric_dtype(runs[key]) and runs[key].nunique() > _MOST_VALUES:
            yield draw(f"effect_{index}", f"Accuracy by {key}", partial(sweeps.by_number, key, runs))
        elif (effects["key"] == key).any():
            yield draw(f"effect_{index}", f"Effect of {key}", partial(sweeps.effect_of, key, effects))


def _settings(settings: pd.DataFrame) -> Table:
    columns: Columns = {
        "setting": "setting",
        "runs": ("runs", number),
        "validation_mean": ("validation", percent),
        "mean": ("test", percent),
        "std": ("deviation", _spread),
        "min": ("least", percent),
        "max": ("most", percent),
        "parameters": ("parameters", fixed(0)),
        "multiply_adds": ("multiply-adds", fixed(0)),
        "latency_ms": ("latency (ms)", fixed(2)),
    }
    return table("Settings, the best on validation first", settings.reset_index(), columns)


def _differences(contents: SweepContents) -> Table:
    columns: Columns = {
        "better": "higher",
        "worse": "lower",
        "difference": ("points", _points),
        "low": ("from", _points),
        "high": ("to", _points),
        "verdict": "verdict",
    }
    if contents.comparisons["mcnemar_p"].notna().any():
        columns = {**columns, "mcnemar_p": ("McNemar's p", number)}
    verdicts = contents.comparisons["distinguishable"].map({True: "distinguishable", False: "not distinguishable"})
    return table("Differences between settings", contents.comparisons.assign(verdict=verdicts), columns)


def _effects(effects: pd.DataFrame) -> Table:
    columns: Columns = {
        "key": "key",
        "value": "value",
        "effect": ("points", _points),
        "std": ("standard deviation", _spread),
        "blocks": ("blocks", number),
    }
    return table("Effects of the swept keys", effects, columns)


def _runs(contents: SweepContents) -> Table:
    columns: Columns = {
        "job": ("job", number),
        **{key: key.lstrip("+") for key in contents.sweep.swept},
        "validation_accuracy": ("validation", percent),
        "accuracy": ("test", percent),
        "macro_f1": ("macro F1", fixed(3)),
        "seconds": ("seconds", fixed(0)),
        "run": "run",
    }
    return table("Runs, with links to their reports", contents.runs, columns, {"run": "report"})


def _jobs(title: str, jobs: list[Job]) -> Table:
    rows = [vars(job) | {"overrides": " ".join(job.overrides), "run": job.folder and job.folder.name} for job in jobs]
    columns: Columns = {"number": ("job", number), "overrides": "overrides", "run": "run",
               "status": "status", "error": "reason"}  # fmt: skip
    return table(title, rows, columns)


def _spread(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")
