"""What a network costs at inference: multiply-adds for one clip, and the weights that it keeps.

Read from the graph of `model(inputs, training=False)`, so that every Keras model counts, hand-made layers included.

- *Weights* are what is computed from variables alone, where it meets what depends on the input: what constant folding
  leaves. A batch normalisation (any learned scale and offset per channel) right behind a convolution or matrix product
  folds into that one's kernel and bias; elsewhere its scale and offset stay.
- *Multiply-adds* are the products of convolutions and matrix products (attention's too, of two activations), padding
  included, and the elementwise products with a weight, but for scales that fold: a depthwise convolution written as
  shifted products costs what the one op does. A loop counts once per round. Additions by themselves, activations,
  gates, pooling, resizing and the statistics of activations do not count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf


@dataclass(frozen=True)
class Cost:
    """See the module; `biases` are the weights added to the result of a convolution or matrix product."""

    multiply_adds: int
    kernels: int
    biases: int

    @property
    def weights(self) -> int:
        """How many values the network keeps."""
        return self.kernels + self.biases

    @property
    def float32_bytes(self) -> int:
        """Of the weights, without a file's structure."""
        return 4 * self.weights

    @property
    def int8_bytes(self) -> int:
        """Of the weights in 8 bits, biases in 32 as TensorFlow Lite has them, without scales and a file's structure."""
        return self.kernels + 4 * self.biases


def inference_cost(model: keras.Model, inputs: Any) -> Cost:
    """The cost of one call.

    Args:
        model: features → logits.
        inputs: what it takes, as `tf.TensorSpec`s of known shape; for one clip with a batch of 1.

    Raises:
        ValueError: a shape, or how often a loop runs, does not follow from the graph.
    """
    graph = tf.function(lambda inputs: model(inputs, training=False)).get_concrete_function(inputs).graph
    sizes = {id(variable.handle): _elements(variable) for variable in graph.variables}
    captured = {
        inside.name: _Constant(("captured", inside.name), learned=id(outside) in sizes, size=sizes.get(id(outside)))
        for outside, inside in graph.captures
    }
    walk = _Walk()
    walk.graph(graph, {tensor.name: captured.get(tensor.name, _Data()) for tensor in graph.inputs}, rounds=1)
    return Cost(walk.multiply_adds, sum(walk.kernels.values()), sum(walk.biases.values()))


@dataclass(frozen=True)
class _Constant:
    """A tensor that does not depend on the input; of equal keys, equal values."""

    key: Any
    learned: bool = False  # computed from variables
    size: int | None = None  # where the tensor is a variable's handle: of the variable


@dataclass(frozen=True)
class _Data:
    """A tensor that depends on the input."""

    linear: bool = False  # a product with weights that can take up a factor for each of its channels
    has_bias: bool = False


_State = _Constant | _Data


