"""What a TensorFlow Lite file says of itself: a signature, names, and metadata, for MediaPipe and the Task Library.

The schema is metadata_schema.fbs of TensorFlow Lite; the labels are a file in a zip archive behind the model.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from kws_experiments.export.artifact import LABELS
from kws_experiments.export.scorer import Facts

_SCHEMA = "1.3.0"  # the first with AudioProperties
_FEATURE, _AUDIO = np.uint8(1), np.uint8(4)  # ContentProperties
_TENSOR_AXIS_LABELS = np.int8(2)  # AssociatedFileType


def named(model: bytes, takes: str, facts: Facts, front_end: dict[str, Any]) -> bytes:
    """A model whose inputs and outputs have names, in a signature too, with labels and what the input is as metadata.

    Args:
        model: with one input and one output, the scores; and, behind these, as many states.
        takes: waveform, features or frames.
        facts: what belongs to it.
        front_end: see `front_end.described`.
    """
    content = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    graph = content.subgraphs[0]
    states = [f"state_{index}" for index in range(len(graph.inputs) - 1)]
    inputs, outputs = (
        dict(zip([first, *states], tensors, strict=True))
        for first, tensors in ((takes, graph.inputs), ("scores", graph.outputs))
    )
    for name, tensor in (*inputs.items(), *outputs.items()):
        graph.tensors[tensor].name = name.encode()

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs, signature.outputs = ([_port(*port) for port in ports.items()] for ports in (inputs, outputs))
    content.signatureDefs = [signature]

    buffer, metadata = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(_metadata(takes, facts, front_end, states), np.uint8)
    content.buffers.append(buffer)
    metadata.name, metadata.buffer = b"TFLITE_METADATA", len(content.buffers) - 1
    content.metadata = [*(content.metadata or []), metadata]

    builder = _Builder(1024)
    builder.Finish(content.Pack(builder), file_identifier=b"TFL3")
    return _with_file(bytes(builder.Output()), LABELS, "\n".join(facts.labels) + "\n")


class _Builder(flatbuffers.Builder):
    """Puts the content of tensors at multiples of 16 bytes (`force_align`), which the generated code leaves out."""

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        """See flatbuffers."""
        if x.dtype == np.uint8:
            self.Prep(16, x.nbytes)
        return super().CreateNumpyVector(x)


def _port(name: str, tensor: int) -> Any:
    port = schema.TensorMapT()
    port.name, port.tensorIndex = name.encode(), tensor
    return port


def _with_file(model: bytes, name: str, text: str) -> bytes:
    """The model with a zip archive of one file behind it."""
    content = io.BytesIO(model)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), text)  # without compression, and the same each time
    return content.getvalue()


def _metadata(takes: str, facts: Facts, front_end: dict[str, Any], states: list[str]) -> bytes:
    """`ModelMetadata`; the keys are the fields' places in the schema's tables."""
    if takes == "waveform":
        about = f"{facts.clip_samples} samples in [-1, 1]"
        content = {0: _AUDIO, 1: {0: np.uint32(facts.sample_rate), 1: np.uint32(1)}}
    else:
        about = json.dumps({"sample_rate": facts.sample_rate, "front_end": front_end})
        content = {0: _FEATURE, 1: {}}
    labels = {0: LABELS, 2: _TENSOR_AXIS_LABELS}
    source = {0: takes, 1: about, 3: content}
    result = {0: "scores", 1: "softmax", 3: {0: _FEATURE, 1: {}}, 6: [labels]}
    kept = [{0: name, 3: {0: _FEATURE, 1: {}}} for name in states]
    builder = flatbuffers.Builder(1024)
    model = _written(builder, {0: "keyword spotter", 3: [{2: [source, *kept], 3: [result, *kept]}], 7: _SCHEMA})
    builder.Finish(model, file_identifier=b"M001")
    return bytes(builder.Output())


def _written(builder: flatbuffers.Builder, value: str | list[Any] | dict[int, Any]) -> int:
    """Write a string, a vector of tables, or a table: its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list):
        offsets = [_written(builder, table) for table in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    nested = {slot: _written(builder, field) for slot, field in value.items() if isinstance(field, str | list | dict)}
    builder.StartObject(max(value, default=-1) + 1)
    prepend = {"uint8": builder.PrependUint8, "int8": builder.PrependInt8, "uint32": builder.PrependUint32}
    for slot, field in value.items():
        if slot in nested:
            builder.PrependUOffsetTRelative(nested[slot])
        else:
            prepend[field.dtype.name](field)
        builder.Slot(slot)
    return builder.EndObject()
