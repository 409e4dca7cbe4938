"""SVDF, a layer of rank-constrained filters over the last frames, and the network built on it.

Sources: 'Compressing Deep Neural Networks using a Rank-Constrained Topology', Nakkiran et al., Interspeech 2015;
tensorflow/examples/speech_commands/models.py (create_low_latency_svdf_model).
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from keras.layers import Dense, Dropout

from kws_models.inputs import check_parameters, check_size, feature_inputs


@keras.saving.register_keras_serializable(package="kws")
class SVDF(keras.layers.Layer):
    """Units that each look at the last `memory_size` frames through `rank` pairs of a frequency and a time filter.

    features [batch, frames, bins] → [batch, units] at the last frame, or [batch, frames, units] with return_sequences.
    Frames before the first are zeros. Weights: `frequency_kernel` [bins, units · rank] and `time_kernel`
    [memory_size, units · rank], oldest frame first and a unit's ranks side by side, as in the example; `bias` [units].

    The output at a frame depends on that frame and those before it only: on a stream (`kws_models.streaming`), each
    frame goes through the frequency filters once. Training on last frames alone multiplies the filter
    pairs out into one kernel [memory_size, bins, units] first: `low_latency_svdf`'s step on 100 clips of 98 × 40 takes
    35 ms instead of 93 then (2 cores). Inference never does, so that an exported model keeps its small filters.

    Args:
        units: outputs.
        memory_size: frames that an output depends on.
        rank: filter pairs of each unit, summed.
        activation: a Keras activation, or None.
        return_sequences: an output for every frame, not only for the last.
        frequency_initializer: of frequency_kernel.
        time_initializer: of time_kernel.
        **options: Keras's own, such as name and dtype.

    Raises:
        ValueError: units, memory_size or rank is below 1.
    """

    def __init__(
        self,
        units: int,
        memory_size: int,
        *,
        rank: int = 1,
        activation: Any = None,
        return_sequences: bool = False,
        frequency_initializer: Any = "glorot_uniform",
        time_initializer: Any = "glorot_uniform",
        **options: Any,
    ) -> None:
        check_parameters(at_least_one={"units": units, "memory_size": memory_size, "rank": rank})
        super().__init__(**options)
        self.units, self.memory_size, self.rank = units, memory_size, rank
        self.activation = keras.activations.get(activation)
        self.return_sequences = return_sequences
        self.frequency_initializer = keras.initializers.get(frequency_initializer)
        self.time_initializer = keras.initializers.get(time_initializer)

    def build(self, input_shape: tuple) -> None:
        """Weights for the last axis of the features."""
        filters = self.units * self.rank
        self.frequency_kernel = self.add_weight(
            shape=(input_shape[-1], filters), initializer=self.frequency_initializer, name="frequency_kernel"
        )
        self.time_kernel = self.add_weight(
            shape=(self.memory_size, filters), initializer=self.time_initializer, name="time_kernel"
        )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, features: Any, training: bool | None = None) -> Any:
        """See the class."""
        if self.return_sequences:
            return self._every_frame(features)
        window = self._last_window(features)
        # In float16 the products of two small weights would lose their digits.
        if training and self.compute_dtype != "float16":
            return self.finish(ops.tensordot(window, self._full_kernel(), axes=2))
        return self._at_last_frame(self.project(window))

    def project(self, features: Any) -> Any:
        """[..., bins] → [..., units · rank], each frame through the frequency filters."""
        return ops.matmul(features, ops.cast(self.frequency_kernel, self.compute_dtype))

    def _at_last_frame(self, projected: Any) -> Any:
        """[batch, memory_size, units · rank] → [batch, units], through the time filters."""
        return self.combine(ops.sum(projected * ops.cast(self.time_kernel, self.compute_dtype), axis=1))

    def combine(self, filtered: Any) -> Any:
        """[..., units · rank] from the time filters → [..., units]: each unit's ranks summed, bias and activation."""
        return self.finish(self.sum_ranks(filtered))

    def _every_frame(self, features: Any) -> Any:
        """[batch, frames, bins] → [batch, frames, units]."""
        padded = ops.pad(self.project(features), ((0, 0), (self.memory_size - 1, 0), (0, 0)))
        time_kernel = ops.expand_dims(ops.cast(self.time_kernel, self.compute_dtype), -1)
        return self.finish(self.sum_ranks(ops.depthwise_conv(padded, time_kernel)))

    def _last_window(self, features: Any) -> Any:
        """[batch, frames, bins] → [batch, memory_size, bins], the last frames, with zeros before the first."""
        frames = features.shape[1]
        missing = self.memory_size if frames is None else max(self.memory_size - frames, 0)
        if missing:
            features = ops.pad(features, ((0, 0), (missing, 0), (0, 0)))
        return features[:, -self.memory_size :]

    def _full_kernel(self) -> Any:
        """[memory_size, bins, units]: the filter pairs multiplied out and their ranks summed."""
        time_kernel = ops.cast(self.time_kernel, self.compute_dtype)
        frequency_kernel = ops.cast(self.frequency_kernel, self.compute_dtype)
        pairs = (
            (time_kernel[:, rank :: self.rank], frequency_kernel[:, rank :: self.rank]) for rank in range(self.rank)
        )
        return sum(ops.expand_dims(time, 1) * ops.expand_dims(frequency, 0) for time, frequency in pairs)

    def sum_ranks(self, filtered: Any) -> Any:
        """[..., units · rank] → [..., units]."""
        return sum(filtered[..., rank :: self.rank] for rank in range(self.rank))

    def finish(self, sums: Any) -> Any:
        """Bias and activation."""
        return self.activation(sums + ops.cast(self.bias, self.compute_dtype))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """[batch, units], or [batch, frames, units] with return_sequences."""
        batch, frames, _ = input_shape
        return (batch, frames, self.units) if self.return_sequences else (batch, self.units)

    def multiply_adds(self, input_shape: tuple, output_shape: tuple) -> int:  # noqa: ARG002
        """Of each filter: the bins of every frame, and `memory_size` frames for every output."""
        frames = input_shape[1]
        projected, outputs = (frames, frames) if self.return_sequences else (self.memory_size, 1)
        return self.units * self.rank * (projected * input_shape[-1] + outputs * self.memory_size)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "memory_size": self.memory_size,
            "rank": self.rank,
            "activation": keras.activations.serialize(self.activation),
            "return_sequences": self.return_sequences,
            "frequency_initializer": keras.initializers.serialize(self.frequency_initializer),
            "time_initializer": keras.initializers.serialize(self.time_initializer),
        }