class _Walk:
    """Goes through a graph from its inputs on, and adds up what it meets."""

    def __init__(self) -> None:
        self.multiply_adds = 0
        self.kernels: dict[Any, int] = {}  # sizes, by the key of the constant: shared weights are kept once
        self.biases: dict[Any, int] = {}

    def graph(self, graph: Any, states: dict[str, _State], rounds: int) -> list[_State]:
        """Count one graph, `rounds` times; `states` holds its inputs. Returns the states of its outputs."""
        ops = _needed_ops(graph.outputs)
        uses = Counter(tensor.name for op in ops for tensor in op.inputs)
        uses.update(tensor.name for tensor in graph.outputs)
        for op in ops:
            if op.type == "Placeholder":
                continue
            inputs = [states[tensor.name] for tensor in op.inputs]
            # What others use too cannot change: no folding into it.
            inputs = [
                replace(state, linear=False) if isinstance(state, _Data) and uses[tensor.name] > 1 else state
                for tensor, state in zip(op.inputs, inputs, strict=True)
            ]
            for tensor, state in zip(op.outputs, self._op(op, inputs, rounds), strict=True):
                states[tensor.name] = state
        return [states[tensor.name] for tensor in graph.outputs]

    def _op(self, op: tf.Operation, inputs: list[_State], rounds: int) -> list[_State]:
        if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            return self._call(op, "f", inputs, rounds)
        if op.type in ("While", "StatelessWhile"):
            return self._loop(op, inputs, rounds)
        if op.type in ("If", "StatelessIf"):
            return self._branches(op, inputs, rounds)
        if all(isinstance(state, _Constant) for state in inputs):
            key = (_definition(op), *(state.key for state in inputs if isinstance(state, _Constant)))
            learned = any(state.learned for state in inputs if isinstance(state, _Constant))
            return [_Constant(hash((*key, index)), learned) for index in range(len(op.outputs))]
        return [self._data(op, inputs, rounds)] * len(op.outputs)

    def _data(self, op: tf.Operation, inputs: list[_State], rounds: int) -> _Data:
        """The state of what an op makes of data, and perhaps weights."""
        if op.type.startswith("Cudnn"):
            raise ValueError(f"'{op.type}' hides what it computes: hide the GPU while you count")
        if op.type in _PRODUCTS:
            self.multiply_adds += rounds * _PRODUCTS[op.type](op)
            self._keep(op, inputs)
            weight = inputs[min(1, len(inputs) - 1)]
            return _Data(linear=isinstance(weight, _Constant) and weight.learned and _has_output_channels(op))
        one_learned = len(inputs) == 2 and any(isinstance(state, _Constant) and state.learned for state in inputs)
        if one_learned and op.type in ("Mul", "RealDiv"):
            return self._scale(op, inputs, rounds)
        if one_learned and op.type in ("Add", "AddV2", "BiasAdd", "Sub"):
            return self._offset(op, inputs)
        self._keep(op, inputs)
        data = [state for state in inputs if isinstance(state, _Data)]
        learned = any(isinstance(state, _Constant) and state.learned for state in inputs)
        channels = {_channels(tensor) for tensor, state in zip(op.inputs, inputs, strict=True) if state in data}
        if op.type in _KEEP_CHANNELS and not learned and channels == {_channels(op.outputs[0])}:
            return _Data(all(state.linear for state in data), any(state.has_bias for state in data))
        return _Data()

    def _scale(self, op: tf.Operation, inputs: list[_State], rounds: int) -> _Data:
        """x times (or through) a weight."""
        place = next(place for place, state in enumerate(inputs) if isinstance(state, _Constant))
        x = inputs[1 - place]
        assert isinstance(x, _Data)
        if x.linear and _is_per_channel(op.inputs[place], op.outputs[0]):
            return x
        self.multiply_adds += rounds * _elements(op.outputs[0])
        self._keep(op, inputs)
        return _Data(linear=_channels(op.inputs[place]) == _channels(op.outputs[0]))

    def _offset(self, op: tf.Operation, inputs: list[_State]) -> _Data:
        """x plus (or minus) a weight."""
        place = next(place for place, state in enumerate(inputs) if isinstance(state, _Constant))
        x, offset = inputs[1 - place], inputs[place]
        assert isinstance(x, _Data)
        assert isinstance(offset, _Constant)
        if not (x.linear and _is_per_channel(op.inputs[place], op.outputs[0])):
            self._keep(op, inputs)
            return _Data()
        if not x.has_bias:
            self.biases[offset.key] = _elements(op.inputs[place])
        return replace(x, has_bias=True)

    def _keep(self, op: tf.Operation, inputs: list[_State]) -> None:
        for tensor, state in zip(op.inputs, inputs, strict=True):
            if isinstance(state, _Constant) and state.learned and state.key not in self.biases:
                self.kernels[state.key] = _elements(tensor) if state.size is None else state.size

    def _call(self, op: tf.Operation, attribute: str, inputs: list[_State], rounds: int) -> list[_State]:
        graph = _function_graph(op, attribute)
        names = [tensor.name for tensor in graph.inputs]
        return self.graph(graph, dict(zip(names, inputs, strict=True)), rounds)

    def _branches(self, op: tf.Operation, inputs: list[_State], rounds: int) -> list[_State]:
        """The costlier branch; the weights of both."""
        before, costs = self.multiply_adds, []
        for attribute in ("then_branch", "else_branch"):
            self.multiply_adds = before
            self._call(op, attribute, inputs[1:], rounds)
            costs.append(self.multiply_adds)
        self.multiply_adds = max(costs)
        return [_Data()] * len(op.outputs)

    def _loop(self, op: tf.Operation, inputs: list[_State], rounds: int) -> list[_State]:
        body = _function_graph(op, "body")
        # Only what goes round unchanged (weights, above all) is in the loop what it was before.
        inside = [
            state if _without_identity(result) is argument else _Data()
            for state, argument, result in zip(inputs, body.inputs, body.outputs, strict=True)
        ]
        names = [tensor.name for tensor in body.inputs]
        self.graph(body, dict(zip(names, inside, strict=True)), rounds * _rounds(op, body))
        return [_Data()] * len(op.outputs)


def _needed_ops(outputs: list[tf.Tensor]) -> list[tf.Operation]:
    """The ops that the outputs depend on, each after those that it depends on itself."""
    ordered, seen = [], set()
    stack = [(tensor.op, False) for tensor in outputs]
    while stack:
        op, inputs_are_done = stack.pop()
        if inputs_are_done:
            ordered.append(op)
        elif op.name not in seen:
            seen.add(op.name)
            stack.append((op, True))
            stack.extend((tensor.op, False) for tensor in op.inputs)
    return ordered


def _definition(op: tf.Operation) -> bytes:
    """What the op computes, without its name and inputs."""
    node = type(op.node_def)()
    node.CopyFrom(op.node_def)
    del node.input[:]
    node.name = node.device = ""
    node.ClearField("experimental_debug_info")
    return node.SerializeToString(deterministic=True)


