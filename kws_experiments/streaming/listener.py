"""Detect words in a stream of samples as they arrive: the part of `kws stream` that other programs can use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kws_data.catalog import SILENCE, UNKNOWN
from kws_experiments.streaming.recognize import Recognizer, RecognizerSettings
from kws_experiments.streaming.sensitivity import settings_of
from kws_experiments.streaming.windows import Scored, WindowScorer, open_windows

HOP_MS = 40.0  # a whole number of frame steps of every front end here (8, 10 and 20 ms)


class Detection(NamedTuple):
    """A detected word.

    Attributes:
        time_ms: from the stream's start to the end of the window that decided it; no later sample was needed.
        word: a label.
        score: averaged over the last windows, from 0 to 1.
    """

    time_ms: int
    word: str
    score: float


class Listener:
    """Takes chunks of samples of any length and returns the detections that they complete, for example:

        listener = open_listener(Path("runs/train/0123456789ab"))
        for chunk in microphone:  # [samples] float32 at listener.sample_rate
            for detection in listener.feed(chunk):
                print(detection.word)

    Args:
        windows: scores the windows; each listener needs its own.
        settings: see RecognizerSettings.
        unknown: report `_unknown_` like a word; silence is never reported.
    """

    def __init__(
        self, windows: WindowScorer, settings: RecognizerSettings | None = None, *, unknown: bool = False
    ) -> None:
        self.windows = windows
        self.recognizer = Recognizer(windows.labels, settings or RecognizerSettings())
        self._ignored = {SILENCE} if unknown else {SILENCE, UNKNOWN}
        self._samples = 0

    @property
    def sample_rate(self) -> int:
        """Hz, of the samples."""
        return self.windows.sample_rate

    def listen_with(self, settings: RecognizerSettings) -> None:
        """Go on with other settings; what was averaged so far is forgotten if they are."""
        if settings != self.recognizer.settings:
            self.recognizer = Recognizer(self.windows.labels, settings)

    def feed(self, samples: np.ndarray) -> list[Detection]:
        """Process the next samples, [n] float32 in [-1, 1].

        Raises:
            KwsError: a sample is not finite, or `samples` has another shape.
        """
        scored = self.windows.feed(samples)
        self._samples += len(samples)
        return list(self._detections(scored))

    def finish(self) -> list[Detection]:
        """The detections at the stream's end, as if silence followed for the time that scores are averaged over.

        A stream shorter than one window is first padded to one.
        """
        average = round(self.recognizer.settings.average_window_ms * self.sample_rate / 1000)
        return self.feed(np.zeros(max(0, self.windows.clip_samples - self._samples) + average, np.float32))

    def _detections(self, scored: Scored) -> Iterator[Detection]:
        for end, scores in zip(scored.ends.tolist(), scored.scores, strict=True):
            time_ms = round(1000 * end / self.sample_rate)
            recognition = self.recognizer.process(time_ms, scores)
            if recognition.is_new and recognition.label not in self._ignored:
                yield Detection(time_ms, recognition.label, recognition.score)


def open_listener(
    path: Path, settings: RecognizerSettings | None = None, *, hop_ms: float = HOP_MS, unknown: bool = False
) -> Listener:
    """A listener with the model of a run's folder or of an export; by default with the settings of `settings_of`.

    Raises:
        KwsError: there is no model, or the hop is not possible.
    """
    return Listener(open_windows(path, hop_ms), settings or settings_of(path), unknown=unknown)
