"""The stages of one augmentation, in order: drawn on the host, applied in the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kws_data.augment.feature_stage import FeatureStage
from kws_data.augment.mixup import Mixup
from kws_data.augment.stage import SAMPLES, ClipBatch, Shapes, StageContext, Tensor, WaveformStage
from kws_data.checks import check_choice
from kws_data.draws import Draws

CLIPPING = ("clip", "normalise", "leave")


@dataclass(frozen=True)
class Augmentation:
    """What `conf/augment/` chooses.

    Attributes:
        waveform: stages by name, in order. The draws of a stage depend on its name, so that one kind may be used twice,
            and adding a stage doesn't change the draws of the others. Stages without an `apply`, which move samples on
            the host, run before all others.
        features: stages on the features by name, in order.
        clipping: what happens to samples beyond [-1, 1] after the last waveform stage: 'clip' cuts them off,
            'normalise' divides the clip by its peak, 'leave' keeps them.
    """

    waveform: Mapping[str, WaveformStage] = field(default_factory=dict)
    features: Mapping[str, FeatureStage] = field(default_factory=dict)
    clipping: Literal["clip", "normalise", "leave"] = "clip"

    def __post_init__(self) -> None:
        check_choice("clipping", self.clipping, CLIPPING)
        if twice := set(self.waveform) & set(self.features):
            raise ValueError(f"waveform and features must not both have a stage named '{twice.pop()}'")
        if sum(isinstance(stage, Mixup) for stage in self.waveform.values()) > 1:
            raise ValueError("waveform must not have two mixup stages: a clip has at most two labels")

    def parameter_shapes(self) -> Shapes:
        """'stage/parameter' → (dtype, shape after the batch axis) of what `prepare` returns."""
        stages: dict[str, WaveformStage | FeatureStage] = {**self.waveform, **self.features}
        return {
            f"{name}/{parameter}": shape
            for name, stage in stages.items()
            for parameter, shape in stage.parameter_shapes().items()
        }

    def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
        """Draw the parameters of every stage; stages that move samples change `batch`."""
        drawn: dict[str, np.ndarray] = {}
        # Stages on the host come first, as they move samples before the graph runs: mixup, whose parameters are
        # samples, needs the clips' final lengths.
        for name, stage in sorted(self.waveform.items(), key=lambda item: _in_graph(item[1])):
            values = stage.prepare(batch, draws.of(name), context)
            drawn |= {f"{name}/{parameter}": value for parameter, value in values.items()}
        for name, feature_stage in self.features.items():
            values = feature_stage.prepare(draws.of(name))
            drawn |= {f"{name}/{parameter}": value for parameter, value in values.items()}
        for name, (_, shape) in self.parameter_shapes().items():
            missing = batch.pcm.shape[1] - drawn[name].shape[1] if shape[:1] == (SAMPLES,) else 0
            if missing:  # drawn before a stage widened the batch, or when all clips became shorter
                drawn[name] = np.pad(drawn[name], [(0, 0), (0, missing)])
        return drawn

    def apply_to_waveform(self, waveform: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """[batch, samples] float32 → the same, in [-1, 1] unless `clipping` is 'leave'."""
        import tensorflow as tf

        for name, stage in self.waveform.items():
            waveform = _graph_of(stage)(waveform, _parameters(name, drawn))
        if self.waveform and self.clipping == "clip":
            waveform = tf.clip_by_value(waveform, -1.0, 1.0)
        if self.waveform and self.clipping == "normalise":
            waveform /= tf.maximum(tf.reduce_max(tf.abs(waveform), axis=1, keepdims=True), 1.0)
        return waveform

    def apply_to_features(self, features: Tensor, num_frames: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """[batch, frames, bins] float32 → the same shape."""
        for name, stage in self.features.items():
            features = _graph_of(stage)(features, num_frames, _parameters(name, drawn))
        return features

    def close(self) -> None:
        """End the worker processes that stages have started."""
        for stage in self.waveform.values():
            stage.close()


def _in_graph(stage: WaveformStage) -> bool:
    return type(stage).apply is not WaveformStage.apply


def _graph_of(stage: WaveformStage | FeatureStage) -> Callable[..., Tensor]:
    """`apply`; in a stage of the user's own, AutoGraph turns `if` on a tensor into a graph, as elsewhere."""
    import tensorflow as tf

    return stage.apply if type(stage).__module__.startswith("kws_data.") else tf.function(stage.apply)


def _parameters(stage: str, drawn: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{stage}/"
    return {name.removeprefix(prefix): value for name, value in drawn.items() if name.startswith(prefix)}
