"""What a network costs at inference: multiply-adds for one clip, and the weights that it keeps.

Counted layer by layer, for functional and sequential models, nested ones included.

- *Weights*: a batch normalisation right behind a convolution or dense layer folds into that layer's kernel and bias.
  Elsewhere its scale and offset stay: 2 values a channel.
- *Multiply-adds*: the products of convolutions and matrix products (attention's too, of two activations), padding
  included, and one for each value that a scale changes, except for scales that fold. Additions by themselves,
  activations, gates, pooling, resizing and the statistics of activations do not count.
- *Activations*: the most values that must be kept at once: what goes into a layer, what comes out, and what later
  layers need. Batch normalisation and ReLU change the values where they are.

A layer of your own that multiplies anything has a method `multiply_adds(input_shape, output_shape)`, which returns an
int; its weights all count as kernels. Without that method, a layer with weights is refused; one without weights counts
as nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras import layers, tree


@dataclass(frozen=True)
class Cost:
    """See the module; `biases` are the weights added to the result of a convolution or matrix product."""

    multiply_adds: int
    kernels: int
    biases: int
    activations: int = 0

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


class _Call(NamedTuple):
    """One use of a layer, or of an operation such as `x + y`, with the tensors that go in and come out."""

    operation: Any
    inputs: list[Any]
    outputs: list[Any]


class _State(NamedTuple):
    """Of a tensor: whether a scale of its channels folds into the weights that made it, and if those have a bias."""

    folds: bool = False
    has_bias: bool = False


def inference_cost(model: keras.Model, frames: int | None = None) -> Cost:
    """The cost of one call on one clip.

    Args:
        model: features → logits.
        frames: of the clip, where the model takes clips of any length.

    Raises:
        ValueError: a shape is not known; or the model, or a layer of it, is of a type that is not counted. The message
            then starts with its name.
    """
    if not isinstance(model, keras.Sequential | keras.Function):
        raise ValueError(f"{model.name}: only functional and sequential models are counted, got {type(model).__name__}")
    inputs = [_one_clip(tensor, frames) for tensor in model.inputs]
    calls: list[_Call] = []
    outputs = _record(model, calls)(inputs)
    uses = Counter(id(tensor) for call in calls for tensor in call.inputs)
    uses.update(id(tensor) for tensor in tree.flatten(outputs))
    states: dict[int, _State] = {}
    kernels: dict[int, int] = {}  # by layer: what is shared is kept once
    biases: dict[int, int] = {}
    multiply_adds = 0
    for operation, ins, outs in calls:
        # Weights can't change for one reader of their result when it has others.
        before = [states.get(id(tensor), _State()) if uses[id(tensor)] == 1 else _State() for tensor in ins]
        after = _State()
        kernel, bias = _weights(operation)
        if isinstance(operation, layers.BatchNormalization):
            per_channel = operation.axis in (-1, len(ins[0].shape) - 1) and kernel == ins[0].shape[-1]
            if per_channel and before[0].folds:
                kernel, bias = 0, 0 if before[0].has_bias else bias
            after = _State(per_channel, per_channel)
            multiply_adds += _size(outs[0]) if kernel else 0
        else:
            multiply_adds += _multiply_adds(operation, kernel, ins, outs[0])
            if _is_linear_product(operation):
                after = _State(True, bool(bias))
            elif type(operation).__name__ in _KEEP_CHANNELS and {t.shape[-1:] for t in ins} == {outs[0].shape[-1:]}:
                after = _State(all(state.folds for state in before), any(state.has_bias for state in before))
        kernels[id(operation)], biases[id(operation)] = kernel, bias
        states |= {id(tensor): after for tensor in outs}
    kept = _activations(calls, tree.flatten(inputs), tree.flatten(outputs), uses)
    return Cost(multiply_adds, sum(kernels.values()), sum(biases.values()), kept)


def _activations(calls: list[_Call], inputs: list[Any], outputs: list[Any], uses: Counter[int]) -> int:
    """The most values kept at once; the outputs to the end."""
    places = {id(tensor): id(tensor) for tensor in inputs}  # whose memory a tensor has
    sizes = {id(tensor): _values(tensor) for tensor in inputs}
    for operation, ins, outs in calls:
        shared = type(operation).__name__ in _IN_PLACE and len(ins) == 1 and uses[id(ins[0])] == 1
        for tensor in outs:
            places[id(tensor)] = places[id(ins[0])] if shared else id(tensor)
            sizes[places[id(tensor)]] = max(sizes.get(places[id(tensor)], 0), _values(tensor))
    last = {places[id(tensor)]: index for index, call in enumerate(calls) for tensor in (*call.inputs, *call.outputs)}
    last |= {places[id(tensor)]: len(calls) for tensor in outputs}
    live, most = {id(tensor) for tensor in inputs}, 0
    for index, call in enumerate(calls):
        live |= {places[id(tensor)] for tensor in call.outputs}
        most = max(most, sum(sizes[place] for place in live))
        live = {place for place in live if last.get(place, -1) > index}
    return most


def _values(tensor: Any) -> int:
    return math.prod(size or 1 for size in tensor.shape)  # Keras does not know every shape inside a network


# Layers and operations through which a scale of channels goes unchanged, if there are still as many channels
_KEEP_CHANNELS = {
    "Add", "Cast", "Cropping1D", "Cropping2D", "Dropout", "ExpandDims", "Flatten", "GetItem", "Identity", "Reshape",
    "SpatialDropout1D", "SpatialDropout2D", "Squeeze", "Subtract",
}  # fmt: skip
# Layers that change values where they are, or vanish
_IN_PLACE = {"Activation", "BatchNormalization", "Cast", "Dropout", "Identity", "ReLU", "Relu", "SpatialDropout1D"}
# Operations that multiply activations, in ways that are not counted here
_OTHER_PRODUCTS = {
    "Conv", "ConvTranspose", "DepthwiseConv", "Dot", "DotProductAttention", "Einsum", "Inner", "Outer", "SeparableConv",
    "Tensordot", "Vdot",
}  # fmt: skip
_RECURRENT = (layers.GRU, layers.LSTM, layers.SimpleRNN)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.SeparableConv1D, layers.SeparableConv2D)
_SCALES = (layers.PReLU, layers.LayerNormalization, layers.RMSNormalization, layers.GroupNormalization)


def _one_clip(tensor: keras.KerasTensor, frames: int | None) -> keras.KerasTensor:
    shape = (frames if size is None else size for size in tensor.shape[1:])
    return keras.KerasTensor((1, *shape), tensor.dtype)


def _record(operation: Any, calls: list[_Call]) -> Any:
    """A function that returns what the operation would, as symbolic tensors, and appends the calls to `calls`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if isinstance(operation, keras.Sequential):
            (x,) = tree.flatten(args)
            for layer in operation.layers:
                x = _record(layer, calls)(x)
            return x
        if isinstance(operation, keras.Function):
            return operation._run_through_graph(args, lambda inner: _record(inner, calls))
        outputs = operation.compute_output_spec(*args, **kwargs)
        given = tree.flatten((args, kwargs))
        if any(isinstance(value, keras.Variable) for value in given):
            raise ValueError(f"{operation.name}: operations on variables are not counted; use a layer")
        inputs = [value for value in given if isinstance(value, keras.KerasTensor)]
        calls.append(_Call(operation, inputs, tree.flatten(outputs)))
        return outputs

    return call


