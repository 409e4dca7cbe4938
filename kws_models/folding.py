"""A network as it computes after training: batch normalisations folded into the convolutions before them."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras.layers import Conv2D, DepthwiseConv2D

from kws_models.layers import BatchNormalization
from kws_models.masking import MaskedBatchNormalization
from kws_models.sub_spectral import MaskedSubSpectralNormalization, SubSpectralNormalization

_PLAIN = (keras.layers.BatchNormalization, BatchNormalization, MaskedBatchNormalization)
_SUB_SPECTRAL = (SubSpectralNormalization, MaskedSubSpectralNormalization)


def folded(network: Callable[..., Any]) -> Callable[[Any], Any]:
    """Inputs → what `network` computes without training, but for rounding; with the weights that it has at each call.

    A convolution that feeds nothing but a batch normalisation gets its scale and offset; a sub-spectral normalisation
    is a scale and an offset for each bin and channel. Everything else is the layer itself: other kinds, layers that
    are used twice, half precision, and all of a network that is no graph of layers.
    """
    # A class of one's own may compute otherwise than its graph of layers.
    if not isinstance(network, keras.Model) or type(network).__name__ != "Functional":
        return lambda inputs: network(inputs, training=False)
    norms = _norms_of_convolutions(network)
    replaced: dict[Any, Callable[..., Any]] = {}
    for convolution, norm in norms.items():
        replaced[convolution] = lambda x, *_, layer=convolution, norm=norm, **__: _convolve(layer, norm, x)
        replaced[norm] = lambda x, *_, **__: x
    for layer in network.layers:
        if type(layer) in _SUB_SPECTRAL and layer.compute_dtype == "float32":
            replaced[layer] = lambda x, *_, layer=layer, **__: _normalize_bins(layer, x)
        elif isinstance(layer, keras.Model):
            inner = folded(layer)
            replaced[layer] = lambda x, *_, inner=inner, **__: inner(x)

    def infer(inputs: Any) -> Any:
        outputs = network._run_through_graph(
            network._standardize_inputs(inputs), lambda layer: replaced.get(layer) or _without_training(layer)
        )
        return keras.tree.flatten(outputs)[0]

    return infer


def _without_training(layer: Any) -> Callable[..., Any]:
    return partial(layer, training=False) if getattr(layer, "_call_has_training_arg", False) else layer


def _norms_of_convolutions(network: keras.Model) -> dict[Any, Any]:
    """The batch normalisation of each convolution that can take it in."""
    nodes = [node for nodes in network._nodes_by_depth.values() for node in nodes if not node.is_input]
    tensors = [*network.outputs, *(tensor for node in nodes for tensor in node.input_tensors)]
    uses = Counter(id(tensor) for tensor in tensors)
    calls = Counter(node.operation for node in nodes)
    norms = {}
    for node in nodes:
        norm, source = node.operation, node.input_tensors[0]
        convolution = source._keras_history.operation
        if (
            type(norm) in _PLAIN
            and type(convolution) in (Conv2D, DepthwiseConv2D)
            and uses[id(source)] == calls[norm] == calls[convolution] == 1
            and norm.axis in (-1, 3)
            and convolution.data_format == "channels_last"
            and convolution.activation is keras.activations.linear
            and norm.compute_dtype == convolution.compute_dtype == "float32"
        ):
            norms[convolution] = norm
    return norms


def _convolve(layer: Any, norm: Any, x: Any) -> Any:
    """The convolution and its normalisation."""
    scale, offset = _scale_and_offset(norm)
    if layer.use_bias:
        offset += layer.bias * scale
    if isinstance(layer, DepthwiseConv2D):
        x = keras.ops.depthwise_conv(
            x,
            layer.kernel * tf.reshape(scale, layer.kernel.shape[2:]),
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )
    else:
        x = layer.convolution_op(x, layer.kernel * scale)
    return tf.nn.bias_add(x, offset)


def _normalize_bins(norm: Any, x: Any) -> Any:
    rows = x.shape[2] // norm.sub_bands
    scale, offset = (
        tf.repeat(tf.reshape(value, (norm.sub_bands, x.shape[3])), rows, axis=0) for value in _scale_and_offset(norm)
    )
    return x * scale + offset


def _scale_and_offset(norm: Any) -> tuple[Any, Any]:
    scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    if norm.scale:
        scale *= norm.gamma
    offset = -norm.moving_mean * scale
    return scale, offset + norm.beta if norm.center else offset
