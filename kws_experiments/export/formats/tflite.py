"""TensorFlow Lite: waveform → scores with the front end inside, and features → scores for microcontrollers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kws_experiments.export.formats.base import Format, Request, Written, clean_lines

if TYPE_CHECKING:
    import numpy as np

    from kws_experiments.export.artifact import Artifact, ModelFile, Port
    from kws_experiments.export.scorer import Function
    from kws_experiments.export.trained import Trained

WHOLE, NETWORK, STREAM = "model.tflite", "network.tflite", "stream.tflite"
_TRIED = 100  # clips, in TensorFlow Lite Micro
_STREAM_CLIPS = 20  # of these, hop by hop


class Tflite(Format):
    """`model.tflite` takes a waveform, `network.tflite` features; a batch is one clip."""

    about = (
        "`model.tflite` takes a waveform, `network.tflite` features; int8 is all of the latter, input and output"
        " included, with C source beside it"
    )
    quantizations: ClassVar[tuple[str, ...]] = ("none", "dynamic", "float16", "int8")
    in_c: ClassVar[tuple[str, ...]] = ("none", "int8")  # TensorFlow Lite Micro runs no hybrid operators
    streams: ClassVar[tuple[str, ...]] = in_c
    unrolls = True

    def write(self, trained: Trained, request: Request) -> Written:
        """See Format. dynamic: weights in int8; float16: weights; int8: everything, input and output too."""
        from kws_experiments.export import tflite_graph
        from kws_experiments.export.tflite_metadata import named

        out, quantize, clip_samples = request.out, request.quantize, trained.facts.clip_samples
        assert clip_samples is not None
        calibration = None if request.calibration is None else trained.features(request.calibration).numpy()
        if request.state is not None:
            return self._stream(trained, request, calibration)
        shape = trained.features.output_shape_for(clip_samples)
        network = converter(trained.scores, [1, *shape], "features", quantize, calibration).convert()
        features_in = write_network(out / NETWORK, network, trained, calibration)
        try:
            first = converter(trained.features.in_one_piece, [1, clip_samples], "waveform").convert()
        except Exception as error:  # whatever the converter raises; a converter that aborts ends the process anyway
            reason = f"the front end ({type(trained.features).__name__}) can't be converted to TensorFlow Lite"
            why = (*clean_lines(str(error)), type(error).__name__)[0][:200]
            return Written([features_in], [f"{reason}, so that {NETWORK} takes features: {why}"])
        if tflite_graph.has_branches(network):  # recurrent layers of clips that keep their lengths
            note = f"the network has loops and can't be joined with its front end: {NETWORK} takes features"
            return Written([features_in], [note])
        whole = named(tflite_graph.joined(first, network), "waveform", trained.facts, trained.front_end)
        (out / WHOLE).write_bytes(whole)
        notes = [] if quantize == "none" else [f"{quantize} is the network in {WHOLE}; its front end stays in float32"]
        return Written([described(out / WHOLE, "waveform"), features_in], notes)

    def _stream(self, trained: Trained, request: Request, calibration: np.ndarray | None) -> Written:
        """The network's streaming form; in float32, TensorFlow Lite Micro runs it on silence."""
        import numpy as np
        import tensorflow as tf

        from kws_experiments.export import tflite_stream
        from kws_experiments.export.tflite_metadata import named

        facts, state = trained.facts, str(request.state)
        assert facts.clip_samples is not None
        form = tflite_stream.streaming_form(trained.network, trained.features, facts.clip_samples, request.hop_ms)
        streaming = tflite_stream.described(form, trained.features, state)
        calls = None
        if calibration is not None:  # one clip after another, as on a device
            calls = np.concatenate(list(tflite_stream.in_calls(calibration[:_TRIED], streaming)))
        network = tflite_stream.converted(form, tf.nn.softmax, state, calls)
        (request.out / STREAM).write_bytes(named(network, "frames", facts, trained.front_end))
        tried = None if calls is None else calls[: _STREAM_CLIPS * streaming["calls"]]
        file = described(request.out / STREAM, "frames", tried)
        notes = [
            f"{STREAM} takes {form.step_frames} new frames a call, and keeps its states: a clip begins with new ones"
        ]
        if state == tflite_stream.EXTERNAL:
            notes = [f"{STREAM} takes {form.step_frames} new frames a call, and the states that the call before gave"]
        return Written([file], notes, streaming=streaming)

    def load(self, path: Path) -> Function:
        """See Format. LiteRT may know custom operators, some of which write files: none is run."""
        from kws_experiments.export import tflite_stream
        from kws_experiments.export.tflite_graph import CUSTOM, STATEFUL, operators

        interpreter = interpreter_of(path.read_bytes())  # checks that it is a model at all
        found = operators(path.read_bytes())
        if CUSTOM in found:
            raise ValueError("it has custom operators, which are not run")
        if STATEFUL in found or len(interpreter.get_input_details()) > 1:
            return tflite_stream.inference(path)
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


