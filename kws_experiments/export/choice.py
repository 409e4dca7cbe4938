"""What can be asked of `kws export`, checked before any work."""

from __future__ import annotations

import importlib.util

from kws_data.errors import KwsError
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.folder import RunFolder

QUANTIZATIONS = {
    "saved_model": ("none",),
    "tflite": ("none", "dynamic", "float16", "int8"),
    "onnx": ("none", "dynamic"),
}


def checked_choice(folder: RunFolder, format: str, quantize: str, clip_ms: float | None) -> int | None:
    """The samples of a clip, None for any number; needs no TensorFlow.

    Raises:
        KwsError: the options don't go together or with the run, or the run isn't finished.
    """
    if format not in QUANTIZATIONS:
        raise KwsError(f"--format must be one of {', '.join(QUANTIZATIONS)}, got '{format}'")
    if quantize not in QUANTIZATIONS[format]:
        raise KwsError(f"--quantize with {format} must be one of {', '.join(QUANTIZATIONS[format])}, got '{quantize}'")
    experiment = Experiment(folder.read_config())
    folder.read_finished_record()
    if not folder.model.is_file():
        raise KwsError(f"'{folder.path}' holds no model.keras: give the folder of a finished run")
    if format == "onnx" and any(importlib.util.find_spec(name) is None for name in ("tf2onnx", "onnxruntime")):
        raise KwsError("--format onnx needs tf2onnx and onnxruntime: pip install -e '.[onnx]'")
    if experiment.clip_samples is not None:
        if clip_ms is not None:
            raise KwsError(f"--clip-ms: the run's clips have one length already (clip_ms={experiment.part('clip_ms')})")
        return experiment.clip_samples
    if format == "saved_model":
        if clip_ms is not None:
            raise KwsError("--clip-ms: a SavedModel takes clips of any length, as this run does (clip_ms=null)")
        return None
    if clip_ms is None:
        raise KwsError(
            f"--clip-ms: this run keeps its clips' lengths (clip_ms=null), and {format} needs one: --clip-ms 1000"
        )
    if not 10 <= clip_ms <= 60_000:
        raise KwsError(f"--clip-ms must be a number from 10 to 60000, got {clip_ms:g}")
    return experiment.samples(clip_ms)
