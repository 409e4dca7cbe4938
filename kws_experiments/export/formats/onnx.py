"""ONNX: waveform → scores with the front end inside, for any number of clips at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tf2onnx.utils import make_name

from kws_experiments.export.artifact import ModelFile, Port
from kws_experiments.export.trained import Trained

WHOLE, NETWORK = "model.onnx", "network.onnx"
OPSET = 17  # the first with a Fourier transform
_FRONT_END = "front_end"


def write(trained: Trained, out: Path, *, clip_samples: int, quantize: str) -> tuple[list[ModelFile], list[str]]:
    """Write `model.onnx` below `out`, or `network.onnx`, which takes features, where the front end has unknown ops.

    Args:
        trained: the run.
        out: the folder.
        clip_samples: samples of a clip.
        quantize: none, or dynamic (weights and activations of the network in eight bits, by onnxruntime).

    Returns:
        the file, and what the user should know.
    """
    frames, bins = trained.features.output_shape_for(clip_samples)

    def network(features: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(trained.logits(features))

    def whole(waveform: tf.Tensor) -> tf.Tensor:
        with tf.name_scope(_FRONT_END):
            features = trained.features.in_one_piece(waveform)
        return network(tf.ensure_shape(features, [None, frames, bins]))

    notes, name, takes, shape = [], WHOLE, "waveform", [clip_samples]
    try:
        model = _converted(whole, [None, clip_samples], "waveform")
        onnx.checker.check_model(model)  # tf2onnx leaves an op that it doesn't know as it is
    except Exception as error:  # whatever the converter raises
        reason = f"the front end ({type(trained.features).__name__}) can't be converted to ONNX"
        notes.append(f"{reason}, so that {NETWORK} takes features: {' '.join(str(error).split())[:200]}")
        name, takes, shape = NETWORK, "features", [frames, bins]
        model = _converted(network, [None, *shape], "features")
        onnx.checker.check_model(model)
    if quantize == "dynamic":
        _write_quantized(model, out / name)
        notes.append(f"dynamic is the network in {name}; its front end stays in float32")
    else:
        onnx.save(model, out / name)
    operators = sorted({node.op_type for node in onnx.load(out / name).graph.node})
    source, scores = Port(takes, [-1, *shape], "float32"), Port("scores", [-1, len(trained.labels)], "float32")
    return [ModelFile(name, takes, source, scores, operators=operators)], notes


def _converted(function: Callable[[Any], Any], shape: list[int | None], name: str) -> onnx.ModelProto:
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    spec = tf.TensorSpec(shape, tf.float32, name=name)
    # frozen first: tf2onnx's own freezing takes tensors that a layer holds, such as Normalization's, for inputs
    traced = tf.function(function).get_concrete_function(spec)
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)
    (source,), (result,) = frozen.inputs, frozen.outputs
    model, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[source.name],
        output_names=[result.name],
        tensors_to_rename={source.name: name, result.name: "scores"},
        opset=OPSET,
        custom_op_handlers={"RFFT": (_rfft, []), "Real": (_real, []), "Imag": (_imaginary, [])},
    )
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _write_quantized(model: onnx.ModelProto, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    front_end = [node.name for node in model.graph.node if f"{_FRONT_END}/" in node.name]
    root = logging.getLogger()  # by which it advises to pre-process the model
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quantize_dynamic(model, path, weight_type=QuantType.QUInt8, nodes_to_exclude=front_end)
    finally:
        root.setLevel(level)


# TensorFlow's complex tensors as ONNX has them: real tensors whose last axis is [real, imaginary]. tf2onnx only knows
# the FFT whose magnitude is taken at once.


def _rfft(ctx: Any, node: Any, name: str, args: Any) -> None:
    """RFFT of [..., samples], as long as the FFT itself → DFT [..., bins, 2]."""
    del args
    shape, source, outputs = ctx.get_shape(node.input[0]), node.input[0], node.output
    last = ctx.make_const(make_name("last_axis"), np.array([-1], np.int64))
    ctx.remove_node(node.name)
    real = ctx.make_node("Unsqueeze", [source, last.output[0]])
    ctx.make_node(
        "DFT", [real.output[0]], attr={"axis": len(shape) - 1, "onesided": 1}, outputs=outputs, name=name,
        dtypes=[onnx.TensorProto.FLOAT], shapes=[[*shape[:-1], shape[-1] // 2 + 1, 2]],
    )  # fmt: skip


def _part(ctx: Any, node: Any, name: str, place: int) -> None:
    source, outputs = node.input[0], node.output
    shape = ctx.get_shape(source)
    index = ctx.make_const(make_name("part"), np.array(place, np.int64))
    ctx.remove_node(node.name)
    ctx.make_node(
        "Gather", [source, index.output[0]], attr={"axis": -1}, outputs=outputs, name=name,
        dtypes=[onnx.TensorProto.FLOAT], shapes=[shape[:-1]],
    )  # fmt: skip


def _real(ctx: Any, node: Any, name: str, args: Any) -> None:
    del args
    _part(ctx, node, name, 0)


def _imaginary(ctx: Any, node: Any, name: str, args: Any) -> None:
    del args
    _part(ctx, node, name, 1)
