"""The report of a run as a page: what is said, in which order."""

from __future__ import annotations

import shlex
from pathlib import Path

from kws_experiments.export.table import micro_lines
from kws_experiments.reports import run_pictures, run_tables
from kws_experiments.reports.contents import Evaluation, Listening, RunContents
from kws_experiments.reports.page import Clips, Code, Group, Heading, Page, Part, Section, Text, Tiles, filled
from kws_experiments.reports.players import player
from kws_experiments.reports.run_tables import interval
from kws_experiments.reports.stream_page import results
from kws_experiments.reports.tables import number, percent
from kws_experiments.runs.finished import FinishedRun

PICTURED_EVALUATIONS = 6  # of those by `kws evaluate`; the others have no confusion matrix


def run_page(contents: RunContents) -> Page:
    """The whole report."""
    sections = [
        Section("configuration", "Configuration", _configuration(contents)),
        Section("data", "Data", _data(contents)),
        Section("training", "Training", [run_pictures.curves(contents)]),
        Section("results", "Results", _results(contents)),
        Section("new_words", "New words", _new_words(contents)),
        Section("errors", "Errors", _errors(contents.own)),
        Section("cost", "Cost", _cost(contents)),
        Section("repeat", "How to repeat it", _repeat(contents)),
        Section("evaluations", "Other clips", _other_clips(contents.others)),
        Section("sensitivities", "Sensitivities", _sensitivities(contents.run)),
        Section("exports", "Exports", _exports(contents)),
        Section("streams", "Long recordings", _long_recordings(contents.streams)),
    ]
    name = contents.experiment.name
    return Page(
        title=f"{name}: {percent(contents.own.metrics['accuracy'])}",
        heading=name,
        lead=_lead(contents),
        sections=[section for section in sections if section.parts],
        footer="Written by kws report from the files in the run's folder.",
    )


def _exports(contents: RunContents) -> list[Part]:
    lines = [f"{artifact.title}: {line}." for artifact in contents.exports for line in micro_lines(artifact)]
    return filled(run_tables.export_table(contents), *map(Text, lines))


def _lead(contents: RunContents) -> list[Part]:
    run, metrics = contents.run, contents.own.metrics
    speakers, by_speaker = metrics["speakers"], metrics["accuracy_95_by_speaker"]
    accuracy = f"{percent(metrics['accuracy'])} of {number(metrics['clips'])} {metrics['split']} clips"
    if speakers > 1:
        accuracy += f" by {number(speakers)} speakers"
    accuracy += f" are right. The 95 % interval is {interval(metrics['accuracy_95'])} over clips (Wilson)"
    if by_speaker:
        accuracy += f", and {interval(by_speaker)} over speakers (bootstrap), since the clips of a speaker are alike"
    return filled(
        Text(f"{shown_path(run.folder.path)}, started {run.record['started'][:16].replace('T', ' ')} UTC", "subtitle"),
        Tiles(run_tables.tiles(contents)),
        Text(f"{accuracy}."),
        Text(
            "The split leaves no clip for testing: these are the validation clips, by which the best weights were"
            " chosen.",
            "warning",
        )
        if metrics["split"] != "testing"
        else None,
    )


def _configuration(contents: RunContents) -> list[Part]:
    experiment = contents.command.choices.get("experiment") if contents.command else None
    changes: Part
    if contents.differences is None:
        changes = Text("The defaults can't be composed any more, so the differences from them are unknown.", "note")
    elif contents.differences:
        changes = run_tables.difference_table(contents.differences, experiment)
    else:
        changes = Text(f"{f'The experiment {experiment}' if experiment else 'The defaults'}, nothing changed.")
    config = contents.run.folder.config.read_text(encoding="utf-8")
    return [changes, Code(config, "yaml", summary="The whole configuration")]


def _data(contents: RunContents) -> list[Part]:
    record, roots = contents.run.record, contents.own.metrics["audio"]["roots"].values()
    return filled(
        Text(f"Licence: {record['data_licence']}") if record.get("data_licence") else None,
        Text(f"Citation: {record['data_citation']}") if record.get("data_citation") else None,
        *(Text(root, "note") for root in roots),
        Group(list(filter(None, [run_tables.label_table(contents), run_tables.catalog_table(contents)]))),
        run_tables.aside_table(contents) or Text("No file was set aside."),
    )


def _results(contents: RunContents) -> list[Part]:
    rate, split = contents.experiment.false_accept_rate, contents.own.metrics["split"]
    return filled(
        Group(run_pictures.of_evaluation(contents.own)),
        run_tables.class_table(contents.own),
        Text(
            f"A threshold is the lowest at which at most {percent(rate)} of other validation clips were taken for the"
            f" keyword; the rates at it are those of the {split} clips.",
            "note",
        ),
        run_tables.noise_table(contents.own),
    )