def _function_graph(op: tf.Operation, attribute: str) -> Any:
    return op.graph._get_function(op.get_attr(attribute).name).graph


def _rounds(op: tf.Operation, body: Any) -> int:
    """How often a loop runs whose condition is that counters are below limits.

    Raises:
        ValueError: no counter's start, step and limit are constants.
    """
    condition = _function_graph(op, "cond")
    places = {tensor.name: place for place, tensor in enumerate(condition.inputs)}

    def before_the_loop(tensor: tf.Tensor) -> Any:
        outside = op.inputs[places[tensor.name]] if tensor.name in places else tensor
        return tf.get_static_value(_without_identity(outside))

    found = []
    for less in _needed_ops(condition.outputs):
        if less.type in ("Less", "LessEqual"):
            counter, limit = (_without_identity(tensor) for tensor in less.inputs)
            place = places.get(counter.name)
            start, stop = before_the_loop(counter), before_the_loop(limit)
            step = None if place is None else _step(body.inputs[place], _without_identity(body.outputs[place]))
            if start is not None and stop is not None and step:
                found.append(math.ceil((stop + (less.type == "LessEqual") - start) / step))
        elif less.type not in ("LogicalAnd", "Identity", "Const", "Placeholder"):
            found = []
            break
    if not found:
        raise ValueError(f"the rounds of the loop '{op.name}' do not follow from the graph")
    return max(0, int(min(found)))


def _step(counter: tf.Tensor, following: tf.Tensor) -> Any:
    """What a round adds to the counter; None where that is not a constant."""
    if following.op.type not in ("Add", "AddV2"):
        return None
    left, right = (_without_identity(tensor) for tensor in following.op.inputs)
    if right is counter:
        left, right = right, left
    return tf.get_static_value(right) if left is counter else None


def _without_identity(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _elements(tensor: Any) -> int:
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"the shape of '{tensor.name}' does not follow from the graph, got {tensor.shape}")
    return int(math.prod(tensor.shape))


def _channels(tensor: tf.Tensor) -> int | None:
    """The last dimension."""
    return tensor.shape[-1] if tensor.shape.rank else None


def _is_per_channel(weight: tf.Tensor, x: tf.Tensor) -> bool:
    return _channels(weight) == _channels(x) == _elements(weight)


def _has_output_channels(op: tf.Operation) -> bool:
    """Whether the op's second input, the weights, has the channels of its output."""
    if op.type != "Einsum":
        return True
    operands, result = op.get_attr("equation").decode().split("->")
    return result[-1:] in operands.split(",")[1]


# Ops through which a factor per channel goes unchanged, if the number of channels is still the same; sums among them
_KEEP_CHANNELS = (
    "Add", "AddN", "AddV2", "BatchToSpaceND", "Cast", "ExpandDims", "Identity", "Reshape", "Squeeze", "StridedSlice",
    "Sub",
)  # fmt: skip


def _convolution(kernel_axes: int) -> Callable[[tf.Operation], int]:
    """`kernel_axes`: the axes of the kernel that go into one output value."""

    def products(op: tf.Operation) -> int:
        result = op.outputs[0]
        # A dilated convolution may work on every n-th position at a time, and pad to a multiple of n for that.
        if [consumer.type for consumer in result.consumers()] == ["BatchToSpaceND"]:
            result = result.consumers()[0].outputs[0]
        return _elements(result) * int(math.prod(op.inputs[1].shape[:kernel_axes]))

    return products


def _transposed_convolution(op: tf.Operation) -> int:
    return _elements(op.inputs[2]) * int(math.prod(op.inputs[1].shape[:-1]))


def _matrix_product(op: tf.Operation) -> int:
    transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
    return _elements(op.outputs[0]) * op.inputs[0].shape[-2 if transposed else -1]


def _einsum(op: tf.Operation) -> int:
    """The product of all the letters' sizes."""
    operands = op.get_attr("equation").decode().split("->")[0].split(",")
    if len(operands) < 2:
        return 0
    sizes: dict[Any, int] = {}
    for operand, tensor in zip(operands, op.inputs, strict=True):
        before, dots, after = operand.partition("...")
        hidden = tensor.shape.rank - len(before) - len(after) if dots else 0
        letters = [*before, *(f"...{place}" for place in range(hidden, 0, -1)), *after]
        for letter, size in zip(letters, tensor.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


_PRODUCTS: dict[str, Callable[[tf.Operation], int]] = {
    "Conv2D": _convolution(3),  # [height, width, channels in (of a group), channels out]
    "Conv3D": _convolution(4),
    "DepthwiseConv2dNative": _convolution(2),
    "Conv2DBackpropInput": _transposed_convolution,
    "MatMul": _matrix_product,
    "BatchMatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "BatchMatMulV3": _matrix_product,
    "Einsum": _einsum,
}
