"""What goes into a model: its Keras inputs, and the checks on feature shape and label count that every family shares.

`input_shape` is always `(frames, bins)`. Where frames is None clips have lengths of their own: such a model takes a
dict of `features` and `num_frames` (see `kws_models.masking`) instead of the plain features.
"""

from collections.abc import Sequence

import keras


def feature_inputs(input_shape: Sequence[int | None]) -> tuple[object, keras.KerasTensor, keras.KerasTensor | None]:
    """The inputs of a model that can honour lengths.

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
    out of (n - 1) * stride + size inputs at least, so the answer follows from the top down.
    """
    length = 1
    for size, stride in reversed(windows):
        length = (length - 1) * stride + size
    return length


def check_parameters(*, at_least_one: dict[str, int], rates: dict[str, float] | None = None) -> None:
    """Check counts and dropout rates of an architecture.

    Raises:
        ValueError: a count below 1 or no whole number, or a rate outside [0, 1); the message starts with the
            parameter's name.
    """
    for name, count in at_least_one.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name}: must be a whole number, at least 1, got {count!r}")
    for name, rate in (rates or {}).items():
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise ValueError(f"{name}: must be a number, at least 0 and below 1, got {rate!r}")


def pair(name: str, value: Sequence[int]) -> tuple[int, int]:
    """`value` as (frames, bins), the two sides of a kernel, stride or image.

    Raises:
        ValueError: not two whole numbers of at least 1; the message starts with the parameter's name.
    """
    sides = tuple(value)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(f"{name}: must be two numbers of at least 1, frames and bins, got {list(sides)}")
    return sides
