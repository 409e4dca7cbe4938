"""`kws label`: what a model says of clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kws_data.errors import KwsError


def label(
    model: Annotated[Path, typer.Argument(help="the folder of a finished run, or of an export")],
    files: Annotated[list[Path], typer.Argument(help="WAV, FLAC, Ogg or MP3 files, or folders of them")],
    top: Annotated[int, typer.Option(min=1, help="classes to tell of each file")] = 3,
    csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    out: Annotated[Path | None, typer.Option(help="write to this .csv or .json file instead of printing")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="a folder for a PNG of each file: a bar chart of the scores, the spectrogram")
    ] = None,
) -> None:
    """Label audio files: the classes with the highest scores. Files that can't be read are listed (status 1)."""
    if csv + json + (out is not None) > 1:
        raise KwsError("--csv, --json, --out: choose one")
    if out is not None and out.suffix not in (".csv", ".json"):
        raise KwsError(f"--out: '{out}' must end in .csv or .json")
    from kws_experiments.inference import label as label_files

    labelled, failed = label_files.label(model, files, top=top, figures=figures)
    if out is not None:
        label_files.write(out, labelled)
        print(out)
    elif csv:
        print(label_files.as_csv(labelled), end="")
    elif json:
        print(label_files.as_json(labelled))
    else:
        label_files.show(labelled)
    raise typer.Exit(1 if failed else 0)
