"""ONNX: waveform → scores with the front end inside, for any number of clips at once."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kws_experiments.export.formats.base import Format, Request, Written

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import tensorflow as tf

    from kws_experiments.export.scorer import Function
    from kws_experiments.export.trained import Trained

WHOLE, NETWORK = "model.onnx", "network.onnx"
OPSET = 17  # the first with a Fourier transform
_FRONT_END = "front_end"


class Onnx(Format):
    """`model.onnx`, or `network.onnx`, which takes features, where ONNX lacks an op of the front end."""

    about = "`model.onnx` takes waveforms"
    quantizations = ("none", "int8")
    needs = ("tf2onnx", "onnxruntime")

    def write(self, trained: Trained, request: Request) -> Written:
        """See Format. int8: weights and activations of the network, their ranges set by training clips."""
        import onnx
        import tensorflow as tf

        from kws_experiments.export.artifact import ModelFile, Port

        clip_samples = trained.facts.clip_samples
        assert clip_samples is not None
        frames, bins = trained.features.output_shape_for(clip_samples)

        def whole(waveform: tf.Tensor) -> tf.Tensor:
            with tf.name_scope(_FRONT_END):
                features = trained.features.in_one_piece(waveform)
            return trained.scores(tf.ensure_shape(features, [None, frames, bins]))

        notes, name, takes, shape = [], WHOLE, "waveform", [clip_samples]
        try:
            model = _converted(whole, shape, takes)
        except Exception as error:  # whatever the converter raises
            reason = f"the front end ({type(trained.features).__name__}) can't be converted to ONNX"
            notes.append(f"{reason}, so that {NETWORK} takes features: {' '.join(str(error).split())[:200]}")
            name, takes, shape = NETWORK, "features", [frames, bins]
            model = _converted(trained.scores, shape, takes)
        if request.quantize == "int8":
            clips = request.calibration
            assert clips is not None
            model = _quantized(model, clips if takes == "waveform" else trained.features(clips).numpy())
            notes.append(f"int8 is the network in {name}: its inputs and scores stay in float32")
        facts = trained.facts
        about = {"labels": facts.labels, "sample_rate": facts.sample_rate, "front_end": trained.front_end}
        onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
        onnx.save(model, request.out / name)
        operators = sorted({node.op_type for node in model.graph.node})
        ports = Port(takes, [-1, *shape], "float32"), Port("scores", [-1, len(trained.facts.labels)], "float32")
        return Written([ModelFile(name, takes, *ports, operators=operators)], notes)

    def load(self, path: Path) -> Function:
        """See Format: by onnxruntime on the processor; its model must be one file, as ours are."""
        import onnx
        import onnxruntime
        from onnx import external_data_helper

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            model = onnx.load(path, load_external_data=False)
            if any(map(external_data_helper.uses_external_data, external_data_helper._get_all_tensors(model))):
                raise ValueError("it takes data from other files, which are not read")
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # theirs have no base of their own
            raise ValueError(str(error)) from error
        name = session.get_inputs()[0].name
        return lambda inputs: session.run(["scores"], {name: inputs})[0]

    def versions(self) -> dict[str, str]:
        """See Format; tf2onnx brings onnx along."""
        return super().versions() | {"onnx": version("onnx")}


def _converted(function: Callable[[Any], Any], shape: list[int], name: str) -> onnx.ModelProto:
    """A function of one float32 tensor, [batch, *shape], as a model that has been checked."""
    import onnx
    import tf2onnx

    from kws_experiments.export.onnx_fourier import HANDLERS
    from kws_experiments.export.trained import frozen

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    # frozen first: tf2onnx's own freezing takes tensors that a layer holds, such as Normalization's, for inputs
    traced = frozen(function, [None, *shape], name, lower_control_flow=False)
    (source,), (result,) = traced.inputs, traced.outputs
    model, _ = tf2onnx.convert.from_graph_def(
        traced.graph.as_graph_def(),
        input_names=[source.name],
        output_names=[result.name],
        tensors_to_rename={source.name: name, result.name: "scores"},
        opset=OPSET,
        custom_op_handlers=HANDLERS,
    )
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model)  # tf2onnx leaves an op that it doesn't know as it is
    return model


def _quantized(model: onnx.ModelProto, calibration: np.ndarray) -> onnx.ModelProto:
    """The network in int8, with ranges that don't depend on the clips of a batch; front end and scores in float32."""
    import onnx
    from onnxruntime import quantization

    source = model.graph.input[0].name
    clips = iter([{source: clip[None]} for clip in calibration])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(clips, None)

    nodes = model.graph.node
    in_float = [node.name for node in nodes if f"{_FRONT_END}/" in node.name or node.op_type == "Softmax"]
    root = logging.getLogger()  # through which it advises to pre-process the model
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "quantized.onnx"
            quantization.quantize_static(model, path, Reader(), per_channel=True, nodes_to_exclude=in_float)
            return onnx.load(path)
    finally:
        root.setLevel(level)
