"""A network's streaming form as a TensorFlow Lite file: new frames in, scores out, the states inside it or beside them.

Internal states are resource variables: each interpreter has its own, and they begin anew with it. External ones are
inputs `state_0`, … and outputs of the same names, which go into the next call; they begin with real zeros.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kws_data.errors import KwsError

if TYPE_CHECKING:
    from kws_data.features.base import FeatureLayer
    from kws_experiments.export.scorer import Function
    from kws_models.streaming import Step, StreamingForm

log = logging.getLogger(__name__)

INTERNAL, EXTERNAL = STATES = ("internal", "external")


def form_name(state: str | None) -> str:
    """Of a network's form, for names; that for whole clips (None) has none."""
    return {None: "", INTERNAL: "streaming"}.get(state, f"streaming-{state}")


def streaming_form(network: Any, features: FeatureLayer, clip_samples: int, hop_ms: float | None) -> StreamingForm:
    """The streaming form whose windows are clips.

    Args:
        network: frames → logits.
        features: the front end.
        clip_samples: samples of a clip.
        hop_ms: from call to call; None: as little as the network's strides allow.

    Raises:
        KwsError: the network does not stream, or not with this hop.
    """
    from kws_models.streaming import StreamingForm

    frame_ms = 1000 * features.frame_step / features.sample_rate
    num_frames = features.num_frames(clip_samples)
    smallest = StreamingForm(network, num_frames, None)
    if not smallest.streams:
        raise KwsError(
            f"--streaming: {network.name} does not run on a stream, since {smallest.reason}; train one that does, such"
            " as model=ds_cnn_s_causal"
        )
    if hop_ms is None:
        return smallest
    frames, least_ms = hop_ms / frame_ms, smallest.step_frames * frame_ms
    if not 1 <= frames <= num_frames or round(frames, 6) % smallest.step_frames:
        raise KwsError(f"--hop-ms: must be a multiple of {least_ms:g} up to the length of a clip, got {hop_ms:g}")
    return StreamingForm(network, num_frames, round(frames))


def described(form: StreamingForm, features: FeatureLayer, state: str) -> dict[str, Any]:
    """What a caller needs to know.

    `state`, internal or external, and how many `states` there are; `hop_ms`, `frames` and `bins` of a call;
    `first_frames`, after which the first window is complete; and, to score a clip from its beginning, so many `calls`,
    with zeros for so many frames (`lead`) first.
    """
    size, first = form.step_frames, form.first_frames
    lead = 0 if form.causal else -first % size  # of a causal network, they would go into its scores
    return {
        "state": state,
        "states": len(form.states),
        "hop_ms": 1000 * size * features.frame_step / features.sample_rate,
        "frames": size,
        "bins": form.bins,
        "first_frames": first,
        "calls": (first + lead) // size,
        "lead": lead,
    }


def in_calls(frames: np.ndarray, streaming: dict[str, Any]) -> np.ndarray:
    """[clips, frames, bins] → [clips, calls, frames of a call, bins], see `described`."""
    size, calls, lead = (streaming[key] for key in ("frames", "calls", "lead"))
    frames = frames[:, : calls * size - lead]
    missing = calls * size - lead - frames.shape[1]  # of a network whose strides look past a window
    padded = np.pad(frames, ((0, 0), (lead, missing), (0, 0)))
    return padded.reshape(len(frames), calls, size, -1)


