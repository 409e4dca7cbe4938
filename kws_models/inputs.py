"""What goes into a model: its Keras inputs, and the checks on feature shape and label count that every family shares.

`input_shape` is always `(frames, bins)`. Where frames is None, clips may have any length: such a model takes a
dict of `features` and `num_frames` (see `kws_models.masking`) instead of the plain features.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras


def feature_inputs(input_shape: Sequence[int | None]) -> tuple[object, keras.KerasTensor, keras.KerasTensor | None]:
    """The inputs of a model that takes clips of any length.

    Returns:
        inputs: what `keras.Model` takes: one tensor, or for lengths the dict `{"features", "num_frames"}`.
        features: [batch, frames, bins] float32.
        num_frames: [batch] int32, the frames of each clip that are not padding; None where clips have one length.
    """
    frames, bins = input_shape
    features = keras.Input((frames, bins), name="features")
    if frames is not None:
        return features, features, None
    num_frames = keras.Input((), dtype="int32", name="num_frames")
    return {"features": features, "num_frames": num_frames}, features, num_frames


def feature_image(features: keras.KerasTensor) -> keras.KerasTensor:
    """[batch, frames, bins] → [batch, frames, bins, 1], what 2-D convolutions take."""
    _, frames, bins = features.shape
    return keras.layers.Reshape((-1 if frames is None else frames, bins, 1))(features)


def check_size(
    input_shape: Sequence[int | None], architecture: str, *, min_frames: int = 1, min_bins: int = 1
) -> tuple[int | None, int]:
    """`input_shape` as (frames, bins), if the network has something left to work on after its last layer.

    Raises:
        ValueError: the shape is too small; names the smallest that works.
    """
    frames, bins = input_shape
    if bins is None:
        raise ValueError("input_shape: the number of bins must be known; only frames can be None (clips of any length)")
    if bins < min_bins or (frames is not None and frames < min_frames):
        got = "any length" if frames is None else frames
        needs = f"needs at least {min_frames} frames x {min_bins} bins"
        raise ValueError(f"input_shape: {architecture} {needs}, got {got} x {bins}")
    return frames, bins


def check_fixed_size(
    input_shape: Sequence[int | None], architecture: str, *, min_frames: int = 1, min_bins: int = 1
) -> tuple[int, int]:
    """`check_size` for networks that flatten their feature map, and so work for one clip length only.

    Raises:
        ValueError: the number of frames is open, or the shape is too small.
    """
    frames, bins = check_size(input_shape, architecture, min_frames=min_frames, min_bins=min_bins)
    if frames is None:
        raise ValueError(
            f"input_shape: {architecture} flattens its feature map and needs clips of one length; "
            "set clip_ms (for example clip_ms=1000) or choose a model with global pooling (ds_cnn_s)"
        )
    return frames, bins


def smallest_input(windows: Sequence[tuple[int, int]]) -> int:
    """The shortest axis from which a stack of unpadded windows still produces one output.

    `windows`: (size, stride) of each convolution or pooling along that axis, from the input up. A layer makes n outputs
    out of (n - 1) * stride + size inputs at least, so the length is computed from the last layer to the first.
    """
    length = 1
    for size, stride in reversed(windows):
        length = (length - 1) * stride + size
    return length


def check_parameters(
    *,
    at_least_one: dict[str, Any],
    rates: dict[str, Any] | None = None,
    lists: dict[str, tuple[Any, int]] | None = None,
    numbers: dict[str, tuple[Any, float]] | None = None,
    flags: dict[str, Any] | None = None,
) -> None:
    """Check an architecture's parameters, each by its name.

    Args:
        at_least_one: counts.
        rates: of dropout and the like, in [0, 1).
        lists: lists of counts, each with the fewest there must be.
        numbers: numbers, each with the lowest there may be.
        flags: what is true or false.

    Raises:
        ValueError: one is out of range; the message starts with the parameter's name.
    """
    for name, count in at_least_one.items():
        _require(_is_count(count), name, "a whole number, at least 1", count)
    for name, rate in (rates or {}).items():
        _require(_is_number(rate) and 0 <= rate < 1, name, "a number, at least 0 and below 1", rate)
    for name, (values, fewest) in (lists or {}).items():
        many = f", {fewest} or more of them," if fewest else ""
        fits = _is_list(values) and len(values) >= fewest and all(map(_is_count, values))
        _require(fits, name, f"a list of whole numbers{many} of at least 1", values)
    for name, (value, low) in (numbers or {}).items():
        _require(_is_number(value) and low <= value < math.inf, name, f"a number, at least {low:g}", value)
    for name, value in (flags or {}).items():
        _require(isinstance(value, bool), name, "true or false", value)


def _require(fits: bool, name: str, what: str, value: Any) -> None:
    if not fits:
        shown = list(value) if _is_list(value) else value
        raise ValueError(f"{name}: must be {what}, got {shown!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def pair(name: str, value: Any) -> tuple[int, int]:
    """`value` as (frames, bins), the two sides of a kernel, stride or image.

    Raises:
        ValueError: not two whole numbers of at least 1; the message starts with the parameter's name.
    """
    fits = _is_list(value) and len(value) == 2 and all(map(_is_count, value))
    _require(fits, name, "two numbers of at least 1, frames and bins", value)
    frames, bins = value
    return frames, bins
