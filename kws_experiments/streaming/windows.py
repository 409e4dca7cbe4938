"""Scores of windows that slide over a stream of samples.

Three ways, of the same numbers up to rounding: each window through the whole model; each frame of the front end
computed once and the network run on windows of them; and, for causal networks, its first layers once a frame too.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from kws_data.errors import KwsError
from kws_models.sliding import SlidingWindows

if TYPE_CHECKING:
    import keras

    from kws_data.features.base import FeatureLayer
    from kws_experiments.export.scorer import Scorer

log = logging.getLogger(__name__)

NOMINAL_CLIP_MS = 1000  # the window of models that take clips of any length
_PIECE_S = 5  # samples are taken in pieces of so many seconds: memory stays bounded, and frames in the caches
_BATCH = 64  # windows


class Scored(NamedTuple):
    """Windows in the order of time.

    Attributes:
        ends: [windows] int64, samples from the stream's start to the window's end.
        scores: [windows, labels] float32, softmax.
    """

    ends: np.ndarray
    scores: np.ndarray


class WindowScorer(ABC):
    """Takes samples as they come, gives the scores of the windows that they complete.

    Args:
        labels: class names, in the order of the scores.
        sample_rate: Hz.
        clip_samples: of a window.
        hop_samples: from window to window.

    Raises:
        KwsError: the hop is not from one sample to one window.
    """

    def __init__(self, labels: list[str], sample_rate: int, clip_samples: int, hop_samples: int) -> None:
        self.labels, self.sample_rate = labels, sample_rate
        self.clip_samples, self.hop_samples = clip_samples, hop_samples
        longest_ms = 1000 * clip_samples / sample_rate
        if not 1 <= hop_samples <= clip_samples:
            raise KwsError(f"--hop-ms: must be from one sample to the model's window of {longest_ms:g} ms")
        self._windows = 0

    def feed(self, samples: np.ndarray) -> Scored:
        """Take in the next samples, [n] float32 in [-1, 1] at `sample_rate`.

        Raises:
            KwsError: a sample isn't finite, or `samples` has other axes.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1:
            raise KwsError(f"samples must be mono, [samples], got {list(samples.shape)}")
        if not np.isfinite(samples).all():
            raise KwsError("samples are not finite (NaN or infinity)")
        piece = _PIECE_S * self.sample_rate
        parts = [self._feed(samples[start : start + piece]) for start in range(0, len(samples), piece)]
        scores = np.concatenate([np.zeros((0, len(self.labels)), np.float32), *parts])
        first, self._windows = self._windows, self._windows + len(scores)
        starts = np.arange(first, self._windows, dtype=np.int64) * self.hop_samples
        return Scored(starts + self.clip_samples, scores)

    @abstractmethod
    def _feed(self, samples: np.ndarray) -> np.ndarray:
        """Scores [windows, labels] of the windows that some seconds of samples complete."""


class EachWindow(WindowScorer):
    """Every window through the whole model, its front end included: works for every model and every export."""

    def __init__(self, scorer: Scorer, hop_samples: int) -> None:
        clip_samples = scorer.clip_samples or NOMINAL_CLIP_MS * scorer.sample_rate // 1000
        super().__init__(scorer.labels, scorer.sample_rate, clip_samples, hop_samples)
        self._scorer = scorer
        self._sliding = SlidingWindows(clip_samples, hop_samples)

    def _feed(self, samples: np.ndarray) -> np.ndarray:
        windows = self._sliding.feed(samples)
        parts = [self._scorer.scores(windows[start : start + _BATCH]) for start in range(0, len(windows), _BATCH)]
        return np.concatenate([np.zeros((0, len(self.labels)), np.float32), *parts])


class FrameConsumer(Protocol):
    """Takes the stream's frames [n, bins] as they come, gives logits [m, labels] of the windows they complete."""

    def feed(self, frames: np.ndarray) -> np.ndarray:
        """See the class."""
        ...


class FramesOnce(WindowScorer):
    """Each frame of the front end computed once, however many windows it stands in.

    Args:
        features: a layer whose frames are independent, with a whole number of steps in a hop.
        consumer: of the frames.
        labels, sample_rate, clip_samples, hop_samples: see WindowScorer.
    """

    def __init__(
        self,
        features: FeatureLayer,
        consumer: FrameConsumer,
        labels: list[str],
        sample_rate: int,
        clip_samples: int,
        hop_samples: int,
    ) -> None:
        super().__init__(labels, sample_rate, clip_samples, hop_samples)
        self._front_end = FrameStream(features)
        self.consumer = consumer

    def _feed(self, samples: np.ndarray) -> np.ndarray:
        from scipy.special import softmax

        return softmax(self.consumer.feed(self._front_end.feed(samples)).astype(np.float32), axis=1)


