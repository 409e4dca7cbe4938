"""`kws export`: a trained run as SavedModel, TensorFlow Lite or ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kws_data.errors import KwsError
from kws_experiments.export.formats.base import Options, find_format, format_names
from kws_experiments.export.tflite_stream import INTERNAL

if TYPE_CHECKING:
    from kws_experiments.export.artifact import Artifact
    from kws_experiments.runs.listening import Listening

_FORMATS = [find_format(name) for name in format_names()]


def export(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    format: Annotated[
        str | None, typer.Option(help="; ".join(f"{format.name}: {format.about}" for format in _FORMATS))
    ] = None,
    mlperf_tiny: Annotated[bool, typer.Option("--mlperf-tiny", help="the same as --format mlperf_tiny")] = False,
    quantize: Annotated[
        str | None,
        typer.Option(
            help="; ".join(f"{format.name}: {', '.join(format.quantizations)}" for format in _FORMATS)
            + "; default: the first",
        ),
    ] = None,
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
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming",
            help="TensorFlow Lite: the network's streaming form, which takes the next frames of a stream and keeps the"
            " others as states",
        ),
    ] = False,
    state: Annotated[
        str | None,
        typer.Option(
            help="with --streaming: internal (resource variables, the default) or external (inputs and outputs)"
        ),
    ] = None,
    hop_ms: Annotated[
        float | None, typer.Option(help="with --streaming: from call to call; default: as little as the network can")
    ] = None,
    word: Annotated[str | None, typer.Option(help="esphome: the keyword; default: the run's only one")] = None,
    check: Annotated[bool, typer.Option(help="try the export on the test split, beside the original")] = True,
) -> None:
    """Export a run to RUN/exports/<format>-<quantize>/: model, labels, thresholds, front end, and how it compares."""
    from kws_experiments.export.export_run import export_run

    if mlperf_tiny and format not in (None, "mlperf_tiny"):
        raise KwsError(f"--mlperf-tiny is --format mlperf_tiny: leave out --format {format}")
    format = "mlperf_tiny" if mlperf_tiny else format
    if format is None:
        raise KwsError(f"--format is missing: {', '.join(format_names())}")
    if not streaming and (state is not None or hop_ms is not None):
        raise KwsError("--state, --hop-ms: go with --streaming")
    state = state or INTERNAL if streaming else None
    options = Options(format, quantize, decode, clip_ms, c_name, state, hop_ms, word)
    artifact, folder = export_run(run, options, check=check, tune=_tune)

    # these take long to import, and a wrong folder is to be refused at once
    from kws_experiments.export import table
    from kws_experiments.reports.run_report import renew_run_report

    renew_run_report(run)
    table.show(artifact, folder)


def _tune(run: Path, listening: Listening, out: Path, artifact: Artifact) -> Listening:
    from kws_experiments.streaming.tune_export import tune_export

    return tune_export(run, listening, out, artifact)
