"""The page of `kws evaluate-stream`: what was missed and falsely accepted in long recordings, by condition too."""

from __future__ import annotations

from pathlib import Path

from kws_data.storage.atomic import replace_files
from kws_experiments.evaluation import intervals
from kws_experiments.plots.streams import chosen
from kws_experiments.reports import run_pictures, run_tables
from kws_experiments.reports.contents import Listening
from kws_experiments.reports.html import HTML, as_html
from kws_experiments.reports.page import Group, Page, Part, Section, Text, Tiles, filled
from kws_experiments.reports.run_tables import interval, known, per_hour
from kws_experiments.reports.tables import fixed, percent


def write_stream_page(folder: Path) -> Path:
    """Write the page into the folder of the results, without which it needs nothing.

    Returns:
        the HTML file.

    Raises:
        KwsError: one of the results is missing or damaged.
    """
    replace_files({folder / HTML: as_html(_page(Listening.read(folder))).encode()})
    return folder / HTML


def results(stream: Listening) -> str:
    """What was detected, in a few sentences."""
    metrics, median = stream.metrics, stream.metrics["latency_ms"]["median"]
    missed = f" ({percent(metrics['miss_rate'])})" if metrics["keywords"] else ""
    text = (
        f"{60 * metrics['hours']:.0f} minutes with {metrics['keywords']} keywords and {metrics['unknown_words']}"
        f" other words. With {chosen(metrics)}: {metrics['correct']} correct,"
        f" {metrics['missed']} missed{missed}, {metrics['wrong']} wrong,"
        f" {metrics['false_accepts']} false accepts:"
        f" {intervals.as_text(intervals.false_accepts(metrics['false_accepts'], metrics['hours']))}."
    )
    return text if median is None else f"{text} Detected {median:.0f} ms after the word's end (median)."


def _page(stream: Listening) -> Page:
    metrics = stream.metrics
    warnings = [f"'{name}' is set aside: {reason}" for name, reason in metrics["set_aside"].items()]
    if not metrics.get("shown", True):
        asked = metrics["false_accepts_per_hour_asked"]
        warnings.insert(0, f"{chosen(metrics)}: {intervals.not_shown(metrics, asked)}")
    return Page(
        title=f"{stream.name}: long recordings",
        heading=stream.name,
        lead=[Tiles(_tiles(stream)), Text(results(stream)), *(Text(line, "warning") for line in warnings)],
        sections=[
            Section("curve", "Misses against false accepts", _curve(stream)),
            Section("conditions", "By condition", _conditions(stream)),
        ],
        footer="Written by kws evaluate-stream from the files beside it.",
    )


def _tiles(stream: Listening) -> list[tuple[str, str, str]]:
    metrics = stream.metrics
    misses = (
        f"of {metrics['keywords']}; 95 %: {interval(metrics['miss_rate_95'])}"
        if metrics["keywords"]
        else "none is said"
    )
    accepts = f"in {metrics['hours']:.2f} hours; 95 %: {per_hour(metrics['false_accepts_per_hour_95'])}"
    late = metrics["latency_ms"]
    return [
        ("Keywords missed", known(metrics["miss_rate"], percent), misses),
        ("False accepts an hour", fixed(1)(metrics["false_accepts_per_hour"]), accepts),
        (
            "Latency",
            known(late["median"], lambda ms: f"{ms:.0f} ms"),
            known(late["p90"], "90 % within {:.0f} ms".format),
        ),
    ]


def _curve(stream: Listening) -> list[Part]:
    return [
        run_pictures.listening(stream),
        run_tables.listening_table(stream),
        Text(
            "Each threshold is for all words, and was chosen on these same recordings. No hours show that no false"
            " accept happens at all.",
            "note",
        ),
    ]


def _conditions(stream: Listening) -> list[Part]:
    worst, tables = stream.metrics["worst_speakers"], run_tables.condition_tables(stream)
    line = None
    if worst is not None:
        misses = intervals.wilson(worst["missed"], worst["said"])
        line = Text(
            f"The tenth of the {worst['of']} speakers with the most misses ({', '.join(worst['speakers'])}):"
            f" {percent(worst['miss_rate'])} of {worst['said']} keywords missed, 95 % interval {interval(misses)}."
        )
    note = (
        "A false accept counts for what is said where it happens; where nothing is, for its word and recording alone."
    )
    return [*filled(line, Group(tables)), Text(note, "note")] if tables else []
