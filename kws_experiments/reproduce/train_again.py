"""`kws reproduce`, in the process that `restart` starts: find the run's data, train again, and compare."""

from __future__ import annotations

from kws_experiments.config import interrupts

with interrupts.on_interrupt(interrupts.end):
    import json
    import logging
    import sys
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    import pandas as pd
    import typer

    from kws_data.errors import KwsError
    from kws_experiments.config import tensorflow_setup
    from kws_experiments.config.exit import one_line_errors
    from kws_experiments.config.upgrade import without_effect
    from kws_experiments.console.output import say, set_up
    from kws_experiments.experiment.data import Data, prepare_data
    from kws_experiments.experiment.experiment import Experiment
    from kws_experiments.reproduce.causes import likely_causes
    from kws_experiments.reproduce.compare import BIT_FOR_BIT, Finding, compare_runs
    from kws_experiments.reproduce.restart import COULD_NOT_RUN, RESULT
    from kws_experiments.runs.clip_table import (
        CLASSES,
        clip_table,
        data_changes,
        read_clip_table,
        recorded_root,
        summary,
    )
    from kws_experiments.runs.code_state import file_sha256
    from kws_experiments.runs.environment import read_sessions
    from kws_experiments.runs.folder import RunFolder, write_text
    from kws_experiments.training.start_from import find_origin

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
Changes = dict[str, list[str]]


def main(run: Path, out: Path, data: Path | None = None, anyway: bool = False) -> None:
    """Repeat a run whose folder `kws reproduce` has checked; exit with 0: bit for bit, 1: different, 2: could not."""
    result = repeat(RunFolder(run), RunFolder(out), data=data, anyway=anyway)
    show(result, out)
    sys.exit(0 if result["bit_for_bit"] else 1)


def repeat(original: RunFolder, repeated: RunFolder, *, data: Path | None, anyway: bool) -> dict[str, Any]:
    """Train in `repeated` as `original` was trained, and compare: the content of `reproduction.json`.

    Raises:
        KwsError: the data changed and not `anyway`, or training isn't possible.
    """
    for setting in without_effect(original.read_stored_config()):
        log.warning("the run had %s, which has no effect any more", setting)
    experiment, record = Experiment(original.read_config()), original.read_record() or {}
    changed_start = origin_change(experiment, record)
    if changed_start and not anyway:
        raise KwsError(f"{changed_start}; --anyway trains from what is there now")
    recorded = read_clip_table(original.clips)
    found, changes = find_data(experiment, recorded, original.read_labels(), data)
    if changes and not anyway:
        root = found.corpus.roots[0]
        raise KwsError(
            f"the data in '{root}' are not those of the run: {summary(changes)}; give --data DIR for the folder that"
            " holds them, or --anyway to train on these"
        )
    _require_same_beginning(repeated, found)
    from kws_experiments.train import train  # TensorFlow, only now

    train(experiment.config, repeated.path, found)
    findings = [_data_finding(recorded, changes), *compare_runs(original, repeated)]
    causes = [f"data: {summary(changes)}"] if changes else []
    causes += [changed_start] if changed_start else []
    causes += likely_causes(read_sessions(original), read_sessions(repeated)[-1])
    result = {
        "schema_version": SCHEMA_VERSION,
        "run": str(original.path),
        "bit_for_bit": all(finding.same for finding in findings if finding.what in BIT_FOR_BIT),
        "findings": [vars(finding) for finding in findings],
        "environment_differs_in": causes,
        "data_changes": changes,
    }
    write_text(repeated.path / RESULT, json.dumps(result, indent=2) + "\n")
    return result


def find_data(
    experiment: Experiment, recorded: pd.DataFrame, labels: list[str], data: Path | None
) -> tuple[Data, Changes]:
    """The run's data, where its clips are found by their content: in `data`, or where they were, or in the cache.

    Returns:
        the data in the first folder that holds the same clips, else in the first that holds any; and the differences
        from the recorded clips.

    Raises:
        KwsError: no folder holds data that the task can use.
    """
    first: tuple[Data, Changes] | None = None
    refused: KwsError | None = None
    for root in _folders(experiment, recorded, data):
        try:
            found = prepare_data(experiment, root)
        except KwsError as error:
            refused = refused or error
            continue
        changes = data_changes(recorded, clip_table(found.corpus, found.examples, found.labels))
        if found.labels != labels:
            changes = {CLASSES: found.labels} | changes
        if not changes:
            return found, changes
        first = first or (found, changes)
    if first is None:
        where = recorded_root(recorded)
        raise refused or KwsError(f"the run's data are gone from '{where}': give --data DIR for where they are now")
    return first


def _folders(experiment: Experiment, recorded: pd.DataFrame, data: Path | None) -> Iterator[Path]:
    """Folders that may hold the data set; one that would have to be downloaded or made comes last."""
    if data is not None:
        yield data
        return
    before = recorded_root(recorded)
    if before is not None and before.is_dir():
        yield before
    located = experiment.dataset.locate().expanduser().resolve()
    if located != before:
        yield located


def origin_change(experiment: Experiment, record: dict[str, Any]) -> str | None:
    """Whether the run that this one starts from is still as it was: what is wrong, or None.

    Raises:
        KwsError: it is gone.
    """
    if experiment.start_from is None:
        return None
    file = find_origin(experiment.start_from).file
    if file_sha256(file) == record.get("started_from_sha256"):
        return None
    return f"start_from: '{file}' is not the file that the run started from: its SHA-256 is another"


def _require_same_beginning(repeated: RunFolder, data: Data) -> None:
    begun = repeated.read_record()
    if begun is not None and begun["data_fingerprint"] != data.fingerprint:
        raise KwsError(f"'{repeated.path}' began on other data; remove it, or give a new folder as --out")


def _data_finding(recorded: pd.DataFrame, changes: Changes) -> Finding:
    files = recorded[recorded["source"] >= 0]
    return Finding("data", not changes, summary(changes) or f"the same, {len(files)} clips and noise recordings")


def show(result: dict[str, Any], out: Path) -> None:
    """Print what was compared, the verdict, and what the environments differ in."""
    from kws_experiments.console.tables import by_column, print_table

    findings = by_column(
        ("compared", "found"), [(finding["what"], finding["detail"]) for finding in result["findings"]]
    )
    print_table(findings, title="The run and its repetition", keep=("compared", "found"))
    causes = result["environment_differs_in"]
    if result["bit_for_bit"]:
        say("bit for bit: the same weights and predictions")
        for cause in causes:
            say(f"although: {cause}")
    else:
        where = next(finding for finding in result["findings"] if finding["same"] is False)
        say(f"different, first in {where['what']}: {where['detail']}")
        for index, cause in enumerate(causes):
            said = "likely cause" if index == 0 else "or"
            say(f"{said}: {cause}")
        if not causes:
            say("no recorded difference explains it: suspect the hardware, or an operation of your own model")
    say(out)


if __name__ == "__main__":
    set_up()
    tensorflow_setup.quiet()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    with one_line_errors(failed=COULD_NOT_RUN, stopped="stopped; the same command goes on from here"):
        app()
