"""Find an export's sensitivities on its own scores, where they are others than the run's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kws_data.splits import VALIDATION
from kws_data.streams.plan import StreamSettings
from kws_data.streams.speech import check_speech
from kws_experiments.config.command import quoted
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.export.artifact import Artifact
from kws_experiments.export.formats.base import find_format
from kws_experiments.runs.files import whole
from kws_experiments.runs.finished import FinishedRun
from kws_experiments.runs.listening import CLIPS, Listening
from kws_experiments.streaming.listener import HOP_MS
from kws_experiments.streaming.open_source import source_of_run
from kws_experiments.streaming.tune import choose, score
from kws_experiments.streaming.windows import EachWindow, WindowScorer

if TYPE_CHECKING:
    from kws_data.features.base import FeatureLayer

log = logging.getLogger(__name__)

_SETTLED_S = 5  # after so long, features hardly depend on what came before


def tune_export(run: Path, listening: Listening, out: Path, artifact: Artifact) -> Listening:
    """The run's sensitivities, their thresholds found anew on the streams that `kws tune` chose them on.

    What the averages are over, and the rates of false accepts that were asked for, stay.

    Args:
        run: the folder of the run.
        listening: its sensitivities.
        out: the export's folder.
        artifact: the export; its first model takes whole windows, or a stream's frames.

    Raises:
        KwsError: the data changed, the running speech is gone, or the sensitivities are damaged.
    """
    with whole(listening.file or run, f"`{quoted('kws', 'tune', run)}` writes it anew"):
        streams = [_settings(stream) for stream in listening.tuned_on["streams"]]
        speech = (listening.tuned_on.get("speech") or {}).get("speech")  # earlier versions had none
        tuned = list(listening.tuned.values())
        asked = [float(values["false_accepts_per_hour_asked"]) for values in tuned]
        average_ms = float(tuned[0]["settings"]["average_window_ms"])
    opened = FinishedRun.open(run)
    experiment = Experiment(opened.config)
    check_speech(speech, f"'{listening.file}': tuned_on.speech")
    source = source_of_run(opened, experiment, VALIDATION, speech)
    windows = _windows(out, artifact, experiment.features)
    log.info("listening to %.0f min of streams with the export", sum(stream.minutes for stream in streams))
    scored = score(source, windows, streams)
    if artifact.clip_samples is not None:
        scored = replace(scored, window_ms=1000 * artifact.clip_samples / artifact.sample_rate)
    chosen = choose(scored, asked, [average_ms])
    clips = {CLIPS: listening.sensitivities[CLIPS]}
    hop_ms = 1000 * windows.hop_samples / artifact.sample_rate
    return replace(listening, sensitivities=clips | chosen, tuned_on=listening.tuned_on | {"hop_ms": hop_ms})


def _windows(out: Path, artifact: Artifact, features: FeatureLayer) -> WindowScorer:
    from kws_experiments.export.formats.esphome import stepper
    from kws_experiments.export.load import load_export

    file = artifact.files[0]
    if find_format(artifact.format).tunes:
        return Steps(features, stepper(out / file.file), artifact.labels, file.input.shape[1])
    return EachWindow(load_export(out, artifact, file), round(HOP_MS * artifact.sample_rate / 1000))


def _settings(stream: dict[str, Any]) -> StreamSettings:
    """What JSON made of them."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stream.items()}
    return StreamSettings(**values)


class Steps(WindowScorer):
    """A model that takes the next frames of a stream and keeps what it needs of those before.

    Args:
        features: the front end, which may keep something of the stream too.
        feed: the next frames [n, bins] → scores [m] of the steps that they complete.
        labels: any other label, and the word that is scored.
        step_frames: frames of a step.
    """

    def __init__(
        self, features: FeatureLayer, feed: Callable[[np.ndarray], np.ndarray], labels: list[str], step_frames: int
    ) -> None:
        import tensorflow as tf

        first = (step_frames - 1) * features.frame_step + features.frame_length
        super().__init__(labels, features.sample_rate, first, step_frames * features.frame_step)
        self._feed_frames = feed
        self._compute = tf.function(lambda x: features(x), [tf.TensorSpec([1, None], tf.float32)])
        self._length, self._step = features.frame_length, features.frame_step
        self._samples = np.zeros(0, np.float32)
        self._known = 0  # frames from the start of `_samples` that were fed already

    def _feed(self, samples: np.ndarray) -> np.ndarray:
        self._samples = np.concatenate([self._samples, samples])
        if len(self._samples) < self._length + self._known * self._step:
            return np.zeros((0, len(self.labels)), np.float32)
        frames = self._compute(self._samples[None]).numpy()[0]
        scores = self._feed_frames(frames[self._known :])
        self._known = min(len(frames), _SETTLED_S * self.sample_rate // self._step)
        self._samples = self._samples[(len(frames) - self._known) * self._step :]
        return np.stack([1 - scores, scores], axis=1)
