"""Train a run further on what it hears wrongly (`kws mine`), in streams that are made of its training material."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kws_data.audio import INT16_SCALE, write_wav
from kws_data.catalog import UNKNOWN
from kws_data.checks import check_whole
from kws_data.splits import TRAINING
from kws_data.storage.atomic import replace_dir
from kws_data.streams.mix import render
from kws_data.streams.plan import StreamSettings, plan_words
from kws_data.streams.source import StreamSource
from kws_data.streams.speech import SYNTHETIC
from kws_experiments.config.command import quoted
from kws_experiments.config.compose import run_folder
from kws_experiments.console.output import say
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.experiment.further import with_mistakes
from kws_experiments.experiment.settings import TuneSettings
from kws_experiments.runs.finished import FinishedRun
from kws_experiments.streaming.listener import HOP_MS
from kws_experiments.streaming.matching import Spoken
from kws_experiments.streaming.mistakes import Mistake, false_accepts, missed_words
from kws_experiments.streaming.open_source import source_of_run
from kws_experiments.streaming.recognize import keywords_of
from kws_experiments.streaming.windows import WindowScorer, in_pieces, open_windows

log = logging.getLogger(__name__)

_VERSION = 1  # of the windows: increase it when the same run and settings give others
# A false accept scores at least so much, a missed keyword at most so much
_FALSE_ACCEPT_SCORE, _MISSED_SCORE = 0.2, 0.5


@dataclass(frozen=True)
class MineSettings:
    """Which streams are listened to, and how much is trained.

    Attributes:
        snrs_db: a stream of words for each, and one of running speech; speech above noise in dB.
        minutes: the length of each stream of words.
        speech: running speech without keywords: SYNTHETIC, a folder of recordings, or None.
        speech_minutes: the length of each stream of running speech.
        most: windows that are kept, of false accepts and of missed words each.
        epochs: of the training.
        seed: of the streams.

    Raises:
        ValueError: naming the attribute.
    """

    snrs_db: tuple[float, ...] = (5.0, 15.0)
    minutes: float = 15.0
    speech: str | None = None
    speech_minutes: float = 60.0
    most: int = 300
    epochs: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("most", self.most, 1)
        check_whole("epochs", self.epochs, 1)
        self.streams()

    def streams(self) -> list[StreamSettings]:
        """The settings of each stream, those of running speech last."""
        return TuneSettings(
            snrs_db=self.snrs_db, minutes=self.minutes, seed=self.seed, repeat_percentage=0, speech=self.speech,
            speech_minutes=self.speech_minutes,
        ).streams()  # fmt: skip


class Mined(NamedTuple):
    """What was found.

    Attributes:
        run: the folder of the new run.
        windows: the folder of the windows.
        false_accepts, missed: how many of them there are.
        hours: of the streams.
    """

    run: Path
    windows: Path
    false_accepts: int
    missed: int
    hours: float


def mine(run: Path, settings: MineSettings) -> Mined | None:
    """Listen to streams of a run's training clips, and train on from its weights with what is heard wrongly.

    Args:
        run: the folder of a finished run.
        settings: see MineSettings.

    Returns:
        None where nothing is heard wrongly.

    Raises:
        KwsError: `run` is no finished run, its data changed, or there is no such running speech.
    """
    opened = FinishedRun.open(run)
    experiment = Experiment(opened.config)
    experiment.start_tensorflow()  # as the training has it: once it is used, threads stay as they are
    source = source_of_run(opened, experiment, TRAINING, settings.speech)
    streams = settings.streams()
    hours = sum(stream.minutes for stream in streams) / 60
    log.info("listening to %d streams of training clips, %.1f hours in all", len(streams), hours)
    listened = {name: value for name, value in asdict(settings).items() if name != "epochs"}
    made_from = [_VERSION, str(opened.record.get("weights_sha256")), listened, _files_of(settings.speech)]
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:12]
    folder = Path("runs", "mine", "windows", digest).resolve()
    if not folder.is_dir():
        found = [_mistakes(source, open_windows(run, HOP_MS), stream, opened.labels) for stream in streams]
        accepts = _clearest([window for one in found for window in one.accepts], settings.most, highest=True)
        if UNKNOWN not in opened.labels:  # nothing that these windows could be examples of
            accepts = []
        missed = _clearest([window for one in found for window in one.missed], settings.most, highest=False)
        if not accepts and not missed:
            return None
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replace_dir(folder) as temporary:
            _write(temporary, [*accepts, *missed], experiment.sample_rate)
    counts = [path.parent.name in keywords_of(opened.labels) for path in folder.rglob("*.wav")]
    config = with_mistakes(opened.config, [str(folder)], start_from=str(run.resolve()), epochs=settings.epochs)
    path = Path(run_folder(config))
    from kws_experiments.train import train

    log.info("%d false accepts and %d missed words: training with them", len(counts) - sum(counts), sum(counts))
    train(config, path)
    return Mined(path, folder, len(counts) - sum(counts), sum(counts), hours)


def _files_of(speech: str | None) -> list[tuple[str, int, int]]:
    """The names, sizes and times of recordings, so that others in the same folder are listened to."""
    if speech is None or speech == SYNTHETIC:
        return []
    files = [path for path in sorted(Path(speech).expanduser().rglob("*")) if path.is_file()]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


class _Window(NamedTuple):
    word: str
    score: float
    name: str
    samples: np.ndarray


class _Found(NamedTuple):
    accepts: list[_Window]
    missed: list[_Window]


def _mistakes(source: StreamSource, windows: WindowScorer, stream: StreamSettings, labels: Sequence[str]) -> _Found:
    from tqdm import tqdm

    rate, length = windows.sample_rate, windows.clip_samples
    plan = plan_words(source, stream)
    keywords = keywords_of(labels)
    truth = [Spoken(row.time_ms, row.end_ms, row.word) for row in plan.itertuples(index=False) if row.word in keywords]
    ends, scores, audio = [], [], []
    with tqdm(total=round(60 * stream.minutes), unit="s", desc="listening", disable=None, leave=False) as bar:
        for block in in_pieces(render(source, plan, stream), rate):
            scored = windows.feed(block / np.float32(INT16_SCALE))
            ends.append(scored.ends)
            scores.append(scored.scores[:, [labels.index(word) for word in keywords]])
            audio.append(block)
            bar.update(len(block) / rate)
    end, score, samples = np.concatenate(ends), np.concatenate(scores), np.concatenate(audio)
    ends_ms, window_ms = 1000 * end / rate, 1000 * length / rate

    def cut(mistakes: Sequence[Mistake]) -> list[_Window]:
        kind = "speech" if stream.speech_percentage else "words"
        return [
            _Window(
                one.word, one.score, f"{kind}{stream.seed}_{end[one.window]}.wav",
                samples[end[one.window] - length : end[one.window]].copy(),
            )
            for one in mistakes
        ]  # fmt: skip

    return _Found(
        cut(false_accepts(ends_ms, score, truth, window_ms, _FALSE_ACCEPT_SCORE)),
        cut(missed_words(ends_ms, score, keywords, truth, window_ms, _MISSED_SCORE)),
    )


def _clearest(windows: list[_Window], most: int, *, highest: bool) -> list[_Window]:
    return sorted(windows, key=lambda window: (-window.score if highest else window.score, window.name))[:most]


def _write(folder: Path, windows: Sequence[_Window], rate: int) -> None:
    for window in windows:
        (folder / window.word).mkdir(exist_ok=True)
        write_wav(folder / window.word / window.name, window.samples, rate)


def show(found: Mined | None, run: Path) -> None:
    """Print what was found, and what to do next."""
    if found is None:
        say(f"'{run}' makes no mistake on its training material; longer streams (--minutes, --speech) may show some")
        return
    counts = f"{found.false_accepts} windows that were taken for a keyword and {found.missed} missed keywords"
    say(f"trained with {counts}, of {found.hours:.1f} hours: {found.windows}")
    say(found.run)
    say(f"next: {quoted('kws', 'tune', found.run)}")