class FrameStream:
    """The frames of a stream of samples, each computed once."""

    def __init__(self, features: FeatureLayer) -> None:
        import tensorflow as tf

        self._layer = features
        self._compute = tf.function(lambda x: features(x), [tf.TensorSpec([1, None], tf.float32)])
        self._samples = np.zeros(0, np.float32)  # from the next frame's start on

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """The next samples [n] float32 → the frames [m, bins] that they complete."""
        layer = self._layer
        samples = np.concatenate([self._samples, samples])
        if len(samples) < layer.frame_length:
            self._samples = samples
            return np.zeros((0, layer.num_bins), np.float32)
        frames = self._compute(samples[None]).numpy()[0]
        self._samples = samples[len(frames) * layer.frame_step :].copy()
        return frames


class NetworkWindows:
    """A network, whatever its layers, on windows of frames.

    Args:
        network: features [batch, frames, bins] → logits, or the dict of `features` and `num_frames`.
        num_frames: of a window.
        hop_frames: from window to window.
    """

    def __init__(self, network: keras.Model, num_frames: int, hop_frames: int) -> None:
        import tensorflow as tf

        self._sliding = SlidingWindows(num_frames, hop_frames)
        self._num_labels = network.output_shape[-1]
        has_lengths = len(network.inputs) > 1
        bins = max(network.inputs, key=lambda tensor: len(tensor.shape)).shape[-1]

        def infer(windows: tf.Tensor) -> tf.Tensor:
            if not has_lengths:
                return network(windows, training=False)
            lengths = tf.fill(tf.shape(windows)[:1], num_frames)
            return network({"features": windows, "num_frames": lengths}, training=False)

        self._infer = tf.function(infer, [tf.TensorSpec([None, num_frames, bins], tf.float32)])

    def feed(self, frames: np.ndarray) -> np.ndarray:
        """See FrameConsumer."""
        windows = self._sliding.feed(frames)
        parts = [self._infer(windows[start : start + _BATCH]).numpy() for start in range(0, len(windows), _BATCH)]
        return np.concatenate([np.zeros((0, self._num_labels), np.float32), *parts])


def open_windows(path: Path, hop_ms: float) -> WindowScorer:
    """The cheapest way to score windows by the model at `path`: a run's folder, or an export.

    Raises:
        KwsError: there is no model, or the hop isn't possible.
    """
    from kws_experiments.export.load import load_scorer

    path = path.expanduser()
    if not (path / "model.keras").is_file():
        scorer = load_scorer(path)
        return EachWindow(scorer, round(hop_ms * scorer.sample_rate / 1000))
    from kws_data.features.base import FeatureLayer
    from kws_experiments.export.scorer import run_facts
    from kws_experiments.runs.saved_model import load_model, network_of

    facts = run_facts(path)
    model = load_model(path)
    features = next(layer for layer in model.layers if isinstance(layer, FeatureLayer))
    clip_samples = facts.clip_samples or NOMINAL_CLIP_MS * facts.sample_rate // 1000
    hop_samples = round(hop_ms * facts.sample_rate / 1000)
    windows = frames_once(features, network_of(model), facts.labels, clip_samples, hop_samples)
    return EachWindow(load_scorer(path), hop_samples) if windows is None else windows


def frames_once(
    features: FeatureLayer, network: keras.Model, labels: list[str], clip_samples: int, hop_samples: int
) -> FramesOnce | None:
    """Front end and network on a stream, its first layers once a frame if they can; None where frames can't be shared.

    They can't where they depend on their window, where the hop isn't a whole number of frame steps, or where a window
    is shorter than a frame.

    Raises:
        KwsError: the hop isn't possible.
    """
    from kws_models.causal import CausalStream, NotCausalError

    hop_frames, between = divmod(hop_samples, features.frame_step)
    if not features.frames_are_independent:
        log.info("each window is computed by itself: frames of %s depend on their window", type(features).__name__)
        return None
    if between or clip_samples < features.frame_length:
        step_ms = 1000 * features.frame_step / features.sample_rate
        log.info("each window is computed by itself: --hop-ms is no multiple of the frame step, %g ms", step_ms)
        return None
    consumer: FrameConsumer
    try:
        consumer = CausalStream(network, hop_frames)
    except NotCausalError:
        consumer = NetworkWindows(network, features.num_frames(clip_samples), hop_frames)
    return FramesOnce(features, consumer, labels, features.sample_rate, clip_samples, hop_samples)
