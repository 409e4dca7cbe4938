"""Networks that run on a stream without computing their first layers again for every window.

A network over windows of F frames is cut in two. Its first layers run once on the stream, as far as their output for a
frame does not depend on the frame's index in the window. Their state is the last frames that they still need. The other
layers run on windows of these outputs. Up to rounding, the logits are those of the whole network on every window.

`CausalStream` finds the cut from the layers. Of the models here:

- `low_latency_svdf`: the frequency filters see each frame once; time filters and dense layers run on each window.
- `cnn4`: unpadded convolutions and poolings, where windows are a multiple of 16 frames apart.
- `single_fc` and `low_latency_conv` are causal too, but their first layer spans the window: there is nothing to keep
  except the frames.
- no others: convolutions with 'same' padding put zeros beside a window's frames, where the stream has other frames;
  bidirectional recurrent layers, attention and averages need the whole window.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kws_models.sliding import SlidingWindows
from kws_models.svdf import SVDF

# In inference, their output for a frame depends on no other frame.
_FRAME_BY_FRAME = (layers.Activation, layers.ReLU, layers.BatchNormalization)
_BATCH = 16  # windows

Stage = Callable[[np.ndarray], np.ndarray]  # the stream's next frames [n, ...] → the next outputs [m, ...]


class NotCausalError(Exception):
    """The network has no first layers that could run on a stream; the message is the reason."""


class CausalStream:
    """A network's first layers on a stream of frames, the others on windows of their outputs.

    The weights are those that the network has when the stream begins.

    Args:
        network: features [batch, frames, bins] → logits, built for a fixed number of frames.
        hop_frames: from window to window.

    Raises:
        NotCausalError: the network has no such layers, or their strides don't fit the hop.
    """

    def __init__(self, network: keras.Model, hop_frames: int) -> None:
        self._frames, self._hop_frames = network.input_shape[1], hop_frames
        cut = _cut(_chain(network), self._frames)
        if hop_frames % cut.stride:
            raise NotCausalError(f"windows must be a multiple of {cut.stride} frames apart, got {hop_frames}")
        self._stages, self._reduce = cut.stages, cut.reduce
        self._windows = SlidingWindows(cut.length, hop_frames // cut.stride)
        self._early: np.ndarray | None = None  # windows of outputs that don't need their window's last frames
        self._seen = self._done = 0
        self._num_labels = network.output_shape[-1]
        self._rest = tf.function(lambda x: _through(cut.rest, x), reduce_retracing=True)

    def feed(self, frames: np.ndarray) -> np.ndarray:
        """The stream's next frames [n, bins] → logits [m, labels] of the windows that are complete now."""
        self._seen += len(frames)
        for stage in self._stages:
            frames = stage(frames)
        windows = self._windows.feed(frames)
        if self._early is not None and len(self._early):
            windows = np.concatenate([self._early, windows])
        complete = max(0, (self._seen - self._frames) // self._hop_frames + 1) - self._done
        self._done += complete
        self._early = windows[complete:].copy()
        reduced = self._reduce(windows[:complete])
        parts = [self._rest(reduced[start : start + _BATCH]).numpy() for start in range(0, complete, _BATCH)]
        return np.concatenate([np.zeros((0, self._num_labels), np.float32), *parts])


class _Cut(NamedTuple):
    """Where a network is cut.

    Attributes:
        stages: run on the stream.
        reduce: runs on windows of their outputs, in NumPy: [m, length, ...] → [m, ...].
        rest: the layers that run on its outputs.
        length: the stages' outputs in a window.
        stride: frames from output to output.
    """

    stages: list[Stage]
    reduce: Stage
    rest: list[Any]
    length: int
    stride: int


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
    return [layer for layer in chain if not isinstance(layer, layers.Dropout)]


def _cut(chain: Sequence[keras.layers.Layer], frames: int) -> _Cut:
    """The longest first part that can run on the stream.

    Raises:
        NotCausalError: it has no layer with weights.
    """
    stages: list[Stage] = []
    stride, saves = 1, False
    for index, layer in enumerate(chain):
        if isinstance(layer, SVDF) and not layer.return_sequences:
            filters = _Filters(layer)
            return _Cut(
                [*stages, filters.frequency], filters.time, [filters.combine, *chain[index + 1 :]], frames, stride
            )
        if isinstance(layer, layers.Reshape) and layer.target_shape[0] in (frames, -1):
            stages.append(_reshape(layer))
        elif isinstance(layer, _FRAME_BY_FRAME):
            stages.append(_alone(layer))
        elif (window := _window(layer)) is not None and window[0] < frames:
            stages.append(_Sliding(layer, *window))
            frames, stride = (frames - window[0]) // window[1] + 1, stride * window[1]
            saves = True
        elif saves:
            return _Cut(stages, lambda windows: windows, list(chain[index:]), frames, stride)
        else:
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
        self._state: np.ndarray | None = None

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """See Stage."""
        frames = frames if self._state is None else np.concatenate([self._state, frames])
        count = max(0, (len(frames) - self._kernel) // self._stride + 1)
        self._state = frames[count * self._stride :]
        if not count:
            return np.zeros((0, *self._layer.output.shape[2:]), np.float32)
        return self._layer(frames[None, : (count - 1) * self._stride + self._kernel]).numpy()[0]


class _Filters:
    """An SVDF layer in NumPy: TensorFlow would copy each window's filter outputs, 1 MB of them, some times over."""

    def __init__(self, layer: SVDF) -> None:
        self._layer = layer
        self._frequency_kernel = np.asarray(layer.frequency_kernel, np.float32)
        self._time_kernel = np.asarray(layer.time_kernel, np.float32)

    def frequency(self, frames: np.ndarray) -> np.ndarray:
        """[n, bins] → [n, filters]."""
        return frames @ self._frequency_kernel

    def time(self, windows: np.ndarray) -> np.ndarray:
        """[m, frames, filters] → [m, filters]; before a window's first frame are zeros, as in the layer itself."""
        length = min(windows.shape[1], len(self._time_kernel))
        return np.einsum("mtf,tf->mf", windows[:, -length:], self._time_kernel[-length:])

    def combine(self, filtered: tf.Tensor) -> tf.Tensor:
        """[m, filters] → [m, units]."""
        return self._layer.combine(tf.cast(filtered, self._layer.compute_dtype))


def _reshape(layer: keras.layers.Layer) -> Stage:
    return lambda frames: frames.reshape(len(frames), *layer.target_shape[1:])


def _alone(layer: keras.layers.Layer) -> Stage:
    return lambda frames: layer(frames[None]).numpy()[0]


def _through(stages: Sequence[Any], x: tf.Tensor) -> tf.Tensor:
    for stage in stages:
        x = stage(x)
    return x


def _reason(layer: keras.layers.Layer) -> str:
    if getattr(layer, "padding", None) == "same":
        return f"{layer.name} puts zeros beside each window's frames ('same' padding)"
    return f"{layer.name} ({type(layer).__name__}) spans the window, and nothing with weights comes before it"
