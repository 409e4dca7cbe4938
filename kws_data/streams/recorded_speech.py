"""Running speech of a folder of recordings, cut into utterances where they are quietest."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kws_data.audio import AUDIO_SUFFIXES
from kws_data.catalog import scan_below, set_aside, usable
from kws_data.clip_format import DEFAULT_RULES, LONGEST_STREAM_S
from kws_data.draws import text_order
from kws_data.errors import KwsError
from kws_data.folders import find_folder
from kws_data.store import open_store
from kws_data.streams.speech import KnownWord, Utterance

log = logging.getLogger(__name__)

_SHORTEST_S, _LONGEST_S = 3.0, 8.0  # of an utterance that is cut from a longer recording
_FRAME_S = 0.02
_BELOW_LOUDEST_DB = 30.0  # quieter frames are pauses and don't count for the level
_PAUSE_MS = 500.0  # between recordings
_KEY = "--speech"


class RecordedSpeech:
    """All recordings below a folder in a drawn order, each from its start to its end.

    Recordings are decoded once, into the cache, as clips are. Files that can't be used are listed and left out.

    Args:
        folder: audio files of any length, rate and format, at any depth; the folder above a file names its speaker.
        words: those that are said in them: `path` (below the folder), `time_ms`, `end_ms`, `word`.
        sample_rate: Hz.
        loop: begin again after the last recording.

    Raises:
        KwsError: there is no such folder, nothing in it can be used, or a word belongs to no recording.
    """

    def __init__(self, folder: Path, words: pd.DataFrame, sample_rate: int, *, loop: bool) -> None:
        self.folder = find_folder(folder, _KEY)
        self._rate, self._loop = sample_rate, loop
        found = scan_below(self.folder, _KEY)
        found = found[found["path"].str.lower().str.endswith(tuple(AUDIO_SUFFIXES))]
        rules = replace(DEFAULT_RULES, max_seconds=LONGEST_STREAM_S)
        store = open_store(self.folder, usable(found), sample_rate, rules)
        self._pcm = store.pcm
        packed = store.clips.assign(error=store.clips["error"].mask(store.clips["muted"], "it is silent"))
        self._recordings = usable(packed).set_index("path")
        bad = pd.concat([set_aside(found), set_aside(packed)])
        for row in bad.itertuples():
            log.warning("%s: '%s' is left out: %s", _KEY, self.folder / row.path, row.error)
        if self._recordings.empty:
            raise KwsError(f"{_KEY}: '{self.folder}' holds no usable recording; give a folder of audio files")
        if len(lost := sorted(set(words["path"]) - set(found["path"]))):
            raise KwsError(f"{_KEY}: the table of words names '{lost[0]}', which is no recording in '{self.folder}'")
        self._words = dict(list(words.groupby("path")))
        minutes = round(self._recordings["length"].sum() / sample_rate / 60, 2)
        self.origin = {
            "speech": str(self.folder), "recordings": len(self._recordings), "minutes": minutes, "set_aside": len(bad),
        }  # fmt: skip

    def utterances(self, seed: int) -> Iterator[Utterance]:
        """Yield all recordings, piece by piece."""
        names = self._recordings.index.tolist()
        for turn in itertools.count() if self._loop else range(1):
            for index in text_order(names, seed, f"speech {turn}"):
                yield from self._pieces(names[index])

    def _pieces(self, path: str) -> Iterator[Utterance]:
        recording = self._recordings.loc[path]
        samples = self._pcm[recording["offset"] : recording["offset"] + recording["length"]]
        words = self._samples_of(path)
        power = _frame_power(samples, round(_FRAME_S * self._rate))
        rms = float(np.sqrt(power[power >= power.max() * 10 ** (-_BELOW_LOUDEST_DB / 10)].mean()))
        speaker = path.rpartition("/")[0]
        cuts = self._cuts(power, len(samples), words)
        for start, end in itertools.pairwise([0, *cuts, len(samples)]):
            own = [
                KnownWord(max(word.start, start) - start, min(word.end, end) - start, word.word)
                for word in words
                if start <= (word.start + word.end) // 2 < end
            ]
            clip = f"{path}@{start / self._rate:.2f}"
            yield Utterance(samples[start:end], rms, clip, speaker, 0.0 if start else _PAUSE_MS, own)

    def _cuts(self, power: np.ndarray, length: int, words: list[KnownWord]) -> list[int]:
        """Where a recording is cut: in the quietest frame that is in no word, while more than _LONGEST_S is left."""
        frame = round(_FRAME_S * self._rate)
        free = power.copy()
        for word in words:
            free[word.start // frame : word.end // frame + 1] = np.inf
        shortest, longest = (round(seconds / _FRAME_S) for seconds in (_SHORTEST_S, _LONGEST_S))
        cuts, at = [], 0
        while length - at * frame > longest * frame:
            at += shortest + int(free[at + shortest : at + longest].argmin())
            cuts.append(at * frame + frame // 2)
        return cuts

    def _samples_of(self, path: str) -> list[KnownWord]:
        if path not in self._words:
            return []
        rows = self._words[path]
        times = (rows[["time_ms", "end_ms"]] * self._rate / 1000).round().astype("int64")
        return [KnownWord(*row) for row in zip(times["time_ms"], times["end_ms"], rows["word"], strict=True)]


def _frame_power(samples: np.ndarray, frame: int) -> np.ndarray:
    """[frames] float64, the mean square of each; a shorter rest at the end is left out, unless it is all there is."""
    count = len(samples) // frame
    frames = samples[: count * frame].reshape(count, frame) if count else samples.reshape(1, -1)
    return np.einsum("ij,ij->i", frames, frames, dtype=np.float64) / frames.shape[1]
