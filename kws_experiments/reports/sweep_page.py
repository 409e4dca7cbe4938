"""The report of a sweep: HTML, Markdown with its pictures, and the tables as CSV, in the sweep's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kws_data.storage.atomic import replace_dir
from kws_experiments.reports import sweep_pictures
from kws_experiments.reports.pictures import Picture, draw
from kws_experiments.reports.rendering import render
from kws_experiments.reports.run_report import HTML, MARKDOWN
from kws_experiments.reports.sweep_contents import SweepContents, gather
from kws_experiments.reports.sweep_statistics import LEVEL
from kws_experiments.reports.tables import Table, cell, fixed, number, of_frame, percent, table
from kws_experiments.runs.folder import write_text
from kws_experiments.runs.sweep_record import Sweep

PICTURES = "report_pictures"
CSV_FILES = ("settings", "comparisons", "effects", "runs")
_ABOUT_DIFFERENCES = (
    f"Points of test accuracy. The intervals hold at {100 * LEVEL:.0f} % for all of them together: speakers are"
    " drawn anew with all their clips, and each setting's runs, where it has several (bootstrap, Bonferroni). Where a"
    " setting has one run, its spread over seeds isn't known, and the interval leaves it out. Settings whose interval"
    " holds zero can't be told apart by these clips."
)
_ABOUT_EFFECTS = (
    "Runs that differ in one key alone are compared: the effect of a value is its accuracy less the mean over the key's"
    " values, averaged over all such blocks in which every value is done."
)
_COST_FORMATS = {"parameters": fixed(0), "multiply_adds": fixed(0), "latency_ms": fixed(2)}
_COST_HEADINGS = {"parameters": "parameters", "multiply_adds": "multiply-adds", "latency_ms": "latency (ms)"}


def write_sweep_report(sweep: Sweep) -> Path:
    """Write the report into the sweep's folder; an older one is replaced.

    Returns:
        the HTML file.

    Raises:
        KwsError: no job is done, or a run's files are damaged.
    """
    contents = gather(sweep)
    drawn = _pictures(contents)
    values = _values(contents, drawn)
    html, markdown = render("sweep.html.j2", **values), render("sweep.md.j2", **values)
    with replace_dir(sweep.path / PICTURES) as folder:
        for picture in drawn:
            (folder / f"{picture.name}.png").write_bytes(picture.png)
    for name in CSV_FILES:
        frame = getattr(contents, name)
        write_text(sweep.path / f"{name}.csv", frame.to_csv(index=name == "settings"))
    write_text(sweep.path / MARKDOWN, markdown)
    write_text(sweep.path / HTML, html)
    return sweep.path / HTML


def _pictures(contents: SweepContents) -> list[Picture]:
    possible = sweep_pictures.all_of(contents.settings, contents.runs, contents.effects, contents.keys)
    return [draw(name, title, figure) for name, title, figure in possible]


def _values(contents: SweepContents, pictures: list[Picture]) -> dict[str, Any]:
    sweep, done = contents.sweep, len(contents.runs)
    swept = ", ".join(sweep.swept) or "nothing"
    when = f"{sweep.started[:16].replace('T', ' ')} UTC"
    return {
        "name": sweep.path.parent.parent.name,
        "summary": f"{done} of {sweep.planned} jobs are done; swept: {swept}; begun {when}",
        "statements": contents.statements,
        "settings": _settings(contents),
        "comparisons": _comparisons(contents),
        "effects": _effects(contents),
        "runs": _runs(contents),
        "unfinished": _unfinished(contents),
        "pictures": pictures,
        "costs": [picture for picture in pictures if picture.name.startswith("cost_")],
        "effects_pictures": [picture for picture in pictures if picture.name.startswith("effect_")],
        "about_differences": _ABOUT_DIFFERENCES,
        "about_effects": _ABOUT_EFFECTS,
        "command": sweep.command,
        "sections": _sections(contents, pictures),
        "files": [f"{name}.csv" for name in CSV_FILES],
        "folder": PICTURES,
    }


def _sections(contents: SweepContents, pictures: list[Picture]) -> list[tuple[str, str]]:
    names = {picture.name.partition("_")[0] for picture in pictures}
    sections = {
        "result": ("What came out", True),
        "differences": ("Differences", len(contents.comparisons) > 0),
        "costs": ("Accuracy against cost", "cost" in names),
        "effects": ("What each key changes", "effect" in names or len(contents.effects) > 0),
        "runs": ("Runs", True),
        "unfinished": ("Not done", bool(contents.unfinished)),
        "repeat": ("To repeat it", True),
    }
    return [(name, title) for name, (title, there) in sections.items() if there]


def _settings(contents: SweepContents) -> Table:
    columns: dict[str, Any] = {"setting": ("setting", None), "runs": ("runs", number)}
    columns |= {"validation_mean": ("validation", percent), "mean": ("test", percent)}
    columns |= {"std": ("deviation", _spread), "min": ("least", percent), "max": ("most", percent)}
    columns |= {cost: (heading, _COST_FORMATS[cost]) for cost, heading in _COST_HEADINGS.items()}
    return of_frame("Settings, the best on validation first", contents.settings.reset_index(), columns)


def _comparisons(contents: SweepContents) -> Table:
    columns: dict[str, Any] = {"better": ("higher", None), "worse": ("lower", None), "difference": ("points", _points)}
    columns |= {"low": ("from", _points), "high": ("to", _points), "verdict": ("so", None)}
    if contents.comparisons["mcnemar_p"].notna().any():
        columns |= {"mcnemar_p": ("McNemar's p", number)}
    verdicts = contents.comparisons["distinguishable"].map({True: "distinguishable", False: "not distinguishable"})
    return of_frame("Differences between settings", contents.comparisons.assign(verdict=verdicts), columns)


def _effects(contents: SweepContents) -> Table:
    columns: dict[str, Any] = {"key": ("key", None), "value": ("value", None), "effect": ("points", _points)}
    columns |= {"std": ("standard deviation", _spread), "blocks": ("blocks", number)}
    return of_frame("Effects of the swept keys", contents.effects, columns)


def _runs(contents: SweepContents) -> Table:
    columns: dict[str, Any] = {"job": ("job", number)}
    columns |= {key: (key.lstrip("+"), None) for key in contents.sweep.swept}
    columns |= {"validation_accuracy": ("validation", percent), "accuracy": ("test", percent)}
    columns |= {"macro_f1": ("macro F1", fixed(3)), "seconds": ("seconds", fixed(0)), "run": ("run", None)}
    made = of_frame("Runs; each leads to its own report", contents.runs, columns)
    links = contents.runs["report"]
    rows = [[*row[:-1], cell(row[-1].text, href=link)] for row, link in zip(made.rows, links, strict=True)]
    return Table(made.title, made.columns, rows)


def _unfinished(contents: SweepContents) -> Table:
    columns: dict[str, Any] = {"job": ("job", number), "overrides": ("overrides", None)}
    columns |= {"status": ("status", None), "error": ("why", None)}
    rows = [vars(job) | {"overrides": " ".join(job.overrides)} for job in contents.unfinished]
    return table("Jobs that failed, were stopped or still run", rows, columns)


def _spread(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")
