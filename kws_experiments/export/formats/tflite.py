"""TensorFlow Lite: waveform → scores with the front end inside, and features → scores for microcontrollers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kws_experiments.export import tflite_graph
from kws_experiments.export.artifact import ModelFile, Port
from kws_experiments.export.trained import Trained

WHOLE, NETWORK = "model.tflite", "network.tflite"


def write(
    trained: Trained, out: Path, *, clip_samples: int, quantize: str, calibration: np.ndarray | None
) -> tuple[list[ModelFile], list[str]]:
    """Write `network.tflite` (features in) and `model.tflite` (waveform in) below `out`; a batch is one clip.

    Args:
        trained: the run.
        out: the folder.
        clip_samples: samples of a clip.
        quantize: none; dynamic (weights in int8); float16 (weights); int8 (everything, input and output too).
        calibration: for int8, [clips, frames, bins] features of training clips, which set the ranges.

    Returns:
        the files, the first the one to prefer; and what the user should know.
    """
    shape = trained.features.output_shape_for(clip_samples)
    network = converter(lambda features: tf.nn.softmax(trained.logits(features)), [1, *shape], "features")
    quantize_with(network, quantize, calibration)
    network_bytes = network.convert()
    (out / NETWORK).write_bytes(network_bytes)
    features_in = _described(out / NETWORK, "features")
    try:
        front_end = converter(trained.features.in_one_piece, [1, clip_samples], "waveform").convert()
    except Exception as error:  # whatever the converter raises; a converter that aborts ends the process anyway
        reason = f"the front end ({type(trained.features).__name__}) can't be converted to TensorFlow Lite"
        return [features_in], [f"{reason}, so that {NETWORK} takes features: {_first_line(error)}"]
    if tflite_graph.has_branches(network_bytes):  # recurrent layers of clips that keep their lengths
        return [features_in], [
            f"the network has loops and can't be joined with its front end: {NETWORK} takes features"
        ]
    (out / WHOLE).write_bytes(tflite_graph.joined(front_end, network_bytes))
    notes = [] if quantize == "none" else [f"{quantize} is the network in {WHOLE}; its front end stays in float32"]
    return [_described(out / WHOLE, "waveform"), features_in], notes


def converter(function: Callable[[Any], Any], shape: list[int], name: str) -> Any:
    """A converter of one function, its variables frozen: straight from a Keras 3 model it aborts the process."""
    spec = tf.TensorSpec(shape, tf.float32, name=name)
    frozen = convert_variables_to_constants_v2(tf.function(function).get_concrete_function(spec))
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen])


def quantize_with(converter: Any, quantize: str, calibration: np.ndarray | None) -> None:
    """Set a converter to quantize as `write` says."""
    if quantize == "none":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        assert calibration is not None
        converter.representative_dataset = lambda: ([clip[np.newaxis]] for clip in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8


def _described(path: Path, takes: str) -> ModelFile:
    interpreter = tf.lite.Interpreter(str(path))
    ports = []
    for name, details in ((takes, interpreter.get_input_details()), ("scores", interpreter.get_output_details())):
        scale, zero_point = details[0]["quantization"]
        dtype = np.dtype(details[0]["dtype"]).name
        port = Port(name, details[0]["shape"].tolist(), dtype)
        if dtype != "float32":
            port = dataclasses.replace(port, scale=float(scale), zero_point=int(zero_point))
        ports.append(port)
    return ModelFile(path.name, takes, ports[0], ports[1], operators=tflite_graph.operators(path.read_bytes()))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