def converted(
    form: StreamingForm,
    output: Callable[[Any], Any],
    state: str,
    calibration: np.ndarray | None = None,
    *,
    unsigned: bool = False,
) -> bytes:
    """The streaming form as a TensorFlow Lite model.

    Args:
        form: of one call's frames.
        output: of the logits [1, labels].
        state: internal or external.
        calibration: for int8, the calls of one stream, [calls, frames, bins]; None: in float32.
        unsigned: with int8, scores in uint8.
    """
    import tensorflow as tf

    from kws_experiments.export.formats.tflite import quantized
    from kws_experiments.export.trained import frozen_graph

    def step(frames: Any, *states: Any) -> list[Any]:
        logits, after = form.step(frames, states)
        return [output(logits), *after]

    names = [f"state_{index}" for index in range(len(form.states))]
    frames = tf.TensorSpec((1, form.step_frames, form.bins), tf.float32, name="frames")
    states = [tf.TensorSpec(one.shape, tf.float32, name=name) for one, name in zip(form.states, names, strict=True)]
    graph = frozen_graph(step, [frames, *states])

    def samples() -> Iterator[list[Any]]:
        assert calibration is not None
        before, run = [tf.constant(one) for one in form.states], tf.function(form.step)
        for call in calibration[:, None]:
            yield [call, *before] if state == EXTERNAL else [call]
            if state == EXTERNAL:
                _, before = run(tf.constant(call), before)

    if state == EXTERNAL:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([graph])
        return quantized(converter, "none" if calibration is None else "int8", samples).convert()

    class Stateful(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.states = [tf.Variable(one, name=name) for one, name in zip(form.states, names, strict=True)]

        @tf.function(input_signature=[frames])
        def __call__(self, frames: Any) -> dict[str, Any]:
            scores, *after = graph(frames, *(one.read_value() for one in self.states))
            for one, value in zip(self.states, after, strict=True):
                one.assign(value)
            return {"scores": scores}

    module = Stateful()
    with tempfile.TemporaryDirectory() as folder:
        # SiLU's gradient cannot be saved
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, folder, module.__call__.get_concrete_function(), options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.experimental_enable_resource_variables = True
        # else the states stay in float, between a DEQUANTIZE and a QUANTIZE
        converter._experimental_variable_quantization = calibration is not None
        quantized(converter, "none" if calibration is None else "int8", samples)
        if unsigned:
            converter.inference_output_type = tf.uint8
        return converter.convert()


def single_step(form: StreamingForm) -> Step | None:
    """One step in LiteRT, which takes a fraction of the time that TensorFlow takes to call its operators.

    Returns:
        None where TensorFlow Lite cannot run the network.
    """
    import tensorflow as tf

    from kws_experiments.config.tensorflow_setup import standard_error_held_back
    from kws_experiments.export.formats.tflite import interpreter_of

    reason = ""
    with standard_error_held_back():
        try:
            interpreter = interpreter_of(converted(form, tf.identity, EXTERNAL))
        except Exception as error:  # the converter's, or the interpreter's that misses an operator
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if reason:  # said here, as what is said above is held back
        log.info("each hop runs in TensorFlow, as TensorFlow Lite cannot run this network: %s", reason)
        return None
    takes = [one["index"] for one in interpreter.get_input_details()]
    gives = [one["index"] for one in interpreter.get_output_details()]

    def step(frames: np.ndarray, states: Sequence[np.ndarray]) -> tuple[np.ndarray, Sequence[np.ndarray]]:
        for index, value in zip(takes, [frames, *states], strict=True):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        logits, *after = map(interpreter.get_tensor, gives)
        return logits, after

    return step


def inference(path: Path) -> Function:
    """A function that runs a model call by call: [clips, calls, frames, bins] float32 → scores after each clip's last.

    A new interpreter for each clip: only so do internal states begin anew.
    """
    from kws_experiments.export.formats.tflite import interpreter_of, port_of

    content = path.read_bytes()

    def of_clip(calls: np.ndarray) -> np.ndarray:
        interpreter = interpreter_of(content)
        (source, *before), (result, *after) = interpreter.get_input_details(), interpreter.get_output_details()
        takes, gives = port_of(source), port_of(result)
        states = [port_of(one).quantized(np.zeros(one["shape"], np.float32)) for one in before]
        for call in calls:
            interpreter.set_tensor(source["index"], takes.quantized(call[None]))
            for one, value in zip(before, states, strict=True):
                interpreter.set_tensor(one["index"], value)
            interpreter.invoke()
            states = [interpreter.get_tensor(one["index"]) for one in after]
        return gives.dequantized(interpreter.get_tensor(result["index"]))

    return lambda inputs: np.concatenate([of_clip(calls) for calls in inputs])
