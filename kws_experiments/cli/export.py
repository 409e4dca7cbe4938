"""`kws export`: a trained run as SavedModel, TensorFlow Lite or ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    format: Annotated[str, typer.Option(help="saved_model, tflite or onnx")],
    quantize: Annotated[
        str, typer.Option(help="tflite: none, dynamic, float16 or int8; onnx: none or dynamic")
    ] = "none",
    clip_ms: Annotated[
        float | None, typer.Option(help="the length of a clip, for a run that keeps lengths (clip_ms=null)")
    ] = None,
    check: Annotated[bool, typer.Option(help="try the export on the test split, beside the original")] = True,
) -> None:
    """Export a run to RUN/exports/<format>-<quantize>/: model, labels, thresholds, front end, and how it compares.

    saved_model: a file name or waveforms in, `predictions`, `class_ids` and `class_names` out. tflite: `model.tflite`
    takes a waveform, `network.tflite` features; int8 is all of the latter, input and output included, with a C header
    beside it. onnx: `model.onnx` takes waveforms.
    """
    from kws_experiments.runs.folder import RunFolder

    RunFolder(run).read_config()  # a wrong folder is refused before the slow imports
    RunFolder(run).read_finished_record()
    from kws_experiments.export import table
    from kws_experiments.export.export_run import export_run
    from kws_experiments.reports.run_report import renew_run_report

    artifact, folder = export_run(run, format=format, quantize=quantize, clip_ms=clip_ms, check=check)
    renew_run_report(run)
    table.show(artifact, folder)
