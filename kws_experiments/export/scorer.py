"""A trained run in any format: waveforms in, a score per label out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kws_data.clip_format import DEFAULT_RULES, AudioRules, ClipFormat
from kws_data.errors import KwsError
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.listening import Listening

if TYPE_CHECKING:
    import keras

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Facts:
    """What belongs to a model, in any format.

    Attributes:
        labels: class names, in the order of the scores.
        sample_rate: Hz.
        clip_samples: every clip is padded or cut to this; None where clips keep their lengths.
        thresholds: each keyword's decision threshold on its score of a clip; silence and unknown have none.
        clip_from: which part of longer files is a clip; see `ClipFormat`.
        rules: what audio files may be.
    """

    labels: list[str]
    sample_rate: int
    clip_samples: int | None
    thresholds: dict[str, float] = field(default_factory=dict)
    clip_from: str = "start"
    rules: AudioRules = DEFAULT_RULES

    @property
    def clip_form(self) -> ClipFormat:
        """How files become clips for this model."""
        return ClipFormat(self.sample_rate, self.clip_samples, self.clip_from, self.rules)


def run_facts(run: Path, clip_samples: int | None = None) -> Facts:
    """What belongs to a run's model.

    Args:
        run: the folder.
        clip_samples: the one length of all clips, for a run that keeps lengths.

    Raises:
        KwsError: `run` is no folder of a finished run.
    """
    folder = RunFolder(run)
    experiment = Experiment(folder.read_config())
    length = experiment.clip_samples if clip_samples is None else clip_samples
    form = experiment.clip_form
    return Facts(
        folder.read_labels(), form.sample_rate, length, Listening.read(run).thresholds, form.clip_from, form.rules
    )


class Scorer:
    """A trained model, in any format. Not for several threads at once.

    Args:
        facts: what belongs to it.
        infer: the model itself: inputs, as `prepare` returns them → scores [batch, labels] float32.
        features: waveforms → features, for a model that takes features.

    Attributes:
        facts: see above.
        infer: see above.
        labels: class names, in the order of the scores.
        sample_rate: of the waveforms, in Hz.
        clip_samples: samples of a clip; None: any number.
        thresholds: each keyword's decision threshold.
    """

    def __init__(self, facts: Facts, infer: Function, features: Function | None = None) -> None:
        self.facts, self.infer, self._features = facts, infer, features
        self.labels, self.thresholds = facts.labels, facts.thresholds
        self.sample_rate, self.clip_samples = facts.sample_rate, facts.clip_samples

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
        """Waveforms [batch, samples] as the model takes them: of its length, or their features."""
        waveforms = fitted(waveforms, self.clip_samples)
        return waveforms if self._features is None else self._features(waveforms)


def fitted(waveforms: np.ndarray, clip_samples: int | None) -> np.ndarray:
    """[batch, samples] → [batch, clip_samples]: padded with zeros at the end, or cut there; None leaves them."""
    if clip_samples is None or waveforms.shape[1] == clip_samples:
        return waveforms
    if waveforms.shape[1] > clip_samples:
        return waveforms[:, :clip_samples]
    return np.pad(waveforms, ((0, 0), (0, clip_samples - waveforms.shape[1])))


class KerasScorer(Scorer):
    """A run's own `model.keras`.

    Attributes:
        model: waveforms → logits; a dict of `waveform` and `lengths` where clips keep their lengths.
    """

    def __init__(self, model: keras.Model, facts: Facts) -> None:
        import tensorflow as tf

        from kws_models.folding import Once, folded

        self.model = model
        logits = folded(model, Once())
        keeps_lengths = isinstance(model.input, dict)

        def scores(waveforms: tf.Tensor) -> tf.Tensor:
            inputs: Any = waveforms
            if keeps_lengths:
                lengths = tf.fill(tf.shape(waveforms)[:1], tf.shape(waveforms)[1])
                inputs = {"waveform": waveforms, "lengths": lengths}
            return tf.nn.softmax(logits(inputs))

        graph = tf.function(scores, [tf.TensorSpec([None, facts.clip_samples], tf.float32)], autograph=False)
        super().__init__(facts, lambda waveforms: graph(waveforms).numpy())
