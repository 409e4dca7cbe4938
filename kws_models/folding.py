"""A network as it computes after training: batch normalisations folded into the convolutions before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeGuard

import keras
import tensorflow as tf
from keras.layers import Conv2D, DepthwiseConv2D

from kws_models.layers import BatchNormalization
from kws_models.masking import MaskedBatchNormalization
from kws_models.sub_spectral import MaskedSubSpectralNormalization, SubSpectralNormalization

_PLAIN = (keras.layers.BatchNormalization, BatchNormalization, MaskedBatchNormalization)
_SUB_SPECTRAL = (SubSpectralNormalization, MaskedSubSpectralNormalization)

Weights = Callable[[], Sequence[Any]]


def is_graph(network: Any) -> TypeGuard[keras.Model]:
    """Whether a network computes what its graph of layers says: a class of one's own may do otherwise."""
    return isinstance(network, keras.Model) and type(network).__name__ == "Functional"


def folded(network: Callable[..., Any], once: Once | None = None) -> Callable[[Any], Any]:
    """Inputs → what `network` computes without training, but for rounding.

    A convolution that feeds nothing but a batch normalisation gets its scale and offset; a sub-spectral normalisation
    is a scale and an offset for each bin and channel. Everything else is the layer itself: other kinds, layers that
    are used twice, half precision, and all of a network that is no graph of layers.

    Args:
        network: the model.
        once: where folded weights are kept; None folds those that the network has at each call.
    """
    if not is_graph(network):
        return lambda inputs: network(inputs, training=False)
    call_of = calls_of(network, once)

    def infer(inputs: Any) -> Any:
        outputs = network._run_through_graph(network._standardize_inputs(inputs), call_of)
        return keras.tree.flatten(outputs)[0]

    return infer


class Once:
    """Folded weights, in variables: as constants, TensorFlow 2.16 mixes up those of fused convolutions."""

    def __init__(self) -> None:
        self._kept: list[tuple[list[tf.Variable], Weights]] = []

    def keep(self, weights: Weights) -> Weights:
        """Those of now, until `renew`."""
        variables = [tf.Variable(value, trainable=False) for value in weights()]
        self._kept.append((variables, weights))
        return lambda: variables

    def renew(self) -> None:
        """Fold the weights that the network has now."""
        for variables, weights in self._kept:
            for variable, value in zip(variables, weights(), strict=True):
                variable.assign(value)


def calls_of(network: keras.Model, once: Once | None = None) -> Callable[[Any], Callable[..., Any]]:
    """A function from each layer of a graph to what it computes when folded; see `folded`."""
    replaced: dict[Any, Callable[..., Any]] = {}

    def replace(layer: Any, compute: Callable[..., Any], weights: Weights) -> None:
        weights = once.keep(weights) if once else weights
        replaced[layer] = lambda x, *_, **__: compute(layer, x, *weights())

    for convolution, norm in _norms_of_convolutions(network).items():
        replace(convolution, _convolve, partial(_folded_weights, convolution, norm))
        replaced[norm] = lambda x, *_, **__: x
    for layer in network.layers:
        if type(layer) in _SUB_SPECTRAL and layer.compute_dtype == "float32":
            replace(layer, _normalize_bins, partial(_weights_of_bins, layer))
        elif isinstance(layer, keras.Model):
            inner = folded(layer, once)
            replaced[layer] = lambda x, *_, inner=inner, **__: inner(x)
    return lambda layer: replaced.get(layer) or _without_training(layer)


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


def _folded_weights(layer: Any, norm: Any) -> tuple[Any, Any]:
    """Kernel and offset of a convolution and its normalisation."""
    scale, offset = _scale_and_offset(norm)
    if layer.use_bias:
        offset += layer.bias * scale
    if isinstance(layer, DepthwiseConv2D):
        scale = tf.reshape(scale, layer.kernel.shape[2:])
    return layer.kernel * scale, offset


def _convolve(layer: Any, x: Any, kernel: Any, offset: Any) -> Any:
    """The convolution and its normalisation."""
    if not isinstance(layer, DepthwiseConv2D):
        return tf.nn.bias_add(layer.convolution_op(x, kernel), offset)
    frames, bins, channels = x.shape[1] or tf.shape(x)[1], x.shape[2], x.shape[3]
    dilation, of_bins = layer.dilation_rate
    apart = dilation > 1 and of_bins == 1 == kernel.shape[1] and kernel.shape[0] % 2 and layer.padding == "same"
    if apart:  # frames that meet become neighbours, without the copies that TensorFlow would make
        x = tf.pad(x, [(0, 0), (0, -frames % dilation), (0, 0), (0, 0)])
        x = tf.reshape(x, (-1, -(-frames // dilation), dilation * bins, channels))
    x = keras.ops.depthwise_conv(
        x,
        kernel,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=1 if apart else layer.dilation_rate,
        data_format=layer.data_format,
    )
    x = tf.nn.bias_add(x, offset)
    return tf.reshape(x, (-1, -(-frames // dilation) * dilation, bins, x.shape[3]))[:, :frames] if apart else x


def _weights_of_bins(norm: Any) -> tuple[Any, Any]:
    """Scale and offset of each bin and channel, bin by bin."""
    bins, channels = keras.tree.flatten(norm.input)[0].shape[2:]
    scale, offset = (
        tf.reshape(tf.repeat(tf.reshape(value, (norm.sub_bands, channels)), bins // norm.sub_bands, axis=0), [-1])
        for value in _scale_and_offset(norm)
    )
    return scale[None, None, :, None], offset


def _normalize_bins(norm: Any, x: Any, scale: Any, offset: Any) -> Any:
    """A depthwise convolution of one point goes over x once, a product and a sum go twice."""
    del norm
    flat = tf.reshape(x, (-1, 1, 1, x.shape[2] * x.shape[3]))
    flat = tf.nn.bias_add(tf.nn.depthwise_conv2d(flat, scale, (1, 1, 1, 1), "VALID"), offset)
    return tf.reshape(flat, tf.shape(x))


def _scale_and_offset(norm: Any) -> tuple[Any, Any]:
    scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    if norm.scale:
        scale *= norm.gamma
    offset = -norm.moving_mean * scale
    return scale, offset + norm.beta if norm.center else offset
