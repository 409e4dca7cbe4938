"""The report of a run (`kws report RUN`): one HTML file, and the same in Markdown with its pictures beside it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kws_data.errors import KwsError
from kws_data.storage.atomic import replace_files
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.reports import players, run_pictures, run_tables
from kws_experiments.reports.contents import Evaluation, RunContents
from kws_experiments.reports.rendering import render
from kws_experiments.reports.tables import Table

log = logging.getLogger(__name__)

HTML, MARKDOWN, PICTURES = "report.html", "report.md", "figures"
MOST_BYTES = 5_000_000  # of the HTML file
PICTURED_EVALUATIONS = 6  # of those by `kws evaluate`; the others are told in figures

SECTIONS = (
    ("run", "What was run"),
    ("data", "On what"),
    ("training", "How it went"),
    ("figures", "How good it is"),
    ("failures", "Where it fails"),
    ("costs", "What it costs"),
    ("repeat", "How to repeat it"),
)
EVALUATIONS = ("evaluations", "On other clips")
EXPORTS = ("exports", "Its exports")
STREAMS = ("streams", "Listening to long recordings")


def write_run_report(path: Path, out: Path | None = None) -> Path:
    """Write `report.html`, `report.md` and `figures/` into a run's folder, or into `out`; all of them or none.

    Needs neither the data set nor TensorFlow: everything is in the folder.

    Returns:
        the HTML file.

    Raises:
        KwsError: `path` is no folder of a finished run, one of its files is missing, damaged or of another version, or
            the report can't be written.
    """
    contents = RunContents.read(path)
    values = page_values(contents)
    for clips in range(len(values["players"]), -1, -1):
        values["players"] = values["players"][:clips]
        html = render("run.html.j2", **values).encode()
        if len(html) < MOST_BYTES:
            break
    else:
        raise KwsError(f"'{path}': its report has {len(html) / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:g}")
    folder = path if out is None else out
    markdown = render("run.md.j2", **values).encode()
    pictures = {folder / PICTURES / f"{picture.name}.png": picture.png for picture in values["all_pictures"]}
    try:
        replace_files({folder / HTML: html, folder / MARKDOWN: markdown, **pictures})
    except OSError as error:
        raise KwsError(f"the report can't be written into '{folder}': {error.strerror or error}") from error
    return folder / HTML


def renew_run_report(path: Path) -> None:
    """Write a run's report again, if it has one, since its folder now holds more; a failure is only a warning."""
    if (path / HTML).is_file():
        try:
            write_run_report(path)
        except KwsError as error:
            log.warning("the report is as it was: %s", error)


def page_values(contents: RunContents) -> dict[str, Any]:
    """What both templates show."""
    run, own, command = contents.run, contents.own, contents.command
    experiment = command.choices.get("experiment") if command else None
    curves, pictures, worst = run_pictures.curves(contents), run_pictures.of_evaluation(own), run_pictures.clips(own)
    others = [_other(place, evaluation) for place, evaluation in enumerate(contents.others)]
    drawn = [curves, *pictures, *([worst] if worst else []), *(o["picture"] for o in others if o["picture"])]
    streams = [
        (
            stream.name,
            run_tables.listening_told(stream),
            run_pictures.listening(stream),
            run_tables.listening_table(stream),
        )
        for stream in contents.streams
    ]
    drawn += [picture for _, _, picture, _ in streams]
    more = ((EVALUATIONS, others), (EXPORTS, contents.exports), (STREAMS, streams))
    return {
        "sections": [*SECTIONS, *(section for section, there in more if there)],
        "name": Experiment(run.config).name,
        "folder": shown_path(run.folder.path),
        "started": f"{run.record['started'][:16].replace('T', ' ')} UTC",
        "record": run.record,
        "metrics": own.metrics,
        "interval": run_tables.interval,
        "false_accept_rate": Experiment(run.config).false_accept_rate,
        "tiles": run_tables.tiles(contents),
        "command": command,
        "experiment": experiment,
        "differences": None
        if contents.differences is None
        else run_tables.difference_table(contents.differences, experiment),
        "config_yaml": run.folder.config.read_text(encoding="utf-8"),
        "labels": _filled(run_tables.label_table, contents),
        "catalog": _filled(run_tables.catalog_table, contents),
        "aside": _filled(run_tables.aside_table, contents),
        "curves": curves,
        "pictures": pictures,
        "classes": run_tables.class_table(own),
        "noise": _filled(run_tables.noise_table, own),
        "pairs": _filled(run_tables.pair_table, own),
        "unknown_folders": _filled(run_tables.folder_table, own),
        "speakers": _filled(run_tables.speaker_table, own),
        "wrong": _filled(run_tables.wrong_table, own),
        "players": _players(own),
        "worst": worst,
        "cost": run_tables.cost_table(contents.cost) if contents.cost else None,
        "reproduce": shlex.join(["kws", "reproduce", shown_path(run.folder.path)]),
        "others": others,
        "exports": _filled(run_tables.export_table, contents),
        "streams": streams,
        "all_pictures": drawn,
        "waveform": (players.WIDTH, players.HEIGHT),
    }


def shown_path(path: Path) -> str:
    """`runs/<name>/<fingerprint>` where the folder is such, else the whole path: the same from any place."""
    whole = path.resolve()
    parts = whole.parts[-3:]
    return "/".join(parts) if len(parts) == 3 and parts[0] == "runs" else str(whole)


def _filled(make: Callable[[Any], Table], of: Any) -> Table | None:
    """The table, unless it has no row."""
    table = make(of)
    return table if table.rows else None


def _players(evaluation: Evaluation) -> list[tuple[dict[str, Any], players.Player]]:
    """(row of the table, player) of each clip that was kept."""
    rows = evaluation.tables["confidently_wrong"].to_dict("records")
    return [
        ({str(key): value for key, value in row.items()}, players.player(clip))
        for row, clip in zip(rows, evaluation.clips, strict=False)
    ]


def _other(place: int, evaluation: Evaluation) -> dict[str, Any]:
    """What the templates show of an evaluation on other clips."""
    pictured = place < PICTURED_EVALUATIONS
    return {
        "name": evaluation.name,
        "metrics": evaluation.metrics,
        "classes": run_tables.class_table(evaluation),
        "pairs": _filled(run_tables.pair_table, evaluation),
        "picture": run_pictures.confusion(evaluation) if pictured else None,
    }
