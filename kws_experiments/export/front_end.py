"""The front end of an exported network: how export.json describes it, and how it is built again from that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kws_experiments.config.compose import instantiate
from kws_experiments.export.scorer import Function

if TYPE_CHECKING:
    from kws_data.features.base import FeatureLayer


def described(features: FeatureLayer, config: dict[str, Any], clip_samples: int | None) -> dict[str, Any]:
    """What an implementation elsewhere needs to know.

    `config`, sizes in samples (`frame_length`, `frame_step`, `fft_size`), `frames` (None where clips keep their
    lengths) and `bins`, the `scale` of what an implementation in integers gives, and, if it normalises, the `mean` and
    `variance` of each bin.
    """
    described = {
        "config": config,
        "frame_length": features.frame_length,
        "frame_step": features.frame_step,
        "fft_size": features.fft_size,
        "frames": None if clip_samples is None else features.num_frames(clip_samples),
        "bins": features.num_bins,
        "scale": features.output_scale,
    }
    if features.normalise:
        described |= {"mean": features.mean.numpy().tolist(), "variance": features.variance.numpy().tolist()}
    return described


def rebuilt(described: dict[str, Any], clip_samples: int | None, streaming: dict[str, Any]) -> Function:
    """Waveforms [batch, clip_samples] → features [batch, frames, bins], by what `described` gave.

    With `streaming`, in calls: see `tflite_stream.in_calls`.
    """
    import tensorflow as tf

    from kws_experiments.export.tflite_stream import in_calls

    features = instantiate({"features": described["config"]}, "features")
    features.build()
    if features.normalise:
        features.mean.assign(described["mean"])
        features.variance.assign(described["variance"])
    graph = tf.function(features, [tf.TensorSpec([None, clip_samples], tf.float32)])
    if streaming:
        return lambda waveforms: in_calls(graph(waveforms).numpy(), streaming)
    return lambda waveforms: graph(waveforms).numpy()
