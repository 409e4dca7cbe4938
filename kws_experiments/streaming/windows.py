"""Scores of windows that slide over a stream of samples.

There are two ways to compute them: each window through the whole model; or each frame of the front end once, and of the
network as much as its streaming form can (`kws_models.streaming`). Up to rounding, the results are equal, except those
of causal networks, which see what came before a window.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kws_data.clip_format import NOMINAL_MS
from kws_data.errors import KwsError
from kws_models.sliding import SlidingWindows

if TYPE_CHECKING:
    import keras

    from kws_data.features.base import FeatureLayer
    from kws_experiments.export.scorer import Scorer

log = logging.getLogger(__name__)

# Pieces bound memory. Networks run faster on long ones, front ends on short ones, which stay in the CPU's caches.
PIECE_S, _FRONT_END_PIECE_S = 20, 5
_BATCH = 64  # windows


class Scored(NamedTuple):
    """Windows in order of time.

    Attributes:
        ends: [windows] int64, samples from the stream's start to the window's end.
        scores: [windows, labels] float32, softmax.
    """

    ends: np.ndarray
    scores: np.ndarray


def in_pieces(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Blocks of samples [n], as they come, joined to pieces of the length that a WindowScorer best takes at once."""
    size, waiting = PIECE_S * sample_rate, np.zeros(0, np.float32)
    for block in blocks:
        waiting = np.concatenate([waiting.astype(block.dtype, copy=False), block])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if len(waiting):
        yield waiting


class WindowScorer(ABC):
    """Takes samples as they arrive and returns the scores of the windows that they complete.

    Args:
        labels: class names, in the order of the scores.
        sample_rate: Hz.
        clip_samples: samples per window.
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
        """Process the next samples, [n] float32 in [-1, 1] at `sample_rate`.

        Raises:
            KwsError: a sample is not finite, or `samples` has another shape.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1:
            raise KwsError(f"samples must be mono, [samples], got {list(samples.shape)}")
        if not np.isfinite(samples).all():
            raise KwsError("samples are not finite (NaN or infinity)")
        scores = _in_pieces(self._feed, samples, PIECE_S * self.sample_rate, len(self.labels))
        first, self._windows = self._windows, self._windows + len(scores)
        starts = np.arange(first, self._windows, dtype=np.int64) * self.hop_samples
        return Scored(starts + self.clip_samples, scores)

    @abstractmethod
    def _feed(self, samples: np.ndarray) -> np.ndarray:
        """Scores [windows, labels] of the windows that some seconds of samples complete."""


def _in_pieces(compute: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, size: int, num_labels: int) -> np.ndarray:
    """`compute` on at most `size` rows at a time, its results joined: [n, num_labels] float32."""
    parts = [compute(rows[start : start + size]) for start in range(0, len(rows), size)]
    return np.concatenate([np.zeros((0, num_labels), np.float32), *parts])


class EachWindow(WindowScorer):
    """Every window through the whole model, with its front end: works for every model and every export."""

    def __init__(self, scorer: Scorer, hop_samples: int) -> None:
        clip_samples = scorer.clip_samples or NOMINAL_MS * scorer.sample_rate // 1000
        super().__init__(scorer.labels, scorer.sample_rate, clip_samples, hop_samples)
        self._scorer = scorer
        self._sliding = SlidingWindows(clip_samples, hop_samples)

    def _feed(self, samples: np.ndarray) -> np.ndarray:
        return _in_pieces(self._scorer.scores, self._sliding.feed(samples), _BATCH, len(self.labels))


class FramesOnce(WindowScorer):
    """Computes each frame of the front end once, however many windows contain it.

    Args:
        features: a layer whose frames are independent; the hop is a whole number of its frame steps.
        network: takes the frames.
        labels, clip_samples, hop_samples: see WindowScorer.

    Attributes:
        network_stream: the network on these frames.
    """

    def __init__(
        self, features: FeatureLayer, network: keras.Model, labels: list[str], clip_samples: int, hop_samples: int
    ) -> None:
        from kws_experiments.export.tflite_stream import single_step
        from kws_models.streaming import NetworkStream

        super().__init__(labels, features.sample_rate, clip_samples, hop_samples)
        self._front_end = FrameStream(features)
        hop_frames = hop_samples // features.frame_step
        self.network_stream = NetworkStream(network, features.num_frames(clip_samples), hop_frames, single_step)

    def _feed(self, samples: np.ndarray) -> np.ndarray:
        from scipy.special import softmax

        size = _FRONT_END_PIECE_S * self.sample_rate
        frames = [self._front_end.feed(samples[start : start + size]) for start in range(0, len(samples), size)]
        return softmax(self.network_stream.feed(np.concatenate(frames)).astype(np.float32), axis=1)


class FrameStream:
    """The frames of a stream of samples, each computed once."""

    def __init__(self, features: FeatureLayer) -> None:
        import tensorflow as tf

        self._layer = features
        self._compute = tf.function(lambda x: features(x), [tf.TensorSpec([1, None], tf.float32)])
        self._samples = np.zeros(0, np.float32)  # from the next frame's start

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


def open_windows(path: Path, hop_ms: float) -> WindowScorer:
    """The cheapest way to score windows with the model at `path`: a run's folder, or an export.

    Raises:
        KwsError: there is no model, or the hop is not possible.
    """
    from kws_experiments.export.load import load_scorer
    from kws_experiments.export.scorer import run_facts
    from kws_experiments.runs.saved_model import features_of, load_model, network_of

    if (path / "model.keras").is_file():
        facts, model = run_facts(path), load_model(path)
        clip_samples = facts.clip_samples or NOMINAL_MS * facts.sample_rate // 1000
        hop_samples = round(hop_ms * facts.sample_rate / 1000)
        windows = frames_once(features_of(model), network_of(model), facts.labels, clip_samples, hop_samples)
        if windows is not None:
            return windows
    scorer = load_scorer(path)
    return EachWindow(scorer, round(hop_ms * scorer.sample_rate / 1000))


def frames_once(
    features: FeatureLayer, network: keras.Model, labels: list[str], clip_samples: int, hop_samples: int
) -> FramesOnce | None:
    """Score windows with each frame computed once.

    Returns:
        None where windows cannot share frames: the frames depend on their window, the hop is not a whole number of
        frame steps, or a window is shorter than a frame.

    Raises:
        KwsError: the hop is not possible.
    """
    if not features.frames_are_independent:
        log.info("each window is computed by itself: frames of %s depend on their window", type(features).__name__)
        return None
    if hop_samples % features.frame_step or clip_samples < features.frame_length:
        step_ms = 1000 * features.frame_step / features.sample_rate
        log.info("each window is computed by itself: --hop-ms is not a multiple of the frame step, %g ms", step_ms)
        return None
    return FramesOnce(features, network, labels, clip_samples, hop_samples)