def _new_words(contents: RunContents) -> list[Part]:
    found = contents.new_words
    if not found:
        return []
    line = f"Missed at a threshold that {percent(found['false_accept_rate'])} of other validation clips pass."
    if others := found.get("others"):
        line += (
            f" Of the {number(others['clips'])} validation clips of all other classes {percent(others['before'])} were"
            f" right before, and {percent(others['after'])} are now."
        )
    return filled(run_tables.new_word_table(found), Text(line, "note"))


def _errors(own: Evaluation) -> list[Part]:
    pairs, wrong = run_tables.pair_table(own), run_tables.wrong_table(own)
    tables = [table for table in (pairs, run_tables.folder_table(own), run_tables.speaker_table(own)) if table]
    played: list[Part] = []
    if own.clips:
        rows = list(own.tables["confidently_wrong"].head(len(own.clips)).itertuples())
        titles = [f"{row.label} → {row.predicted}" for row in rows]
        players = [
            player(clip, f"{title}, score {row.confidence:.3f}", row.clip)
            for clip, title, row in zip(own.clips, titles, rows, strict=True)
        ]
        played = [
            Heading("The most confidently wrong clips"),
            Text(
                "Label → prediction, and the model's input: waveforms above features, which run from left to right in"
                " time and upwards in frequency. Players scale each waveform to its peak.",
                "note",
            ),
            Clips(players, run_pictures.worst_clips(own, titles)),
        ]
    elif wrong:
        played = [Text("This evaluation kept no clips to play; kws evaluate keeps them.", "note")]
    return filled(None if pairs else Text("Every clip is right."), Group(tables), *played, wrong)


def _cost(contents: RunContents) -> list[Part]:
    if not contents.cost:
        return [Text("Not measured: the run is of an older version.")]
    return [run_tables.cost_table(contents.cost)]


def _repeat(contents: RunContents) -> list[Part]:
    run, command = contents.run, contents.command
    record = run.record
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    return filled(
        Text("From the run's folder, with a comparison of weights and predictions:"),
        Code(shlex.join(["kws", "reproduce", shown_path(run.folder.path)])),
        Text("Or the training alone:") if command else None,
        Code(command.line) if command else None,
        Text(
            f"Python {record['python']} on {record['platform']}; {versions}. Fingerprints: configuration"
            f" {record['fingerprint']}, data {record['data_fingerprint']}.",
            "note",
        ),
    )


def _other_clips(others: list[Evaluation]) -> list[Part]:
    parts: list[Part | None] = []
    for index, other in enumerate(others):
        metrics = other.metrics
        results = (
            f"{percent(metrics['accuracy'])} of {number(metrics['clips'])} clips of {metrics['split']} (95 % interval"
            f" {interval(metrics['accuracy_95'])}); macro-F1 {percent(metrics['macro_f1'])}; expected calibration error"
            f" {percent(metrics['calibration']['expected_calibration_error'])}."
        )
        if trained_on := metrics.get("heard_in_training"):
            results += f" The run was trained on {number(trained_on)} of these clips."
        parts += [
            Heading(other.name),
            Text(results),
            run_pictures.confusion(other) if index < PICTURED_EVALUATIONS else None,
            run_tables.class_table(other),
            run_tables.noise_table(other),
            run_tables.pair_table(other),
        ]
    return filled(*parts)


def _sensitivities(run: FinishedRun) -> list[Part]:
    tuned, tuned_on = run.listening.tuned, run.listening.tuned_on
    if not tuned:
        return []
    settings, streams = next(iter(tuned.values()))["settings"], tuned_on["streams"]
    minutes = sum(stream["minutes"] for stream in streams)
    speech = tuned_on.get("speech")  # not of earlier versions
    spoken = f", and of running speech ({speech['speech']})" if speech else ""
    return [
        Text(
            f"Chosen by kws tune for long audio, on {minutes:g} minutes made of {number(tuned_on['different_clips'])}"
            f" validation clips of keywords and {number(tuned_on['different_unknown_clips'])} of other words, which"
            f" come again and again{spoken}. The rates are those of these same streams. Scores are averaged over"
            f" {settings['average_window_ms']:g} ms; suppression is {settings['suppression_ms']:g} ms."
        ),
        run_tables.sensitivity_table(tuned),
        run_tables.tuned_threshold_table(tuned),
    ]


def _long_recordings(streams: list[Listening]) -> list[Part]:
    parts: list[Part] = []
    for stream in streams:
        parts += [Heading(stream.name), Text(results(stream))]
        parts += [run_pictures.listening(stream), run_tables.listening_table(stream)]
    return parts


def shown_path(path: Path) -> str:
    """`runs/<name>/<fingerprint>` if the folder is such, else the whole path: the same from any folder."""
    whole = path.resolve()
    parts = whole.parts[-3:]
    return "/".join(parts) if len(parts) == 3 and parts[0] == "runs" else str(whole)
