"""Networks that can run on a stream without computing their first layers anew for every window.

A network over windows of F frames is cut in two. Its first layers, as long as what they make of a frame doesn't depend
on where in the window it stands, run once on the stream, with state: what they still need of its last frames. The rest
runs on windows of their outputs. Up to rounding the logits are those of the whole network on every window.

`CausalStream` finds the cut from the layers. Of the models here:

- `low_latency_svdf`: the frequency filters see each frame once; time filters and dense layers run on each window.
- `cnn4`: unpadded convolutions and poolings, where windows are a multiple of 16 frames apart.
- `single_fc` and `low_latency_conv` are causal too, but their first layer spans the window: there is nothing before it
  to keep but the frames.
- no other: convolutions with 'same' padding put zeros beside a window's frames where the stream has others, and
  recurrent layers that run both ways, attention and averages take in the whole window.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kws_models.sliding import SlidingWindows
from kws_models.svdf import SVDF

# What these make of a frame depends on no other, when they don't train.
_FRAME_BY_FRAME = (layers.Dropout, layers.Activation, layers.ReLU, layers.BatchNormalization)
_BATCH = 16  # windows; those of SVDF's filter outputs take 1 MB each

Stage = Callable[[tf.Tensor], tf.Tensor]  # the stream's next frames [1, n, ...] → the next outputs [1, m, ...]


class NotCausalError(Exception):
    """The network has no first layers that could run on a stream; the message is the reason."""


class CausalStream:
    """A network's first layers on a stream of frames, the rest on windows of what they make.

    Args:
        network: features [batch, frames, bins] → logits, built for a fixed number of frames.
        hop_frames: from window to window.

    Raises:
        NotCausalError: the network has no such layers, or their strides don't fit the hop.
    """

    def __init__(self, network: keras.Model, hop_frames: int) -> None:
        chain = _chain(network)
        self._frames, self._hop_frames = network.input_shape[1], hop_frames
        self._stages, rest, length, stride = _cut(chain, self._frames)
        if hop_frames % stride:
            raise NotCausalError(f"windows must be a multiple of {stride} frames apart, got {hop_frames}")
        self._windows = SlidingWindows(length, hop_frames // stride)
        self._early: np.ndarray | None = None  # windows of outputs that don't need their window's last frames
        self._seen = self._done = 0
        self._num_labels = network.output_shape[-1]
        self._rest = tf.function(lambda x: _through(rest, x))

    def feed(self, frames: np.ndarray) -> np.ndarray:
        """The stream's next frames [n, bins] → logits [m, labels] of the windows that are complete now."""
        self._seen += len(frames)
        made = tf.convert_to_tensor(frames[None])
        for stage in self._stages:
            made = stage(made)
        windows = self._windows.feed(made.numpy()[0])
        if self._early is not None:
            windows = np.concatenate([self._early, windows])
        complete = max(0, (self._seen - self._frames) // self._hop_frames + 1) - self._done
        self._done += complete
        self._early = windows[complete:].copy()
        parts = [self._rest(windows[start:][: min(_BATCH, complete - start)]) for start in range(0, complete, _BATCH)]
        return np.concatenate([np.zeros((0, self._num_labels), np.float32), *parts])


def _chain(network: keras.Model) -> list[keras.layers.Layer]:
    """The layers in order, from the features on.

    Raises:
        NotCausalError: they are no chain, or clips have lengths of their own.
    """
    if len(network.inputs) > 1:
        raise NotCausalError("clips have lengths of their own")
    first, *chain = network.layers
    for before, layer in pairwise([first, *chain]):
        if len(layer._inbound_nodes) != 1 or layer.input is not before.output:
            raise NotCausalError(f"{layer.name} does not simply follow {before.name}")
    return chain


def _cut(chain: Sequence[keras.layers.Layer], frames: int) -> tuple[list[Stage], list[Stage], int, int]:
    """(stages to run on the stream, what to run on windows, outputs of a window, frames from output to output).

    Raises:
        NotCausalError: no layer with weights can run on the stream.
    """
    stages: list[Stage] = []
    stride, saves = 1, False
    for place, layer in enumerate(chain):
        if isinstance(layer, SVDF) and not layer.return_sequences:
            return [*stages, _project(layer)], [_last_frames(layer), *chain[place + 1 :]], frames, stride
        if isinstance(layer, layers.Reshape) and layer.target_shape[0] in (frames, -1):
            stages.append(_reshape(layer))
        elif isinstance(layer, _FRAME_BY_FRAME):
            stages.append(layer)
        elif (window := _window(layer)) is not None and window[0] < frames:
            stages.append(_Sliding(layer, *window))
            frames, stride = (frames - window[0]) // window[1] + 1, stride * window[1]
            saves = True
        else:
            if saves:
                return stages, list(chain[place:]), frames, stride
            raise NotCausalError(_reason(layer))
    raise NotCausalError("no layer looks at the window as a whole")


def _window(layer: keras.layers.Layer) -> tuple[int, int] | None:
    """(kernel, stride) along time of an unpadded convolution or pooling; None of any other layer."""
    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
        kernel, stride, dilation = layer.kernel_size[0], layer.strides[0], layer.dilation_rate[0]
    elif isinstance(layer, layers.MaxPooling2D | layers.AveragePooling2D):
        kernel, stride, dilation = layer.pool_size[0], layer.strides[0], 1
    else:
        return None
    padded = layer.padding == "same" and (kernel > 1 or stride > 1)
    kernel = (kernel - 1) * dilation + 1
    return None if padded or stride > kernel else (kernel, stride)


class _Sliding:
    """An unpadded convolution or pooling on a stream; its state is the frames that the next output begins with."""

    def __init__(self, layer: keras.layers.Layer, kernel: int, stride: int) -> None:
        self._layer, self._kernel, self._stride = layer, kernel, stride
        self._state: tf.Tensor | None = None

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """See Stage."""
        x = x if self._state is None else tf.concat([self._state, x], axis=1)
        count = max(0, (int(x.shape[1]) - self._kernel) // self._stride + 1)
        self._state = x[:, count * self._stride :]
        if count:
            return self._layer(x[:, : (count - 1) * self._stride + self._kernel], training=False)
        return tf.zeros((1, 0, *self._layer.output.shape[2:]), x.dtype)


def _reshape(layer: keras.layers.Layer) -> Stage:
    return lambda x: tf.reshape(x, (1, x.shape[1], *layer.target_shape[1:]))


def _project(layer: SVDF) -> Stage:
    return lambda x: layer.project(tf.cast(x, layer.compute_dtype))


def _last_frames(layer: SVDF) -> Stage:
    """What comes after the frequency filters; before the first frame of a window are zeros, as in the layer itself."""

    def run(projected: tf.Tensor) -> tf.Tensor:
        missing = max(0, layer.memory_size - projected.shape[1])
        return layer.at_last_frame(tf.pad(projected, [[0, 0], [missing, 0], [0, 0]])[:, -layer.memory_size :])

    return run


def _through(stages: Sequence[Any], x: tf.Tensor) -> tf.Tensor:
    for stage in stages:
        x = stage(x)
    return x


def _reason(layer: keras.layers.Layer) -> str:
    if getattr(layer, "padding", None) == "same":
        return f"{layer.name} puts zeros beside each window's frames ('same' padding)"
    return f"{layer.name} ({type(layer).__name__}) spans the window, and nothing with weights comes before it"
