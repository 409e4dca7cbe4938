"""Sub-spectral normalisation, after 'SubSpectral Normalization for Neural Audio Data Processing', arXiv:2103.13620."""

from typing import Any

import keras
from keras import ops

from kws_models.layers import BatchNormalization
from kws_models.masking import MaskedBatchNormalization


class _OfSubBands(BatchNormalization):
    """The constructor and its arguments."""

    def __init__(self, sub_bands: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.sub_bands = sub_bands

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "sub_bands": self.sub_bands}


@keras.saving.register_keras_serializable(package="kws")
class SubSpectralNormalization(_OfSubBands):
    """Batch normalisation of x [batch, frames, bins, channels] with statistics, scale and offset per band of bins.

    The bins are divided into `sub_bands` equal runs of neighbours. Sub-bands go into the channel axis, so that this
    runs on the same fused op as plain batch normalisation; weights are [sub_bands * channels], band by band.

    Args:
        sub_bands: how many; must divide the bins.
        arguments: those of batch normalisation.
    """

    def build(self, x_shape: tuple) -> None:
        """Weights for each channel of each sub-band.

        Raises:
            ValueError: the sub-bands do not divide the bins.
        """
        super().build(_folded_shape(x_shape, self.sub_bands))
        self.input_spec = keras.InputSpec(ndim=4, axes={-1: x_shape[-1]})

    def call(self, x: Any, training: bool | None = None) -> Any:  # type: ignore[override]
        """See the class."""
        return _unfold(super().call(_fold(x, self.sub_bands), training=training), x, self.sub_bands)


@keras.saving.register_keras_serializable(package="kws")
class MaskedSubSpectralNormalization(_OfSubBands, MaskedBatchNormalization):
    """`SubSpectralNormalization` of x and num_frames ([batch] int32) whose statistics leave padded frames out."""

    def build(self, x_shape: tuple, num_frames_shape: tuple) -> None:
        """Weights for each channel of each sub-band.

        Raises:
            ValueError: the sub-bands do not divide the bins.
        """
        super().build(_folded_shape(x_shape, self.sub_bands), num_frames_shape)
        self.input_spec = keras.InputSpec(ndim=4, axes={-1: x_shape[-1]})

    def call(self, x: Any, num_frames: Any, training: bool | None = None) -> Any:  # type: ignore[override]
        """See the class."""
        return _unfold(super().call(_fold(x, self.sub_bands), num_frames, training=training), x, self.sub_bands)


def sub_spectral_norm(
    x: keras.KerasTensor, num_frames: keras.KerasTensor | None, sub_bands: int, **arguments: Any
) -> keras.KerasTensor:
    """Sub-spectral normalisation, whose training statistics leave padding out (see `kws_models.masking`)."""
    if num_frames is None:
        return SubSpectralNormalization(sub_bands, **arguments)(x)
    return MaskedSubSpectralNormalization(sub_bands, **arguments)(x, num_frames)


def most_sub_bands(bins: int, at_most: int) -> int:
    """The largest number of equal sub-bands that `bins` divide into, up to `at_most`."""
    return max(bands for bands in range(1, min(bins, at_most) + 1) if bins % bands == 0)


def _folded_shape(x_shape: tuple, sub_bands: int) -> tuple:
    batch, frames, bins, channels = x_shape
    if not 1 <= sub_bands <= bins or bins % sub_bands:
        raise ValueError(f"sub_bands: must divide the {bins} bins of the feature map, got {sub_bands}")
    return (batch, frames, bins // sub_bands, sub_bands * channels)


def _fold(x: Any, sub_bands: int) -> Any:
    """[batch, frames, bins, channels] → [batch, frames, bins / sub_bands, sub_bands * channels]."""
    _, _, rows, depth = _folded_shape(x.shape, sub_bands)
    frames = ops.shape(x)[1]
    if 1 < sub_bands < x.shape[2]:  # else the order in memory is right already
        x = ops.transpose(ops.reshape(x, (-1, frames, sub_bands, rows, x.shape[3])), (0, 1, 3, 2, 4))
    return ops.reshape(x, (-1, frames, rows, depth))


def _unfold(folded: Any, x: Any, sub_bands: int) -> Any:
    """What `_fold` folded, in the shape of x again."""
    _, _, bins, channels = x.shape
    frames = ops.shape(x)[1]
    if 1 < sub_bands < bins:
        folded = ops.reshape(folded, (-1, frames, bins // sub_bands, sub_bands, channels))
        folded = ops.transpose(folded, (0, 1, 3, 2, 4))
    return ops.reshape(folded, (-1, frames, bins, channels))