def _weights(operation: Any) -> tuple[int, int]:
    """(kernels, biases), if nothing folds."""
    if isinstance(operation, layers.BatchNormalization):
        (channels,) = operation.moving_mean.shape
        return channels, channels
    # What `Normalization` has adapted are constants.
    if not isinstance(operation, layers.Layer) or isinstance(operation, layers.Normalization):
        return 0, 0
    count = operation.count_params()
    if hasattr(operation, "multiply_adds"):
        return count, 0
    biases = sum(math.prod(weight.shape) for weight in operation.weights if weight.name in ("bias", "beta"))
    return count - biases, biases


def _is_linear_product(operation: Any) -> bool:
    """Whether the result is a sum of products with a kernel of its own for each channel."""
    if isinstance(operation, layers.EinsumDense):
        _, kernel, result = _einsum_letters(operation)
        if result[-1] not in kernel:
            return False
    elif not isinstance(operation, (layers.Dense, *_CONVOLUTIONS, *_DEPTHWISE, *_TRANSPOSED)):
        return False
    return operation.activation is keras.activations.linear


def _multiply_adds(operation: Any, kernel: int, inputs: list[Any], y: Any) -> int:
    """Of one call, for anything but batch normalisation.

    Raises:
        ValueError: the operation may multiply something, and is not known.
    """
    x = inputs[0]
    if hasattr(operation, "multiply_adds"):
        return operation.multiply_adds(x.shape, y.shape)
    # How often each weight of the kernel is used, times the weights
    if isinstance(operation, layers.Dense):
        return kernel * (_size(y) // operation.units)
    if isinstance(operation, _CONVOLUTIONS):
        return kernel * (_size(y) // operation.filters)
    if isinstance(operation, _DEPTHWISE):
        return kernel * (_size(y) // math.prod(operation.kernel.shape[-2:]))
    if isinstance(operation, _TRANSPOSED):
        return kernel * (_size(x) // operation.kernel.shape[-1])
    if isinstance(operation, layers.EinsumDense):
        letters, kernel_letters, _ = _einsum_letters(operation)
        sizes = zip(kernel_letters, operation.kernel.shape, strict=True)
        return kernel * (_size(x) // math.prod(size for letter, size in sizes if letter in letters))
    if isinstance(getattr(operation, "forward_layer", operation), _RECURRENT):
        return kernel * x.shape[0] * x.shape[1]
    if isinstance(operation, _SCALES):
        return _size(y) if kernel else 0
    # Products of activations
    if isinstance(operation, layers.MultiHeadAttention):
        return _multi_head_attention(operation, kernel, x, inputs[1], y)
    if isinstance(operation, layers.Attention) and not kernel:
        return (_size(x) + _size(y)) * inputs[1].shape[1]
    if isinstance(operation, layers.Dot) and isinstance(operation.axes, int):
        return _size(y) * x.shape[operation.axes]
    kind = type(operation).__name__
    if kind == "Matmul":
        return _size(y) * x.shape[-1]
    if kind in _OTHER_PRODUCTS:
        raise ValueError(f"{operation.name}: operations of the type {kind} are not counted")
    if getattr(operation, "weights", None) and not isinstance(operation, layers.Embedding | layers.Normalization):
        raise ValueError(
            f"{operation.name}: layers of the type {kind} are not counted; give the class a method "
            "multiply_adds(input_shape, output_shape)"
        )
    return 0


def _einsum_letters(layer: layers.EinsumDense) -> tuple[str, str, str]:
    """Of the input, the kernel and the result."""
    operands, result = layer.equation.split("->")
    x, kernel = operands.split(",")
    return x, kernel, result


def _multi_head_attention(layer: layers.MultiHeadAttention, kernel: int, query: Any, value: Any, y: Any) -> int:
    """The four projections, each query's products with the keys, and the weighted sums of the values."""
    queries, values = math.prod(query.shape[:-1]), math.prod(value.shape[:-1])
    at_queries = layer.num_heads * (layer.key_dim * query.shape[-1] + layer.value_dim * y.shape[-1])
    products = queries * math.prod(value.shape[1:-1]) * layer.num_heads * (layer.key_dim + layer.value_dim)
    return queries * at_queries + values * (kernel - at_queries) + products


def _size(tensor: Any) -> int:
    if None in tensor.shape:
        raise ValueError(f"the shape of '{tensor.name}' is not known, got {tensor.shape}: how many frames are there?")
    return math.prod(tensor.shape)
