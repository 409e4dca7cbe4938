"""From a batch of PCM to a model's inputs, in the graph: on the host's processors or inside the training step."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from kws_data.audio import INT16_SCALE
from kws_data.augment.augmentation import Augmentation
from kws_data.features.base import FeatureLayer


class FrontEnd:
    """int16 → float → waveform augmentation → features → feature augmentation.

    Args:
        features: the feature layer; None for the waveform.
        augmentation: its stages.
        variable_length: whether clips keep their lengths; the model then gets them beside the features.
    """

    def __init__(
        self, features: FeatureLayer | None, augmentation: Augmentation, *, variable_length: bool = False
    ) -> None:
        self.features = features
        self.augmentation = augmentation
        self.variable_length = variable_length

    def __call__(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A batch as `pipeline.host_batches` yields it → the same without PCM and draws, with `inputs`.

        `inputs` is [batch, frames, bins] or [batch, samples] float32; where clips keep their lengths, a dict of
        `features` and `num_frames`.
        """
        waveform = tf.cast(batch["pcm"], tf.float32) * (1.0 / INT16_SCALE)
        waveform = self.augmentation.apply_to_waveform(waveform, batch)
        kept = {name: value for name, value in batch.items() if name != "pcm" and "/" not in name}
        if self.features is None:
            return {**kept, "inputs": waveform}
        num_frames = tf.cast(self.features.num_frames(batch["lengths"]), tf.int32)
        features = self.augmentation.apply_to_features(self.features(waveform), num_frames, batch)
        if self.variable_length:
            return {**kept, "inputs": {"features": features, "num_frames": num_frames}}
        return {**kept, "inputs": features}
