"""TensorFlow Lite: waveform → scores with the front end inside, and features → scores for microcontrollers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kws_experiments.export.formats.base import Format, Request, Written, clean_lines

if TYPE_CHECKING:
    import numpy as np

    from kws_experiments.export.artifact import Artifact, ModelFile, Port
    from kws_experiments.export.scorer import Function
    from kws_experiments.export.trained import Trained

WHOLE, NETWORK = "model.tflite", "network.tflite"
_TRIED = 100  # clips, in TensorFlow Lite Micro


class Tflite(Format):
    """`model.tflite` takes a waveform, `network.tflite` features; a batch is one clip."""

    about = (
        "`model.tflite` takes a waveform, `network.tflite` features; int8 is all of the latter, input and output"
        " included, with C source beside it"
    )
    quantizations = ("none", "dynamic", "float16", "int8")
    in_c = ("none", "int8")  # TensorFlow Lite Micro runs no hybrid operators
    unrolls = True

    def write(self, trained: Trained, request: Request) -> Written:
        """See Format. dynamic: weights in int8; float16: weights; int8: everything, input and output too."""
        from kws_experiments.export import tflite_graph
        from kws_experiments.export.tflite_metadata import named
        from kws_experiments.export.tflm import measured

        out, quantize, clip_samples = request.out, request.quantize, trained.facts.clip_samples
        assert clip_samples is not None
        calibration = None if request.calibration is None else trained.features(request.calibration).numpy()
        shape = trained.features.output_shape_for(clip_samples)
        network = converter(trained.scores, [1, *shape], "features", quantize, calibration).convert()
        facts, front_end = trained.facts, trained.front_end
        (out / NETWORK).write_bytes(named(network, "features", facts, front_end))
        features_in = _described(out / NETWORK, "features")
        if calibration is not None:
            found = measured(out / NETWORK, features_in.input.quantized(calibration[:_TRIED]))
            features_in = replace(features_in, micro={"peak": tflite_graph.peak(network)} | found)
        try:
            first = converter(trained.features.in_one_piece, [1, clip_samples], "waveform").convert()
        except Exception as error:  # whatever the converter raises; a converter that aborts ends the process anyway
            reason = f"the front end ({type(trained.features).__name__}) can't be converted to TensorFlow Lite"
            why = (*clean_lines(str(error)), type(error).__name__)[0][:200]
            return Written([features_in], [f"{reason}, so that {NETWORK} takes features: {why}"])
        if tflite_graph.has_branches(network):  # recurrent layers of clips that keep their lengths
            note = f"the network has loops and can't be joined with its front end: {NETWORK} takes features"
            return Written([features_in], [note])
        (out / WHOLE).write_bytes(named(tflite_graph.joined(first, network), "waveform", facts, front_end))
        notes = [] if quantize == "none" else [f"{quantize} is the network in {WHOLE}; its front end stays in float32"]
        return Written([_described(out / WHOLE, "waveform"), features_in], notes)

    def load(self, path: Path) -> Function:
        """See Format. LiteRT may know custom operators, some of which write files: none is run."""
        from ai_edge_litert.interpreter import Interpreter

        from kws_experiments.config.tensorflow_setup import standard_error_held_back
        from kws_experiments.export.tflite_graph import CUSTOM, operators

        with standard_error_held_back():  # it prints which delegate it makes
            interpreter = Interpreter(str(path), num_threads=1)  # checks that it is a model at all
        if CUSTOM in operators(path.read_bytes()):
            raise ValueError("it has custom operators, which are not run")
        with standard_error_held_back():
            return inference(interpreter)

    def write_extras(self, artifact: Artifact, out: Path) -> None:
        """Write C source for the model that microcontrollers can run."""
        from kws_experiments.export.c_source import c_source
        from kws_experiments.runs.folder import write_text
        from kws_experiments.runs.listening import Listening

        if artifact.c_name is not None:
            listening = Listening.read(out) if artifact.sensitivities else None
            for name, text in c_source((out / artifact.files[-1].file).read_bytes(), artifact, listening).items():
                write_text(out / name, text)


def converter(
    function: Callable[[Any], Any], shape: list[int | None], name: str, quantize: str = "none",
    calibration: np.ndarray | None = None,
) -> Any:  # fmt: skip
    """A `TFLiteConverter` of a function of one float32 tensor, set to quantize as `Tflite.write` says.

    Args:
        function: what to convert. Straight from a Keras 3 model, the converter would abort the process.
        shape: of its input; the first axis is 1.
        name: of its input.
        quantize: none, dynamic, float16 or int8.
        calibration: for int8, inputs that set the ranges.
    """
    import tensorflow as tf

    from kws_experiments.export.trained import frozen

    result = tf.lite.TFLiteConverter.from_concrete_functions([frozen(function, shape, name)])
    if quantize != "none":
        result.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        result.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        assert calibration is not None
        result.representative_dataset = lambda: ([clip[None]] for clip in calibration)
        result.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        result.inference_input_type = result.inference_output_type = tf.int8
    return result


def inference(interpreter: Any) -> Function:
    """A function that runs a model clip by clip: [clips, …] float32 → [clips, labels] float32.

    Inputs are quantized, and scores converted back, where the model has integers.
    """
    import numpy as np

    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    takes, gives = _port(source), _port(result)

    def one(clip: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], takes.quantized(clip))
        interpreter.invoke()
        return gives.dequantized(interpreter.get_tensor(result["index"]))

    return lambda inputs: np.concatenate([one(clip[np.newaxis]) for clip in inputs])


def _described(path: Path, takes: str) -> ModelFile:
    from ai_edge_litert.interpreter import Interpreter

    from kws_experiments.export.artifact import ModelFile
    from kws_experiments.export.tflite_graph import operators

    interpreter = Interpreter(str(path))
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = operators(path.read_bytes())
    signatures = interpreter.get_signature_list()
    return ModelFile(path.name, takes, _port(source), _port(result), operators=found, signatures=signatures)


def _port(details: dict[str, Any]) -> Port:
    """An interpreter's details of a tensor as a Port."""
    import numpy as np

    from kws_experiments.export.artifact import Port

    dtype, (scale, zero_point) = np.dtype(details["dtype"]).name, details["quantization"]
    steps = () if dtype == "float32" else (float(scale), int(zero_point))
    return Port(details["name"], details["shape"].tolist(), dtype, *steps)