def write_network(path: Path, network: bytes, trained: Trained, calibration: np.ndarray | None) -> ModelFile:
    """Write a network that takes features, and try it in TensorFlow Lite Micro if it is all of integers.

    Args:
        path: the file.
        network: what the converter gave.
        trained: what the file says of itself.
        calibration: the inputs that set the ranges of an int8 network.
    """
    from kws_experiments.export.tflite_metadata import named

    path.write_bytes(named(network, "features", trained.facts, trained.front_end))
    return described(path, "features", None if calibration is None else calibration[:_TRIED])


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
    return quantized(result, quantize, lambda: ([clip[None]] for clip in (() if calibration is None else calibration)))


def quantized(converter: Any, quantize: str, samples: Callable[[], Iterable[list[Any]]]) -> Any:
    """A `TFLiteConverter` set to quantize.

    Args:
        converter: the converter.
        quantize: none, dynamic, float16 or int8.
        samples: for int8, inputs that set the ranges.
    """
    import tensorflow as tf

    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter


def interpreter_of(content: bytes, **options: Any) -> Any:
    """LiteRT's interpreter of a model, on one thread, ready to run; `options` are its own."""
    from ai_edge_litert.interpreter import Interpreter

    from kws_experiments.config.tensorflow_setup import standard_error_held_back

    with standard_error_held_back():  # it prints which delegate it makes
        interpreter = Interpreter(model_content=content, num_threads=1, **options)
        interpreter.allocate_tensors()
    return interpreter


def inference(interpreter: Any) -> Function:
    """A function that runs a model clip by clip: [clips, …] float32 → [clips, labels] float32.

    Inputs are quantized, and scores converted back, where the model has integers.
    """
    import numpy as np

    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    takes, gives = port_of(source), port_of(result)

    def one(clip: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], takes.quantized(clip).reshape(takes.shape))
        interpreter.invoke()
        return gives.dequantized(interpreter.get_tensor(result["index"]))

    return lambda inputs: np.concatenate([one(clip[np.newaxis]) for clip in inputs])


def described(path: Path, takes: str, tried: np.ndarray | None = None) -> ModelFile:
    """What export.json says of a model.

    Args:
        path: the file.
        takes: waveform, features or frames.
        tried: inputs to try an int8 network with in TensorFlow Lite Micro.
    """
    from ai_edge_litert.interpreter import Interpreter

    from kws_experiments.export import tflite_graph
    from kws_experiments.export.artifact import ModelFile
    from kws_experiments.export.tflm import measured

    interpreter, content = Interpreter(str(path)), path.read_bytes()
    sources, results = (
        [port_of(one) for one in details]
        for details in (interpreter.get_input_details(), interpreter.get_output_details())
    )
    file = ModelFile(
        path.name, takes, sources[0], results[0], operators=tflite_graph.operators(content),
        signatures=interpreter.get_signature_list(),
        states=[list(pair) for pair in zip(sources[1:], results[1:], strict=True)],
    )  # fmt: skip
    if tried is None:
        return file
    found = measured(path, file.input.quantized(tried))
    return replace(file, micro={"peak": tflite_graph.peak(content)} | found)


def port_of(details: dict[str, Any]) -> Port:
    """An interpreter's details of a tensor as a Port."""
    import numpy as np

    from kws_experiments.export.artifact import Port

    dtype, (scale, zero_point) = np.dtype(details["dtype"]).name, details["quantization"]
    steps = () if dtype == "float32" else (float(scale), int(zero_point))
    return Port(details["name"], details["shape"].tolist(), dtype, *steps)
