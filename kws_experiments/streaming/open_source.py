"""Open the clips and the noise of a run, or of a configuration, and running speech, to make a stream of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.errors import KwsError
from kws_data.folders import audio_files
from kws_data.streams.recorded_speech import RecordedSpeech
from kws_data.streams.source import StreamSource
from kws_data.streams.speech import SPEECH, SYNTHETIC, Speech, check_speech
from kws_data.streams.synthetic_speech import SyntheticSpeech
from kws_experiments.config.compose import compose
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.files import GIVE_RUN
from kws_experiments.runs.finished import FinishedRun
from kws_experiments.runs.folder import RunFolder, no_run
from kws_experiments.streaming.recognize import keywords_of
from kws_experiments.streaming.truth import FILE, TRUTH, read_truth


def open_source(source: Sequence[str], speech: str | None = None, *, loop: bool = False) -> StreamSource:
    """Catalog, split and decode the data of a run's folder, or of overrides for train.py.

    Args:
        source: either of them.
        speech: SYNTHETIC, a folder of recordings in which no keyword is said that its `truth.csv` does not list, or
            None.
        loop: use recordings again when they are used up.

    Raises:
        KwsError: `source` is neither, no clip of the task's words is for testing, or there is no such speech.
    """
    check_speech(speech, "--speech")
    experiment = Experiment(_config(source))
    corpus = experiment.corpus()
    origin = {"root": str(corpus.roots[0]), "split": experiment.part("split"), "data_seed": experiment.data_seed}
    keywords = set(experiment.task.labels(corpus)) - {SILENCE, UNKNOWN}
    clips = StreamSource.of_split(corpus, keywords, origin=origin, unknown_folders=_unknown_folders(experiment))
    return with_speech(clips, speech, keywords, loop=loop)


def source_of_run(run: FinishedRun, experiment: Experiment, split: str, speech: str | None = None) -> StreamSource:
    """The clips and noise of a split of a run, and running speech: SYNTHETIC, a folder of recordings, or None.

    Raises:
        KwsError: clips are others than those that it was trained with, or there is no such speech.
    """
    from kws_experiments.experiment.data import prepare_data

    data = prepare_data(experiment)
    if data.labels != run.labels or data.fingerprint != run.record.get("data_fingerprint"):
        raise KwsError(
            f"'{data.corpus.roots[0]}': the data changed since '{run.folder.path}' was trained, so that the splits may"
            " be others than in its training; train it again"
        )
    origin = {"root": str(data.corpus.roots[0]), "fingerprint": data.fingerprint}
    keywords = set(keywords_of(data.labels))
    source = StreamSource.of_split(data.corpus, keywords, split, origin, unknown_folders=_unknown_folders(experiment))
    return with_speech(source, speech, keywords, loop=True)


def _unknown_folders(experiment: Experiment) -> list[str]:
    return [folder.name for folder in experiment.task.unknown_folders]


def with_speech(
    data: StreamSource, speech: str | None, keywords: Collection[str], *, loop: bool = False
) -> StreamSource:
    """The source with running speech; see `open_source`.

    Raises:
        KwsError: there is no such speech.
    """
    return data if speech is None else replace(data, speech=_open_speech(speech, data, keywords, loop=loop))


def _open_speech(speech: str, data: StreamSource, keywords: Collection[str], *, loop: bool) -> Speech:
    rate = data.corpus.sample_rate
    if speech == SYNTHETIC:
        return SyntheticSpeech(keywords, data.split, rate)
    return RecordedSpeech(Path(speech), _words_in(Path(speech).expanduser()), rate, loop=loop)


def _words_in(folder: Path) -> pd.DataFrame:
    """The words that the folder's table lists: `path`, `time_ms`, `end_ms`, `word`; none if there is no table."""
    table = folder / TRUTH
    if not table.exists():
        return pd.DataFrame(columns=["path", "time_ms", "end_ms", "word"])
    words = read_truth(table)
    if FILE not in words:
        recordings = audio_files(folder)
        if len(recordings) != 1:
            raise KwsError(f"'{table}' needs a column {FILE}: which of the {len(recordings)} recordings a word is in")
        words[FILE] = recordings[0].relative_to(folder).as_posix()
    return words[words["word"] != SPEECH].rename(columns={FILE: "path"})


def _config(source: Sequence[str]) -> dict[str, Any]:
    if len(source) == 1 and "=" not in source[0]:
        folder = Path(source[0])
        if not folder.is_dir():
            raise no_run(source[0], f"{GIVE_RUN}, or overrides such as dataset=v0.02")
        return RunFolder(folder).read_config()
    return compose(list(source))
