"""MHAtt-RNN of 'Streaming keyword spotting on mobile devices', arXiv:2005.06720."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
from keras import ops
from keras.layers import GRU, Attention, Bidirectional, Conv2D, Dense, Dropout, Flatten, Reshape

from kws_models.inputs import check_parameters, check_size, feature_image, feature_inputs
from kws_models.masking import batch_norm, frame_mask, same_conv


def mhatt_rnn(
    input_shape: Sequence[int | None],
    num_labels: int,
    *,
    conv_filters: Sequence[int] = (10, 1),
    conv_kernel_frames: int = 5,
    rnn_layers: int = 2,
    rnn_units: int = 128,
    heads: int = 4,
    dense_units: Sequence[int] = (64, 32),
    dropout_rate: float = 0.2,
    unroll: bool = False,
) -> keras.Model:
    """Convolutions over the frames, bidirectional GRUs, and attention from the middle frame to all frames.

    [batch, frames, bins] float32 of any size → logits [batch, num_labels] float32. With frames None the input is the
    dict `features` [batch, frames, bins], `num_frames` [batch] int32, and a clip's logits do not depend on its padding.

    The network of the authors' code (google-research, kws_streaming/models/att_mh_rnn.py) with the settings of the
    paper's experiments. Parameters at 12 labels, running statistics counted: 743,047 on the 20 MFCC of those
    experiments (49 × 20; the paper's 743 k), 758,407 on 40 bins. Accuracy there: 97.2 % of 12 classes of v0.01, 98.0 %
    of v0.02. One difference: that code unrolls its GRUs; here they are a loop, of the same results, unless asked.

    Args:
        input_shape: (frames or None, bins).
        num_labels: how many logits.
        conv_filters: channels of each convolution.
        conv_kernel_frames: how many frames, of one bin each, the convolutions see.
        rnn_layers: how many bidirectional GRUs.
        rnn_units: of each direction.
        heads: of the attention; each has a query of its own, to the same keys and values.
        dense_units: of the layers after the attention, all with ReLU but the last of them.
        dropout_rate: after the attention.
        unroll: write the GRUs out frame by frame, for TensorFlow Lite, which converts no loop of theirs. The first
            step then takes minutes, the others no less than with a loop.

    Raises:
        ValueError: no bins or frames, `unroll` with frames None, or a parameter is out of range.
    """
    frames, _ = check_size(input_shape, "mhatt_rnn")
    check_parameters(
        at_least_one={
            "num_labels": num_labels,
            "conv_kernel_frames": conv_kernel_frames,
            "rnn_layers": rnn_layers,
            "rnn_units": rnn_units,
            "heads": heads,
        },
        rates={"dropout_rate": dropout_rate},
        lists={"conv_filters": (conv_filters, 0), "dense_units": (dense_units, 0)},
        flags={"unroll": unroll},
    )
    if unroll and frames is None:
        raise ValueError("unroll: needs clips of one length; set clip_ms (for example clip_ms=1000) or unroll: false")

    inputs, features, num_frames = feature_inputs(input_shape)
    mask = None if num_frames is None else FrameMask()(features, num_frames)
    x = feature_image(features)
    for filters in conv_filters:
        convolution = partial(Conv2D, filters, activation="relu")
        x, _ = same_conv(convolution, x, num_frames, kernel_size=(conv_kernel_frames, 1))
        x = batch_norm(x, num_frames)
    x = Reshape((-1 if frames is None else frames, x.shape[2] * x.shape[3]))(x)
    for _ in range(rnn_layers):
        x = Bidirectional(GRU(rnn_units, return_sequences=True, unroll=unroll))(x, mask=mask)

    middle = x[:, frames // 2] if frames is not None else MiddleFrame()(x, num_frames)
    queries = ops.stack([Dense(x.shape[-1])(middle) for _ in range(heads)], axis=1)
    # [batch, heads, 2 * rnn_units]: the mean of the frames, weighted by the softmax of their products with the query
    x = Attention()([queries, x], mask=None if mask is None else [None, mask])
    x = Dropout(dropout_rate)(Flatten()(x))
    for number, units in enumerate(dense_units, start=1):
        x = Dense(units, activation="relu" if number < len(dense_units) else None)(x)
    logits = Dense(num_labels, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="mhatt_rnn")


@keras.saving.register_keras_serializable(package="kws")
class FrameMask(keras.layers.Layer):
    """x [batch, frames, bins] and num_frames [batch] int32 → [batch, frames] bool, True where a frame is no padding."""

    def call(self, x: Any, num_frames: Any) -> Any:
        """See the class."""
        return frame_mask(x[..., 0], num_frames)

    def compute_output_spec(self, x: Any, num_frames: Any) -> keras.KerasTensor:  # noqa: ARG002
        """[batch, frames] bool."""
        return keras.KerasTensor(x.shape[:2], dtype="bool")


@keras.saving.register_keras_serializable(package="kws")
class MiddleFrame(keras.layers.Layer):
    """x [batch, frames, channels] and num_frames [batch] int32 → [batch, channels], each clip's middle frame."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.supports_masking = True  # takes the GRUs' mask, and passes none on

    def call(self, x: Any, num_frames: Any) -> Any:
        """See the class."""
        is_middle = ops.arange(ops.shape(x)[1]) == ops.expand_dims(num_frames // 2, -1)
        # A sum of one frame, not a gather: its gradient is the same bit for bit on every device.
        return ops.sum(ops.where(ops.expand_dims(is_middle, -1), x, ops.zeros((), x.dtype)), axis=1)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """None: no frames are left."""

    def compute_output_shape(self, x_shape: tuple, num_frames_shape: tuple) -> tuple:  # noqa: ARG002
        """[batch, channels]."""
        return (x_shape[0], x_shape[2])
