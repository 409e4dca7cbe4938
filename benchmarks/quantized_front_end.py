"""What quantizing the front end along with the network would cost in accuracy, and what other kernels change.

    python -m benchmarks.quantized_front_end RUN

`kws export --format tflite` quantizes the network alone, and joins it to a front end in float32. Here the same run is
also converted as one function from waveform to scores, and both are tried on the run's test split. The int8 network is
run by TensorFlow Lite's reference kernels too, which round as those of TensorFlow Lite Micro do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kws_data.errors import KwsError
from kws_experiments.config import tensorflow_setup

QUANTIZATIONS = ("float16", "dynamic", "int8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    options = parser.parse_args(arguments)
    try:
        rows, clips = measure(options.run)
    except (KwsError, OSError) as error:
        sys.exit(f"error: {error}")
    table = Table("quantized", title=f"Accuracy on {clips} test clips", title_justify="left")
    table.add_column("accuracy", justify="right")
    table.add_column("as the original", justify="right")
    for name, accuracy, same in rows:
        table.add_row(name, f"{100 * accuracy:.1f}", f"{same}")
    Console().print(table)


def measure(run: Path) -> tuple[list[tuple[str, float, int]], int]:
    """(what is quantized and how, accuracy, clips predicted as by the original) of each conversion; the clips.

    Raises:
        KwsError: `run` is no finished run, or its clips are gone.
    """
    from kws_data.splits import TESTING
    from kws_experiments.export import check
    from kws_experiments.export.artifact import load_run, run_facts
    from kws_experiments.export.export_run import run_clips
    from kws_experiments.export.tflite_graph import joined
    from kws_experiments.export.formats.tflite import converter, quantize_with
    from kws_experiments.export.trained import load_trained
    from kws_experiments.runs.folder import RunFolder

    config, samples = RunFolder(run).read_config(), run_facts(run).clip_samples
    if samples is None:
        raise KwsError(f"'{run}' keeps its clips' lengths (clip_ms=null), and TensorFlow Lite needs one")
    tensorflow_setup.start(deterministic=config["deterministic"], seed=config["seed"], intra_op=1, inter_op=1)
    import tensorflow as tf

    source, trained = run_clips(RunFolder(run), config, samples), load_trained(run, unrolled=True)
    clips = check.Clips.of(source, TESTING)
    waveforms = list(clips.waveforms())
    calibration = check.calibration_clips(source, 300, config["data_seed"], samples)
    features, shape = trained.features(calibration).numpy(), trained.features.output_shape_for(samples)
    front_end = converter(trained.features.in_one_piece, [1, samples], "waveform").convert()
    scorer = load_run(run)
    original = np.concatenate([scorer.infer(waveform) for waveform in waveforms])

    def row(name: str, scores: np.ndarray) -> tuple[str, float, int]:
        result = check.compared(original, scores, clips.labels)
        return name, result["accuracy"], len(waveforms) - result["disagreements"]

    rows = [("nothing", float((original.argmax(axis=1) == clips.labels).mean()), len(waveforms))]
    for quantize in QUANTIZATIONS:
        network = converter(lambda features: tf.nn.softmax(trained.logits(features)), [1, *shape], "features")
        quantize_with(network, quantize, features)
        model = network.convert()
        rows.append(row(f"network, {quantize}", _scores(joined(front_end, model), waveforms)))
        if quantize == "int8":  # they have no Fourier transform
            frames = [trained.features(waveform).numpy() for waveform in waveforms]
            kernels = tf.lite.experimental.OpResolverType.BUILTIN_REF
            scores = _scores(model, frames, experimental_op_resolver_type=kernels)
            rows.append(row("network, int8, reference kernels", scores))
        whole = converter(
            lambda waveform: tf.nn.softmax(trained.logits(trained.features.in_one_piece(waveform))),
            [1, samples],
            "waveform",
        )
        quantize_with(whole, quantize, calibration)
        if quantize == "int8":  # the Fourier transform has no int8
            whole.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            whole.inference_input_type = whole.inference_output_type = tf.float32
        rows.append(row(f"front end and network, {quantize}", _scores(whole.convert(), waveforms)))
    return rows, len(waveforms)


def _scores(model: bytes, inputs: list[np.ndarray], **options: Any) -> np.ndarray:
    import tensorflow as tf

    from kws_experiments.export.artifact import Port
    from kws_experiments.export.runners import dequantized, quantized

    interpreter = tf.lite.Interpreter(model_content=model, num_threads=1, **options)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    takes, gives = (
        Port("", [], np.dtype(details["dtype"]).name, *(details["quantization"] if details["quantization"][0] else ()))
        for details in (source, result)
    )
    scores = []
    for values in inputs:
        interpreter.set_tensor(source["index"], quantized(values, takes))
        interpreter.invoke()
        scores.append(dequantized(interpreter.get_tensor(result["index"]), gives))
    return np.concatenate(scores)


if __name__ == "__main__":
    main()