@keras.saving.register_keras_serializable(package="kws")
class LastFrames(keras.layers.Layer):
    """x [batch, frames, bins] and num_frames [batch] int32 → [batch, count, bins], each clip's last frames.

    Its last frames, not its padding; a clip shorter than `count` frames has zeros before it.
    """

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(**options)
        self.count = count

    def call(self, x: Any, num_frames: Any) -> Any:
        """See the class."""
        indices = ops.expand_dims(num_frames - self.count, -1) + ops.arange(self.count)
        indices = ops.expand_dims(indices, -1)  # [batch, count, 1]
        frames = ops.take_along_axis(x, ops.maximum(indices, 0), axis=1)
        return ops.where(indices >= 0, frames, ops.zeros((), x.dtype))

    def compute_output_shape(self, x_shape: tuple, num_frames_shape: tuple) -> tuple:  # noqa: ARG002
        """[batch, count, bins]."""
        return (x_shape[0], self.count, x_shape[2])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "count": self.count}


def low_latency_svdf(
    input_shape: Sequence[int | None],
    num_labels: int,
    *,
    rank: int = 2,
    units: int = 1280,
    memory_size: int | None = None,
    dropout_rate: float = 0.5,
) -> keras.Model:
    """An SVDF layer as long as the clip, then three linear layers (the example has no non-linearity between them).

    [batch, frames, bins] float32 of any size → logits [batch, num_labels] float32. With frames None the input is the
    dict `features` [batch, frames, bins], `num_frames` [batch] int32, the layer looks at each clip's last memory_size
    frames, and a clip's logits do not depend on its padding. 751,372 parameters at 98 × 40 and 12 labels, equal to the
    example's trainable ones; its runtime memory, 2,560 × frames more variables there, is a stream's state here. All
    weights start from the example's truncated normal of standard deviation 0.01, all biases from zero.
    Source: tensorflow/examples/speech_commands/models.py, after Nakkiran et al., Interspeech 2015.

    Args:
        input_shape: (frames or None, bins).
        num_labels: how many logits.
        rank: filter pairs of each unit.
        units: outputs of the SVDF layer.
        memory_size: frames that the logits depend on; None: the whole clip.
        dropout_rate: after the SVDF layer and after each of the two hidden linear layers.

    Raises:
        ValueError: no bins or frames, a parameter out of range, or neither frames nor memory_size given.
    """
    frames, _ = check_size(input_shape, "low_latency_svdf")
    if memory_size is None:
        memory_size = frames
    if memory_size is None:
        raise ValueError(
            "memory_size: must be given where clips have no common length, for example 98 (one second at a stride of "
            "10 ms), or set clip_ms (for example clip_ms=1000)"
        )
    check_parameters(
        at_least_one={"num_labels": num_labels, "rank": rank, "units": units, "memory_size": memory_size},
        rates={"dropout_rate": dropout_rate},
    )

    def initializer() -> keras.initializers.Initializer:
        return keras.initializers.TruncatedNormal(stddev=0.01)

    inputs, x, num_frames = feature_inputs(input_shape)
    if num_frames is not None:
        x = LastFrames(memory_size)(x, num_frames)
    x = SVDF(
        units,
        memory_size,
        rank=rank,
        activation="relu",
        frequency_initializer=initializer(),
        time_initializer=initializer(),
        name="svdf",
    )(x)
    x = Dropout(dropout_rate)(x)
    for _ in range(2):
        x = Dense(256, kernel_initializer=initializer())(x)
        x = Dropout(dropout_rate)(x)
    logits = Dense(num_labels, kernel_initializer=initializer(), dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="low_latency_svdf")
