"""The contents of the demo page, without the page: a clip's scores and picture, and a strip of detections."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile
import soxr

from kws_data.audio import UnreadableAudioError, read_clip
from kws_data.errors import KwsError
from kws_experiments.export.scorer import fitted
from kws_experiments.streaming.audio_file import check_file, file_blocks
from kws_experiments.streaming.listener import Detection, Listener, open_listener
from kws_experiments.streaming.recognize import RecognizerSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kws_experiments.export.scorer import Scorer

STRIP_S = 20.0  # a live strip shows this much of the past
LONGEST_S = 60  # of a recording


class LabelledRecording(NamedTuple):
    """The results for a recording.

    Attributes:
        scores: by label, of one window: the one that training would use.
        picture: that window's waveform and features.
        strip: detections over the whole recording, as HTML; '' if it is no longer than the window.
    """

    scores: dict[str, float]
    picture: Figure
    strip: str


class ClipLabeller:
    """The model of a run, for recordings in files.

    Args:
        run: the folder of a finished run.

    Raises:
        KwsError: `run` is not a finished run.
    """

    def __init__(self, run: Path) -> None:
        from kws_experiments.export.scorer import KerasScorer, run_facts
        from kws_experiments.runs.saved_model import features_of, load_model

        self._run = run
        model = load_model(run)
        self.scorer: Scorer = KerasScorer(model, run_facts(run))
        self._features = features_of(model)

    def label(self, recording: Path) -> LabelledRecording:
        """Score one window of a file, and detect words in all of it if it is longer.

        Raises:
            KwsError: the file cannot be read, or is longer than a minute.
        """
        check_file(recording)
        try:
            samples, longer, _ = read_clip(recording, self.scorer.facts.clip_form)
        except UnreadableAudioError as error:
            raise KwsError(f"'{recording.name}': {error}") from error
        scores = self.scorer.scores(samples[None])[0]
        named = dict(zip(self.scorer.labels, scores.tolist(), strict=True))
        return LabelledRecording(named, self._picture(samples), self._strip_of(recording) if longer else "")

    def _picture(self, samples: np.ndarray) -> Figure:
        from kws_experiments.plots.clips import clips

        length = self.scorer.clip_samples or max(len(samples), self._features.frame_length)
        waveform = fitted(samples[None], length)
        return clips(waveform, self._features(waveform).numpy(), [""], self.scorer.sample_rate, columns=1)

    def _strip_of(self, recording: Path) -> str:
        listener, detections, count = open_listener(self._run), [], 0
        for block in file_blocks(recording, listener.sample_rate):
            count += len(block)
            if count > LONGEST_S * listener.sample_rate:
                raise KwsError(f"'{recording.name}' is longer than {LONGEST_S} s; `kws stream` takes any length")
            detections += listener.feed(block)
        detections += listener.finish()
        return strip(detections, 0.0, max(1000 * count / listener.sample_rate, *(d.time_ms for d in detections), 1.0))


def read_chunk(path: Path) -> tuple[int, np.ndarray]:
    """(rate, samples [n, channels] int16) of a piece of a microphone's recording, up to a minute of it.

    Raises:
        KwsError: it is no audio.
    """
    try:
        with soundfile.SoundFile(path) as sound:
            return sound.samplerate, sound.read(LONGEST_S * sound.samplerate, dtype="int16", always_2d=True)
    except (soundfile.LibsndfileError, MemoryError, OSError) as error:
        raise KwsError(f"'{path.name}' cannot be read as audio") from error


class LiveSession:
    """One visitor's microphone: takes chunks at the browser's rate, and keeps the detections."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._rate = 0
        self._resampler: soxr.ResampleStream | None = None
        self._samples = 0
        self.detections: list[Detection] = []

    def listen_with(self, settings: RecognizerSettings) -> None:
        """Go on with other settings."""
        self._listener.listen_with(settings)

    def feed(self, rate: int, chunk: np.ndarray) -> str:
        """Process the next samples, [n] or [n, channels] of any number type, at `rate` Hz; return the current strip."""
        mono = _as_float(chunk)
        if rate != self._rate:
            self._rate = rate
            self._resampler = soxr.ResampleStream(rate, self._listener.sample_rate, 1, dtype="float32")
        assert self._resampler is not None
        samples = mono if rate == self._listener.sample_rate else self._resampler.resample_chunk(mono)
        self._samples += len(samples)
        self.detections += self._listener.feed(samples)
        now_ms = 1000 * self._samples / self._listener.sample_rate
        return strip(self.detections, now_ms - 1000 * STRIP_S, now_ms)


def _as_float(chunk: np.ndarray) -> np.ndarray:
    """[n] float32 in [-1, 1]."""
    scale = 1 / -float(np.iinfo(chunk.dtype).min) if chunk.dtype.kind == "i" else 1.0
    samples = chunk.astype(np.float32) * np.float32(scale)
    return samples if samples.ndim == 1 else samples.mean(axis=1)


def strip(detections: Sequence[Detection], from_ms: float, to_ms: float) -> str:
    """HTML of the detections in a stretch of time: each word above its time on an axis, then all of them as a list."""
    shown = [detection for detection in detections if detection.time_ms >= from_ms]
    words = []
    for number, (time_ms, word, score) in enumerate(shown):
        left = 92 * (time_ms - from_ms) / (to_ms - from_ms)
        words.append(
            f'<span class="kws-word" style="left: {left:.1f}%; top: {2.1 * (number % 2):.1f}em"'
            f' title="{score:.2f} at {time_ms / 1000:.1f} s">{html.escape(word)}</span>'
        )
    listed = ", ".join(f"{html.escape(word)} ({time_ms / 1000:.1f} s, {score:.2f})" for time_ms, word, score in shown)
    first, last = max(0.0, from_ms) / 1000, to_ms / 1000
    return (
        f'<div class="kws-strip">{"".join(words)}</div><div class="kws-times"><span>{first:.1f} s</span>'
        f"<span>{last:.1f} s</span></div><p>Detected: {listed or 'nothing yet'}</p>"
    )
