"""What every form of a trained run can do: waveforms in, a score per label out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kws_data.errors import KwsError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Facts:
    """What goes with a model, in whatever format it is.

    Attributes:
        labels: class names, in the order of the scores.
        sample_rate: Hz.
        clip_samples: every clip is padded or cut to this; None where clips keep their lengths.
        thresholds: each keyword's decision threshold on its score; silence and unknown have none.
    """

    labels: list[str]
    sample_rate: int
    clip_samples: int | None
    thresholds: dict[str, float] = field(default_factory=dict)


class Scorer(ABC):
    """A trained model, whatever its format. Not for several threads at once.

    Attributes:
        facts: labels, rate, length and thresholds.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    @property
    def labels(self) -> list[str]:
        """Class names, in the order of the scores."""
        return self.facts.labels

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.facts.sample_rate

    @property
    def clip_samples(self) -> int | None:
        """Samples that the model looks at; None: as many as come."""
        return self.facts.clip_samples

    @property
    def thresholds(self) -> dict[str, float]:
        """Each keyword's decision threshold."""
        return self.facts.thresholds

    def scores(self, waveforms: np.ndarray) -> np.ndarray:
        """Softmax scores [batch, labels] float32 of waveforms [batch, samples] float32 in [-1, 1].

        Clips are padded with zeros at their end, or cut, to the model's length.

        Raises:
            KwsError: the waveforms have another number of axes, no samples, or values that aren't finite.
        """
        waveforms = np.asarray(waveforms, np.float32)
        if waveforms.ndim != 2 or not waveforms.shape[1]:
            raise KwsError(f"waveforms must be [batch, samples] with at least one sample, got {list(waveforms.shape)}")
        if not np.isfinite(waveforms).all():
            raise KwsError("waveforms hold samples that are not finite (NaN or infinity)")
        if not len(waveforms):
            return np.zeros((0, len(self.labels)), np.float32)
        return self.infer(self.prepare(waveforms))

    def prepare(self, waveforms: np.ndarray) -> np.ndarray:
        """Waveforms [batch, samples] as the model takes them: fitted to its length."""
        return fitted(waveforms, self.clip_samples)

    @abstractmethod
    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """What `prepare` made → scores [batch, labels] float32."""


def fitted(waveforms: np.ndarray, clip_samples: int | None) -> np.ndarray:
    """[batch, samples] → [batch, clip_samples]: padded with zeros at the end, or cut there; None leaves them."""
    if clip_samples is None or waveforms.shape[1] == clip_samples:
        return waveforms
    if waveforms.shape[1] > clip_samples:
        return waveforms[:, :clip_samples]
    return np.pad(waveforms, ((0, 0), (0, clip_samples - waveforms.shape[1])))


class KerasScorer(Scorer):
    """A run's own `model.keras`."""

    def __init__(self, model: keras.Model, facts: Facts) -> None:
        import tensorflow as tf

        super().__init__(facts)
        keeps_lengths = isinstance(model.input, dict)

        def scores(waveforms: tf.Tensor) -> tf.Tensor:
            inputs: Any = waveforms
            if keeps_lengths:
                lengths = tf.fill(tf.shape(waveforms)[:1], tf.shape(waveforms)[1])
                inputs = {"waveform": waveforms, "lengths": lengths}
            return tf.nn.softmax(model(inputs, training=False))

        self._scores = tf.function(scores, [tf.TensorSpec([None, facts.clip_samples], tf.float32)])

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """Waveforms of the model's length → scores."""
        return self._scores(inputs).numpy()
