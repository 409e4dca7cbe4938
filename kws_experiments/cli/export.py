"""`kws export`: a trained run as SavedModel, TensorFlow Lite or ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kws_experiments.export.formats.base import find_format, format_names

_FORMATS = [find_format(name) for name in format_names()]


def export(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    format: Annotated[str, typer.Option(help="; ".join(f"{format.name}: {format.about}" for format in _FORMATS))],
    quantize: Annotated[
        str, typer.Option(help="; ".join(f"{format.name}: {', '.join(format.quantizations)}" for format in _FORMATS))
    ] = "none",
    decode: Annotated[
        str,
        typer.Option(
            help="the files whose names a SavedModel takes; wav: 16-bit, at the model's rate; all: WAV, FLAC, Ogg"
            " Vorbis and MP3, at any rate (needs the extra io)"
        ),
    ] = "wav",
    clip_ms: Annotated[
        float | None, typer.Option(help="the length of a clip, for a run that keeps lengths (clip_ms=null)")
    ] = None,
    c_name: Annotated[
        str | None, typer.Option(help="the prefix of names in a TFLite export's C source; default: from the run's name")
    ] = None,
    check: Annotated[bool, typer.Option(help="try the export on the test split, beside the original")] = True,
) -> None:
    """Export a run to RUN/exports/<format>-<quantize>/: model, labels, thresholds, front end, and how it compares."""
    from kws_experiments.export.export_run import export_run

    artifact, folder = export_run(
        run, format=format, quantize=quantize, decode=decode, clip_ms=clip_ms, c_name=c_name, check=check
    )

    # these take long to import, and a wrong folder is to be refused at once
    from kws_experiments.export import table
    from kws_experiments.reports.run_report import renew_run_report

    renew_run_report(run)
    table.show(artifact, folder)
