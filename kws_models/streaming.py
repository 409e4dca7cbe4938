"""A network's streaming form: a stream's next frames and the states before them → logits and the states after them.

The weights are the network's own. The form comes from a walk over its graph of layers, each of which has a context
along the frames:

- a frame by itself: activations, normalisations, dense layers, most of what works on bins and channels;
- so many frames before it: convolutions and poolings. Their state is these frames. With a stride they give every
  stride-th frame;
- the window: averages over all frames, flattening, SVDF, recurrence, attention, and convolutions with 'same' padding,
  which put zeros behind a window's frames, where the stream has other ones. Their state is the window's frames as the
  layers before give them; from here on, the network runs once a hop.

So every network has a streaming form. Where windows begin with the first layer, all of the network runs once a hop,
on windows of frames: `StreamingForm.streams` is false. What the logits are equal to, up to rounding:

- without zeros before the frames (`low_latency_svdf`, `cnn4`, networks that don't stream): each window's own;
- with zeros before the frames alone (causal variants, `mixconv`): those of all the stream so far, whose average is over
  the frames of the last window. In the first window, these are the window's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kws_models.folding import Once, calls_of, folded, is_graph
from kws_models.masking import MaskedGlobalAveragePooling2D, ZeroPaddedFrames
from kws_models.svdf import SVDF

_FRAME_BY_FRAME = (
    layers.Activation, layers.Add, layers.Dense, layers.Dropout, layers.Multiply, layers.ReLU, layers.SpatialDropout1D,
    layers.SpatialDropout2D, ZeroPaddedFrames,
)  # fmt: skip
_ELEMENTWISE = {"Add", "Multiply", "Relu", "Sigmoid", "Silu", "Subtract", "Tanh"}  # operations, such as x + y
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_POOLINGS = (layers.AveragePooling1D, layers.AveragePooling2D, layers.MaxPooling1D, layers.MaxPooling2D)
_PADDINGS = (layers.ZeroPadding1D, layers.ZeroPadding2D)
_CROPPINGS = (layers.Cropping1D, layers.Cropping2D)
_MOST_STEPS = 64  # at once, on windows of frames: memory stays bounded
_MOST_FRAMES = 2048  # at once, where the network streams
_FEW_STEPS = 8  # that cost less one by one than a call of TensorFlow

# A step's frames [1, step_frames, bins] and the states before → logits [1, labels] and the states after
Step = Callable[[np.ndarray, Sequence[np.ndarray]], tuple[np.ndarray, Sequence[np.ndarray]]]


class StreamingForm:
    """See the module.

    Args:
        network: features [batch, frames, bins] → logits, or with a dict of `features` and `num_frames` as its input.
        num_frames: of a window.
        step_frames: logits come after each so many frames. Where a causal network leaves frames of the stream out, and
            that is no multiple of the frames that it keeps one of, these. None: as few as the network's strides allow.
        sums: whether SVDF keeps sums instead of frames, where they are fewer: cheaper, but not for int8, where each
            step would round them.

    Attributes:
        network, num_frames, step_frames, sums: see above.
        states: before the stream's first frame, [1, …] each.
        stride: frames from one output of the layers before the windows to the next.
        first_frames: after so many frames, the logits of the first window come.
        streams: whether layers with weights run before the windows.
        causal: whether logits depend on frames before their window.
        reason: where windows begin, and why.
    """

    def __init__(self, network: keras.Model, num_frames: int, step_frames: int | None, *, sums: bool = False) -> None:
        self.sums = sums
        self.network, self.num_frames, self.step_frames = network, num_frames, step_frames or 1
        self.fits_strides = step_frames is None
        self.bins = max(network.inputs, key=lambda tensor: len(tensor.shape)).shape[-1]
        self.whole = False
        if is_graph(network):
            self.call_of = calls_of(network, Once())
        while True:
            walk = _Walk(self, None)
            try:
                walk(tf.zeros((1, self.step_frames, self.bins)))
                break
            except _StrideError as error:
                self.step_frames = error.stride
            except _ShapeError:
                self.step_frames, self.whole = step_frames or 1, True
        self.states = tuple(np.zeros(state.shape, state.dtype.as_numpy_dtype) for state in walk.after)
        assert walk.first_frames is not None  # of the walk's windows
        self.stride, self.first_frames, self.reason = walk.stride, walk.first_frames, walk.reason
        self.streams, self.causal = walk.streams, walk.causal

    def step(self, frames: tf.Tensor, states: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """[1, n, bins], n a multiple of `step_frames`, and the states before → [steps, labels], the states after."""
        walk = _Walk(self, states)
        return walk(frames), walk.after


class NetworkStream:
    """A network on windows that slide over a stream of frames; of it, as much as can be runs once a frame.

    Args:
        network: see StreamingForm; its weights are to stay as they are.
        num_frames: of a window.
        hop_frames: from window to window.
        single_step: makes a cheap way to run one step, for frames that come a few at a time; it is called with the
            first of these, where the network streams. None from it, or in its place: there is none.

    Attributes:
        form: see StreamingForm.
    """

    def __init__(
        self,
        network: keras.Model,
        num_frames: int,
        hop_frames: int,
        single_step: Callable[[StreamingForm], Step | None] | None = None,
    ) -> None:
        form = StreamingForm(network, num_frames, hop_frames, sums=True)
        lead = -form.first_frames % form.step_frames  # before the stream, so that the first window ends with a step
        if lead and form.causal:
            form, lead = StreamingForm(network, num_frames, math.gcd(form.step_frames, form.first_frames), sums=True), 0
        self.form, self._num_frames, self._hop_frames = form, num_frames, hop_frames
        # A window has the logits of the last step that it holds
        self._offset = 0 if hop_frames % form.step_frames else form.first_frames + lead - num_frames
        steps = max(1, _MOST_FRAMES // form.step_frames) if form.streams else _MOST_STEPS
        self._most_frames = form.step_frames * steps
        frames = tf.TensorSpec((1, None, form.bins), tf.float32)
        states = [tf.TensorSpec(state.shape, state.dtype) for state in form.states]
        self._steps = tf.function(form.step).get_concrete_function(frames, states)
        self._make_step = single_step if form.streams else None
        self._step: Step | None = None
        self._states: Any = form.states
        self._frames = np.zeros((lead, form.bins), np.float32)  # still to go through a step
        self._logits = np.zeros((0, network.output_shape[-1]), np.float32)  # of steps, from number `_first` on
        self._seen = self._done = self._first = 0

    def feed(self, frames: np.ndarray) -> np.ndarray:
        """The stream's next frames [n, bins] → logits [m, labels] of the windows that are complete now."""
        self._seen += len(frames)
        frames, size = np.concatenate([self._frames, frames]).astype(np.float32, copy=False), self.form.step_frames
        whole = len(frames) // size * size
        found = [self._logits]
        for start in range(0, whole, self._most_frames):
            found += self._run(frames[None, start : min(start + self._most_frames, whole)])
        self._frames, self._logits = frames[whole:], np.concatenate(found)

        complete = max(0, (self._seen - self._num_frames) // self._hop_frames + 1)
        ends = self._num_frames + self._hop_frames * np.arange(self._done, complete)
        steps = (ends + self._offset) // size - 1 - self._first
        steps = steps[steps < len(self._logits)]
        logits = self._logits[steps]
        self._done += len(steps)
        if len(steps):  # the next window may have the same
            self._first, self._logits = self._first + int(steps[-1]), self._logits[steps[-1] :]
        return logits

    def _run(self, frames: np.ndarray) -> list[np.ndarray]:
        """The logits of whole steps, [1, n, bins] float32."""
        size = self.form.step_frames
        few = frames.shape[1] <= _FEW_STEPS * size
        if few and self._make_step is not None:
            self._step, self._make_step = self._make_step(self.form), None
        if not few or self._step is None:
            logits, self._states = self._steps(tf.constant(frames), [tf.constant(state) for state in self._states])
            return [logits.numpy()]
        found = []
        self._states = [np.asarray(state) for state in self._states]
        for start in range(0, frames.shape[1], size):
            logits, self._states = self._step(frames[:, start : start + size], self._states)
            found.append(logits)
        return found


class _StrideError(Exception):
    """Steps must be multiples of a stride."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride


class _ShapeError(Exception):
    """The graph's paths don't fit together on a stream."""


@dataclass(frozen=True, eq=False)
class _Stream:
    """What a layer gives on a stream.

    Attributes:
        x: [1, n, …], those of this step.
        length: how many a window has.
        stride: frames from one to the next.
        late: after a multiple of `stride` frames, how many there are fewer than that multiple; below 0 behind zeros
            that are still to be seen by a convolution.
    """

    x: tf.Tensor
    length: int
    stride: int = 1
    late: int = 0

    @property
    def places(self) -> tuple[int, int, int]:
        """All but the values."""
        return self.length, self.stride, self.late

    def of(self, x: tf.Tensor) -> _Stream:
        """Other values in the same places."""
        return _Stream(x, *self.places)


@dataclass(frozen=True, eq=False)
class _Lengths:
    """How many of a window's frames are not padding: all of them. [1] int32."""

    x: tf.Tensor


class _Walk:
    """One run through a network's graph, with states or, for None, with those of the stream's start."""

    def __init__(self, form: StreamingForm, states: Sequence[tf.Tensor] | None) -> None:
        self._form, self._before = form, states
        self._windows: dict[_Stream, tf.Tensor] = {}
        self.after: list[tf.Tensor] = []
        self.stride = 1
        self.first_frames: int | None = None
        self.streams = self.causal = False
        self.reason = ""

    def __call__(self, frames: tf.Tensor) -> tf.Tensor:
        """[1, n, bins] → logits."""
        network, num_frames = self._form.network, self._form.num_frames
        stream = _Stream(frames, num_frames)
        if not is_graph(network):
            return folded(network)(self._window(stream))
        inputs = [stream if len(t.shape) > 1 else _Lengths(tf.constant([num_frames])) for t in network.inputs]
        return keras.tree.flatten(network._run_through_graph(inputs, lambda layer: partial(self._run, layer)))[0]

    def _run(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """A layer of the graph: on the stream if it can, else on windows."""
        given = keras.tree.flatten((args, kwargs))
        streams = [value for value in given if isinstance(value, _Stream)]
        tensors = [value for value in given if tf.is_tensor(value)]
        if self._before is None and streams:
            counts = [int(value.x[0]) for value in given if isinstance(value, _Lengths)]
            if any(count != streams[0].length for count in counts):
                raise _ShapeError
        if streams and not tensors and not self._form.whole:
            found = self._on_stream(layer, streams, args, kwargs)
            if found is not None:
                self.streams |= bool(getattr(layer, "weights", None))
                return found
        if not streams and not tensors:  # the count of frames alone
            return _Lengths(self._call(layer, args, kwargs, lambda value: value.x))
        if streams and not self.reason:
            self.reason = _reason(layer)
        windows = [*tensors, *map(self._window, streams)]
        batch = tf.shape(windows[0])[0]
        return self._call(
            layer, args, kwargs,
            lambda value: self._window(value) if isinstance(value, _Stream) else tf.repeat(value.x, batch),
        )  # fmt: skip

    def _call(self, layer: Any, args: Any, kwargs: Any, plain: Callable[[Any], tf.Tensor]) -> Any:
        """The layer itself, on what `plain` makes of streams and counts."""
        args, kwargs = keras.tree.map_structure(
            lambda value: plain(value) if isinstance(value, _Stream | _Lengths) else value, (args, kwargs)
        )
        return self._form.call_of(layer)(*args, **kwargs)

    def _on_stream(self, layer: Any, streams: list[_Stream], args: Any, kwargs: Any) -> Any:
        """What a layer gives: a stream; of a layer that has more to do with it than with windows, a value for each of
        these; or None, where it needs windows."""  # fmt: skip
        stream = streams[0]
        if getattr(layer, "data_format", None) == "channels_first":
            return None
        if isinstance(layer, _CONVOLUTIONS + _POOLINGS):
            return self._with_context(layer, stream)
        if stream.late < 0:  # the zeros would go through a layer that may not leave them zeros
            raise _ShapeError
        if isinstance(layer, _PADDINGS):
            return self._padded(layer, stream)
        if isinstance(layer, _CROPPINGS):
            return _cropped(layer, stream)
        if isinstance(layer, SVDF) and not layer.return_sequences:
            return self._svdf(layer, stream)
        if isinstance(layer, layers.GlobalAveragePooling2D | MaskedGlobalAveragePooling2D):
            # Over the bins first, so that the state has none
            joined = self._joined(stream.of(tf.reduce_mean(stream.x, 2)), stream.length)
            if joined.shape[1] == stream.length:
                return tf.reduce_mean(joined, 1)
            return tf.nn.avg_pool1d(joined, stream.length, self._hop(stream), "VALID")[0]
        if isinstance(layer, layers.Reshape):
            target = layer.target_shape
            if target[0] not in (-1, stream.length) or math.prod(target[1:]) != math.prod(stream.x.shape[2:]):
                return None
            return stream.of(tf.reshape(stream.x, (1, -1, *target[1:])))
        if not _is_frame_by_frame(layer, stream, args):
            return None
        if any(other.places != stream.places for other in streams):
            raise _ShapeError
        count = tf.shape(stream.x)[1:2]
        return stream.of(self._call(layer, args, kwargs, lambda v: v.x if isinstance(v, _Stream) else count))

    def _with_context(self, layer: Any, stream: _Stream) -> _Stream | None:
        """An unpadded convolution or pooling; its state is the frames that the next output begins with."""
        kernel, stride = (layer.pool_size if isinstance(layer, _POOLINGS) else layer.kernel_size)[0], layer.strides[0]
        padded = layer.padding != "valid" and (kernel > 1 or stride > 1)
        kernel = (kernel - 1) * getattr(layer, "dilation_rate", (1,))[0] + 1
        if padded and stream.late < 0:
            raise _ShapeError
        if padded or 1 < kernel >= stream.length:
            return None
        after, frames = -(-(stream.late + kernel) // stride) - 1, stream.stride * stride
        if stream.late < 0:
            self.causal = True
            if after:
                raise _ShapeError
        if self._form.step_frames % frames:
            if self.causal or self._form.fits_strides:
                raise _StrideError(frames)
            return None
        x = self._call(layer, (self._keep(stream.x, after * stride - stream.late),), {}, lambda v: v)
        return _Stream(x, (stream.length - kernel) // stride + 1, frames, after)

    def _padded(self, layer: Any, stream: _Stream) -> _Stream | None:
        """Zeros before the stream's first frame: those of the next layer's state."""
        (before, after), *bins = _sides(layer.padding)
        # Where clips have lengths of their own, what is made of zeros behind them is not counted
        if after and len(self._form.network.inputs) == 1:
            return None
        if before and stream.late:
            raise _ShapeError
        x = tf.pad(stream.x, [(0, 0), (0, 0), *bins, (0, 0)])
        return _Stream(x, stream.length + before, stream.stride, stream.late - before)

    def _hop(self, stream: _Stream) -> int:
        """From window to window."""
        return self._form.step_frames // stream.stride

    def _window(self, stream: _Stream) -> tf.Tensor:
        """The windows that end in this step: [m, length, …]."""
        if stream not in self._windows:
            joined = self._joined(stream, stream.length)
            if joined.shape[1] != stream.length:
                joined = tf.signal.frame(joined[0], stream.length, self._hop(stream), axis=0)
            self._windows[stream] = joined
        return self._windows[stream]

    def _joined(self, stream: _Stream, length: int) -> tf.Tensor:
        """This step's values, and before them so many that its first window has `length`."""
        self._note_windows(stream)
        return self._keep(stream.x, length - self._hop(stream))

    def _note_windows(self, stream: _Stream) -> None:
        """Check and record where the windows of this stream begin."""
        first = (stream.late + stream.length) * stream.stride
        if stream.late < 0 or self.first_frames not in (None, first):
            raise _ShapeError
        self.first_frames, self.stride = first, max(stream.stride, self.stride)

    def _svdf(self, layer: SVDF, stream: _Stream) -> tf.Tensor:
        """An SVDF layer on the windows that end in this step: [m, units].

        Windows of what the frequency filters give would be 1 MB each. What is kept from step to step is, for each
        window that is still to end, the sum so far: for hops of several frames, that is less than the frames.
        """
        kernel = tf.convert_to_tensor(layer.time_kernel)
        hop, length = self._hop(stream), min(layer.memory_size, stream.length)
        kernel, open_windows = kernel[-length:], -(-length // hop) - 1
        if hop == 1 or not open_windows or not self._form.sums:
            joined = self._joined(stream.of(layer.project(stream.x)), length)
            return layer.combine(_filtered(joined, kernel, hop))
        self._note_windows(stream)
        kernel = tf.pad(kernel, [((open_windows + 1) * hop - length, 0), (0, 0)])  # whole hops
        if stream.x.shape[1] == hop:
            # The first filters of all units, then the second ones: one sum is over frames and ranks then
            order = np.arange(layer.units * layer.rank).reshape(layer.units, layer.rank).T.ravel()
            projected = tf.matmul(stream.x, tf.gather(tf.convert_to_tensor(layer.frequency_kernel), order, axis=1))
            parts = tf.reshape(tf.gather(kernel, order, axis=1), (1, open_windows + 1, hop * layer.rank, layer.units))
            values = tf.reshape(projected, (1, 1, hop * layer.rank, layer.units))
            # frame by frame, so that products stay in the CPU's caches
            products = zip(tf.split(tf.reverse(parts, [1]), hop, 2), tf.split(values, hop, 2), strict=True)
            added = tf.reduce_sum(sum(part * value for part, value in products), 2)
        else:
            around = (open_windows * hop, open_windows * hop)
            padded = tf.pad(layer.project(stream.x), [(0, 0), around, (0, 0)])
            added = layer.sum_ranks(_filtered(padded, kernel, hop))[None]
        before = self._state((1, open_windows, layer.units), added.dtype)
        ended = tf.shape(added)[1] - open_windows
        sums = tf.pad(before, [(0, 0), (0, ended), (0, 0)]) + added
        self.after.append(sums[:, -open_windows:])
        return layer.finish(sums[0, :-open_windows])

    def _keep(self, x: tf.Tensor, count: int) -> tf.Tensor:
        """The last `count` values before this step, and this step's; below 0, without so many of the latter."""
        if count <= 0:
            # Not x[:, -count:], from where on TensorFlow Lite's converter stays in float
            return tf.slice(x, [0, -count, *[0] * (len(x.shape) - 2)], [-1] * len(x.shape)) if count else x
        joined = tf.concat([self._state((1, count, *x.shape[2:]), x.dtype), x], 1)
        self.after.append(joined[:, -count:])
        return joined

    def _state(self, shape: Sequence[int], dtype: tf.DType) -> tf.Tensor:
        """The next one of the states before this step."""
        return tf.zeros(shape, dtype) if self._before is None else self._before[len(self.after)]


def _filtered(x: tf.Tensor, kernel: tf.Tensor, hop: int) -> tf.Tensor:
    """[1, n, channels], each channel through its kernel [length, channels] every `hop` frames → [m, channels]."""
    # In two dimensions, frames first: along the other one, TensorFlow 2.16 kills the process with so many
    return tf.nn.depthwise_conv2d(x[:, :, None], kernel[:, None, :, None], [1, hop, hop, 1], "VALID")[0, :, 0]


def _cropped(layer: Any, stream: _Stream) -> _Stream | None:
    """Without a stream's first frames."""
    (before, after), *bins = _sides(layer.cropping)
    if after:
        return None
    x = stream.x
    if bins and any(bins[0]):
        x = x[:, :, bins[0][0] : x.shape[2] - bins[0][1]]
    return _Stream(x, stream.length - before, stream.stride, stream.late + before)


def _sides(amounts: Any) -> list[tuple[int, int]]:
    """Of a padding or cropping: (before, after) of each axis."""
    return [tuple(pair) for pair in (amounts if isinstance(amounts[0], Sequence) else [amounts])]


def _is_frame_by_frame(layer: Any, stream: _Stream, args: Any) -> bool:
    """Whether the output for a frame depends on that frame alone, in inference."""
    kind, rank = type(layer).__name__, len(stream.x.shape)
    if isinstance(layer, layers.BatchNormalization):
        return layer.axis in (-1, rank - 1)
    if isinstance(layer, layers.Concatenate):
        return layer.axis % rank > 1
    if kind == "GetItem":
        key = args[1]  # a list in networks that were loaded
        return isinstance(key, tuple | list) and key[0] is Ellipsis and len(key) - 1 <= rank - 2
    if kind in ("Mean", "Max"):
        axes = layer.axis if isinstance(layer.axis, Sequence) else [layer.axis]
        return all(axis is not None and axis % rank > 1 for axis in axes)
    return isinstance(layer, _FRAME_BY_FRAME) or kind in _ELEMENTWISE


def _reason(layer: Any) -> str:
    if getattr(layer, "padding", None) == "same":
        return f"{layer.name} puts zeros behind each window's frames ('same' padding)"
    return f"{layer.name} ({type(layer).__name__}) needs the window's frames"
