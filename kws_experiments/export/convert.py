"""One conversion, in a process of its own: `python -m kws_experiments.export.convert REQUEST.json`.

TensorFlow's converter can abort the process that calls it; this one has nothing to lose. The request names a run, a
format and a folder; the answer is a JSON file with what was written, or with the error.
"""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kws_data.errors import KwsError
from kws_experiments.config import tensorflow_setup


def convert_in_child(
    run: Path, out: Path, scratch: Path, *, format: str, quantize: str, clip_samples: int | None,
    calibration: np.ndarray | None,
) -> dict[str, Any]:  # fmt: skip
    """Convert a run's model in a child process, into the folder `out`.

    Args:
        run: its folder.
        out: an empty folder.
        scratch: a folder for what passes between the processes.
        format: saved_model, tflite or onnx.
        quantize: none, dynamic, float16 or int8.
        clip_samples: samples of a clip; None: any number, for a SavedModel.
        calibration: [clips, samples] float32 waveforms of training clips, for int8.

    Returns:
        `files`, `notes`, `front_end`, `versions` and `requires`, as export.json has them.

    Raises:
        KwsError: the conversion failed, or the converter ended the process.
    """
    request, answer = scratch / "request.json", scratch / "answer.json"
    waveforms = None
    if calibration is not None:
        waveforms = scratch / "calibration.npy"
        np.save(waveforms, calibration)
    content = {
        "run": str(run.resolve()), "out": str(out.resolve()), "answer": str(answer), "format": format,
        "quantize": quantize, "clip_samples": clip_samples, "calibration": waveforms and str(waveforms),
    }  # fmt: skip
    request.write_text(json.dumps(content))
    command = [sys.executable, "-m", "kws_experiments.export.convert", str(request)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    what = f"converting to {format} (quantize {quantize}) failed"
    if not answer.is_file():
        raise KwsError(f"{what}: {_last_words(done)}")
    result = json.loads(answer.read_text())
    if "error" in result:
        raise KwsError(f"{what}: {result['error']}")
    return result


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Why a process without an answer ended."""
    status = f"exit status {done.returncode}"
    if done.returncode < 0:
        status = f"signal {signal.Signals(-done.returncode).name}"
    lines = [" ".join(line.split()) for line in done.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "ERROR:" in line] or lines[-1:]  # LLVM's, before the trace of the abort
    return f"the converter ended with {status}" + (f": {telling[0][:300]}" if telling else "")


def convert(request: dict[str, Any]) -> dict[str, Any]:
    """What the child does: load, convert, describe."""
    from importlib.metadata import version

    import tensorflow as tf

    from kws_experiments.experiment.experiment import Experiment
    from kws_experiments.export.trained import load_trained
    from kws_experiments.runs.folder import RunFolder

    tf.config.set_visible_devices([], "GPU")  # where recurrent layers would become cuDNN's
    run, out, clip_samples = Path(request["run"]), Path(request["out"]), request["clip_samples"]
    experiment = Experiment(RunFolder(run).read_config())
    trained = load_trained(run, unrolled=request["format"] == "tflite")
    writer = importlib.import_module(f"kws_experiments.export.formats.{request['format']}")
    arguments: dict[str, Any] = {"clip_samples": clip_samples}
    if request["format"] == "saved_model":
        arguments["sample_rate"] = experiment.sample_rate
    else:
        arguments["quantize"] = request["quantize"]
    if request["format"] == "tflite":
        calibration = request["calibration"] and np.load(request["calibration"])
        arguments["calibration"] = calibration if calibration is None else trained.features(calibration).numpy()
    files, notes = writer.write(trained, out, **arguments)
    packages = ["tensorflow", "keras"] + (["tf2onnx", "onnx", "onnxruntime"] if request["format"] == "onnx" else [])
    return {
        "files": [asdict(file) for file in files],
        "notes": notes,
        "front_end": _front_end(trained.features, experiment.part("features"), clip_samples),
        "requires": trained.features.op_module if request["format"] == "saved_model" else None,
        "versions": {package: version(package) for package in packages},
    }


def _front_end(features: Any, config: dict[str, Any], clip_samples: int | None) -> dict[str, Any]:
    """What an implementation elsewhere needs to know of the front end."""
    described = {
        "config": config,
        "frame_length": features.frame_length,
        "frame_step": features.frame_step,
        "fft_size": features.fft_size,
        "frames": None if clip_samples is None else features.num_frames(clip_samples),
        "bins": features.num_bins,
    }
    if features.normalise:
        described |= {"mean": features.mean.numpy().tolist(), "variance": features.variance.numpy().tolist()}
    return described


def main() -> None:
    """Answer one request: what was written, or why not, in one line."""
    request = json.loads(Path(sys.argv[1]).read_text())
    tensorflow_setup.quiet()
    try:
        answer = convert(request)
    except KwsError as error:
        answer = {"error": str(error)}
    except Exception as error:  # converters raise whatever they like
        lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
        answer = {"error": f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__}
    Path(request["answer"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
