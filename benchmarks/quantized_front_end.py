"""What quantizing the front end along with the network would cost in accuracy, and what other kernels change.

    python -m benchmarks.quantized_front_end RUN

`kws export --format tflite` quantizes the network alone, and joins it to a front end in float32. Here the same run is
also converted as one function from waveform to scores, and both are tried on the run's test split. The int8 network is
run by TensorFlow Lite's reference kernels too, which round as those of TensorFlow Lite Micro do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import options
from kws_data.errors import KwsError
from kws_experiments.console.tables import Console

QUANTIZATIONS = ("float16", "dynamic", "int8")


def main(run: Annotated[Path, typer.Argument(help="the folder of a finished run")]) -> None:
    """What quantizing the front end along with the network would cost in accuracy, and what other kernels change."""
    rows, clips = measure(run)
    printed = options.table(f"Accuracy on {clips} test clips", ["quantized"], ["accuracy", "as the original"])
    for name, accuracy, same in rows:
        printed.add_row(name, f"{100 * accuracy:.1f}", f"{same}")
    Console().print(printed)


def measure(run: Path) -> tuple[list[tuple[str, float, int]], int]:
    """(what is quantized and how, accuracy, clips predicted as by the original) of each conversion; the clips.

    Raises:
        KwsError: `run` is no finished run, or its clips are gone.
    """
    from kws_data.splits import TESTING
    from kws_experiments.experiment.experiment import Experiment
    from kws_experiments.export import check
    from kws_experiments.export.formats.tflite import converter
    from kws_experiments.export.load import load_run
    from kws_experiments.export.tflite_graph import joined
    from kws_experiments.export.trained import load_trained
    from kws_experiments.runs.folder import RunFolder

    experiment = Experiment(RunFolder(run).read_config())
    samples = experiment.clip_samples
    if samples is None:
        raise KwsError(f"'{run}' keeps its clips' lengths (clip_ms=null), and TensorFlow Lite needs one")
    experiment.start_tensorflow(intra_op=1, inter_op=1)
    import tensorflow as tf
    from ai_edge_litert.interpreter import OpResolverType

    source = check.run_clips(RunFolder(run), experiment, samples)
    trained = load_trained(run, samples, unrolled=True)
    clips = check.Clips.of(source, TESTING)
    waveforms = list(clips.waveforms())
    calibration = check.calibration_clips(source, 300, experiment.data_seed)
    features, shape = trained.features(calibration).numpy(), trained.features.output_shape_for(samples)
    front_end = converter(trained.features.in_one_piece, [1, samples], "waveform").convert()
    scorer = load_run(run)
    original = np.concatenate([scorer.infer(waveform) for waveform in waveforms])

    def row(name: str, scores: np.ndarray) -> tuple[str, float, int]:
        result = check.compared(original, scores, clips.labels)
        return name, result["accuracy"], len(waveforms) - result["disagreements"]

    rows = [("nothing", float((original.argmax(axis=1) == clips.labels).mean()), len(waveforms))]
    for quantize in QUANTIZATIONS:
        model = converter(trained.scores, [1, *shape], "features", quantize, features).convert()
        rows.append(row(f"network, {quantize}", _scores(joined(front_end, model), waveforms)))
        if quantize == "int8":  # they have no Fourier transform
            frames = [trained.features(waveform).numpy() for waveform in waveforms]
            kernels = OpResolverType.BUILTIN_REF
            scores = _scores(model, frames, experimental_op_resolver_type=kernels)
            rows.append(row("network, int8, reference kernels", scores))
        whole = converter(
            lambda waveform: trained.scores(trained.features.in_one_piece(waveform)),
            [1, samples], "waveform", quantize, calibration,
        )  # fmt: skip
        if quantize == "int8":  # the Fourier transform has no int8
            whole.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            whole.inference_input_type = whole.inference_output_type = tf.float32
        rows.append(row(f"front end and network, {quantize}", _scores(whole.convert(), waveforms)))
    return rows, len(waveforms)


def _scores(model: bytes, inputs: list[np.ndarray], **options: Any) -> np.ndarray:
    from kws_experiments.export.formats.tflite import inference, interpreter_of

    scores = inference(interpreter_of(model, **options))
    return np.concatenate([scores(values) for values in inputs])


if __name__ == "__main__":
    options.run(main)
