"""TensorFlow Lite models as data: their operators, and two of them joined into one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
CUSTOM = "CUSTOM"  # an operator that the interpreter doesn't have by itself
STATEFUL = "VAR_HANDLE"  # of a model that keeps states from call to call


def operators(model: bytes) -> list[str]:
    """The kinds of operators in a model, sorted: those that an interpreter for it needs."""
    graph = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    return sorted({_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in graph.operatorCodes})


def has_branches(model: bytes) -> bool:
    """Whether a model has more than one subgraph: loops or branches."""
    return len(flatbuffer_utils.convert_bytearray_to_object(bytearray(model)).subgraphs) > 1


def peak(model: bytes) -> dict[str, Any]:
    """Where the activations that must be kept at once take the most: `operator`, `bytes`, and the `tensors`' shapes.

    An interpreter's arena cannot be smaller. It counts what goes into the operator, what comes out, and what later
    ones need.
    """
    content = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    graph = content.subgraphs[0]
    last_use = {tensor: index for index, op in enumerate(graph.operators) for tensor in [*op.inputs, *op.outputs]}
    last_use |= {tensor: len(graph.operators) for tensor in graph.outputs}
    live = set(graph.inputs)
    best: tuple[int, int, list[list[int]]] = (-1, 0, [])
    for index, operator in enumerate(graph.operators):
        live |= set(operator.outputs)
        total = sum(_bytes(graph.tensors[tensor]) for tensor in live)
        if total > best[0]:
            largest = [graph.tensors[tensor] for tensor in sorted(live) if _bytes(graph.tensors[tensor])]
            best = total, index, [list(map(int, tensor.shape)) for tensor in largest]
        live = {tensor for tensor in live if last_use[tensor] > index}
    total, index, shapes = best
    code = content.operatorCodes[graph.operators[index].opcodeIndex]
    name = _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return {"operator": f"{name}, {index + 1} of {len(graph.operators)}", "bytes": total, "tensors": shapes}


def _bytes(tensor: Any) -> int:
    if tensor.type == schema.TensorType.RESOURCE:  # the name of a state, which is outside of the activations
        return 0
    kinds = vars(schema.TensorType)
    (kind,) = (name.lower() for name, value in kinds.items() if value == tensor.type and not name.startswith("_"))
    return math.prod(map(int, tensor.shape)) * np.dtype(kind).itemsize


def joined(first: bytes, second: bytes) -> bytes:
    """One model that feeds the output of `first` to `second`, float at both ends; neither has branches.

    Converting both as one would quantize the front end's own matrices and spectra as well, which eight bits do not
    hold; so each is converted by itself. Where `second` takes or gives int8, the conversion is put between them.
    """
    model, tail = (flatbuffer_utils.convert_bytearray_to_object(bytearray(part)) for part in (first, second))
    graph, added = model.subgraphs[0], tail.subgraphs[0]
    tensors, buffers, codes = len(graph.tensors), len(model.buffers), len(model.operatorCodes)

    for tensor in added.tensors:
        tensor.buffer += buffers if tensor.buffer else 0  # buffer 0 is the empty one of every model
    for operator in added.operators:
        operator.opcodeIndex += codes
        for field in ("inputs", "outputs", "intermediates"):
            if getattr(operator, field) is not None:
                moved = [index + tensors if index >= 0 else index for index in getattr(operator, field)]
                setattr(operator, field, moved)
    graph.tensors = [*graph.tensors, *added.tensors]
    model.buffers = [*model.buffers, *tail.buffers]
    model.operatorCodes = [*model.operatorCodes, *tail.operatorCodes]

    given, taken, result = graph.outputs[0], added.inputs[0] + tensors, added.outputs[0] + tensors
    if graph.tensors[taken].type == schema.TensorType.FLOAT32:
        for operator in added.operators:
            operator.inputs = [given if index == taken else index for index in operator.inputs]
        between = []
    else:
        between = [_cast(model, schema.BuiltinOperator.QUANTIZE, 1, given, taken)]
    after = []
    if graph.tensors[result].type != schema.TensorType.FLOAT32:
        after = [_cast(model, schema.BuiltinOperator.DEQUANTIZE, 2, result, _float_tensor(graph, result))]
        result = after[0].outputs[0]
    graph.operators = [*graph.operators, *between, *added.operators, *after]
    graph.outputs = [result]
    model.metadata = model.signatureDefs = None  # of the first part alone
    return flatbuffer_utils.convert_object_to_bytearray(model)


def _cast(model: Any, code: int, version: int, source: int, target: int) -> Any:
    """An operator of one input and one output, its code added to the model's."""
    operator_code = schema.OperatorCodeT()
    operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
    operator_code.version = version
    model.operatorCodes.append(operator_code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [source], [target]
    return operator


def _float_tensor(graph: Any, like: int) -> int:
    """A new float32 tensor of another's shape: its index."""
    tensor = schema.TensorT()
    tensor.shape = graph.tensors[like].shape
    tensor.type, tensor.name, tensor.hasRank = schema.TensorType.FLOAT32, b"scores", True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
