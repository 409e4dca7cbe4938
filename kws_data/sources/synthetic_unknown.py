"""Synthetic speech beside a data set, so that a network hears more that is no keyword (`task.synthetic_unknown`).

Where only other words are synthetic, a network learns to hear the synthesiser, not the word: measured, it then misses
more real words. So the same voices say the keywords too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kws_data.audio import write_wav
from kws_data.catalog import UNKNOWN
from kws_data.checks import check_whole
from kws_data.draws import text_order
from kws_data.errors import KwsError
from kws_data.sources.datasets import Dataset, Synthetic
from kws_data.sources.words import V002_WORDS
from kws_data.storage.atomic import lock_for, replace_dir, replace_file
from kws_data.storage.cache import datasets_dir

log = logging.getLogger(__name__)

# Part of the name of cached folders: increase it when the same arguments give other bytes.
_VERSION = 2
_SAMPLE_RATE = 16_000
_LATEST_S = 0.5  # where the first window of a sentence begins
_QUIETEST_DB = -30.0  # of a window, below its sentence


@dataclass(frozen=True)
class SyntheticUnknown:
    """How much synthetic speech there is.

    Attributes:
        words: other words: those of Speech Commands first, then of everyday English.
        confusable: words that sound like the keywords, in all: one half real ones, the other made up.
        clips: of all these words.
        keyword_clips: of each keyword; None: as many as of each other word.
        talk: one-second windows of running speech, of the unknown class.
        voices: of the words; a tenth is left out for validation, a tenth for testing, as in the synthetic data set.
        seed: another seed, other words, voices and sentences.

    Raises:
        ValueError: a number is out of range, or there are clips and no words, or words and too few clips.
    """

    words: int = 300
    confusable: int = 100
    clips: int = 4000
    keyword_clips: int | None = None
    talk: int = 0
    voices: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("words", "confusable", "clips", "talk", "seed"):
            check_whole(name, getattr(self, name), 0)
        check_whole("voices", self.voices, 1)
        if self.keyword_clips is not None:
            check_whole("keyword_clips", self.keyword_clips, 0)
        if (self.words + self.confusable > 0) != (self.clips > 0) or 0 < self.clips < self.words + self.confusable:
            raise ValueError(
                "clips must be at least words + confusable, or 0 if both are 0, got"
                f" words={self.words}, confusable={self.confusable}, clips={self.clips}"
            )

    def data_sets(self, keywords: Sequence[str]) -> list[Dataset]:
        """What is to be made: other words, the keywords, and running speech without them."""
        found: list[Dataset] = []
        each = math.ceil(self.clips / max(1, self.words + self.confusable))
        if self.clips:
            found.append(OtherWords(keywords, self.words, self.confusable, each, self.voices, self.seed))
        if of_keyword := each if self.keyword_clips is None else self.keyword_clips:
            found.append(Synthetic([word.replace("_", " ") for word in keywords], of_keyword, self.voices, self.seed))
        if self.talk:
            found.append(Talk(keywords, self.talk, self.seed))
        return found


class _Made:
    """What a `Dataset` is, made on this machine."""

    speaker_pattern: str | None = None
    layout = "words"
    licence: str | None = Synthetic.licence
    citation: str | None = None


class OtherWords(_Made):
    """Words that are no keywords, spoken by text-to-speech; see SyntheticUnknown."""

    def __init__(
        self, keywords: Sequence[str], words: int, confusable: int, clips_per_word: int, voices: int, seed: int
    ) -> None:
        self.keywords, self.words, self.confusable = list(keywords), words, confusable
        self.clips_per_word, self.voices, self.seed = clips_per_word, voices, seed

    def locate(self) -> Path:
        """The folder in the cache, of the words that are chosen, once."""
        file = datasets_dir() / f"{_name('words', self.keywords, self.words, self.confusable, self.seed)}.json"
        if not file.is_file():
            with replace_file(file) as temporary:
                temporary.write_text(json.dumps(self.chosen()) + "\n", encoding="utf-8")
        return Synthetic(
            json.loads(file.read_text(encoding="utf-8")), self.clips_per_word, self.voices, self.seed
        ).locate()

    def chosen(self) -> list[str]:
        """The words, without any that sounds like a keyword in some accent.

        Raises:
            KwsError: there is no speech engine, or it is asked for more words than there are.
        """
        from kws_data.sources.sentences import WORDS, sound_alike, tokens
        from kws_data.sources.similar_words import similar_words
        from kws_data.sources.speech_engine import SpeechEngine

        engine = SpeechEngine()
        spoken = [word.replace("_", " ").casefold() for word in self.keywords]
        similar: dict[str, None] = {}
        for number, word in enumerate(spoken):
            most = math.ceil((self.confusable - len(similar)) / (len(spoken) - number))
            similar |= dict.fromkeys(similar_words(word, most, [*spoken, *similar], engine))
        everyday = {*V002_WORDS, *(token for text in WORDS.values() for token in tokens(text))}
        others = sorted(everyday - {*similar, *spoken} - sound_alike(spoken, sorted(everyday), engine))
        if len(others) < self.words:
            raise KwsError(f"task.synthetic_unknown: words must be at most {len(others)}, got {self.words}")
        drawn = [others[index] for index in text_order(others, self.seed, "other words")]
        # First what a data set is likely to have itself: there `trainer.word_loss` has people and voices say one word
        return [*similar, *sorted(drawn, key=lambda word: word not in V002_WORDS)[: self.words]]


class Talk(_Made):
    """Windows of made-up sentences without the keywords, `_unknown_/<speaker>_nohash_<n>.wav`; see SyntheticUnknown."""

    def __init__(self, avoid: Sequence[str], clips: int, seed: int) -> None:
        self.avoid, self.clips, self.seed = list(avoid), clips, seed

    def locate(self) -> Path:
        """The folder in the cache, named by a hash of the arguments; made first if it does not exist."""
        folder = datasets_dir() / _name("talk", self.avoid, self.clips, self.seed)
        if not folder.is_dir():
            with lock_for(folder):
                if not folder.is_dir():
                    log.info("making running speech, once: %d windows", self.clips)
                    with replace_dir(folder) as temporary:
                        self._write(temporary / UNKNOWN)
        return folder

    def _write(self, folder: Path) -> None:
        from kws_data.sources.sentences import Sentences
        from kws_data.sources.speech_engine import SpeechEngine
        from kws_data.sources.synthetic_voices import draw_voices, place, random_stream, read_aloud

        folder.mkdir()
        engine = SpeechEngine()
        sentences, voices = Sentences(self.avoid, engine), draw_voices(self.clips, self.seed, "talk voice")
        written = number = 0
        while written < self.clips:
            rng, voice = random_stream(self.seed, "talk", number), voices[number % len(voices)]
            spoken = read_aloud(engine, sentences.draw(rng), voice, rng, _SAMPLE_RATE)
            first = int(rng.integers(round(_LATEST_S * _SAMPLE_RATE)))
            quietest = np.sqrt(np.mean(np.square(spoken))) * 10 ** (_QUIETEST_DB / 20)
            for start in range(first, len(spoken) - _SAMPLE_RATE + 1, _SAMPLE_RATE):
                window = spoken[start : start + _SAMPLE_RATE]
                if written < self.clips and np.sqrt(np.mean(np.square(window))) > quietest:
                    path = folder / f"{voice.speaker}_nohash_{written}.wav"
                    write_wav(path, place(window, voice, rng, _SAMPLE_RATE), _SAMPLE_RATE)
                    written += 1
            number += 1


def _name(kind: str, *made_from: Any) -> str:
    return f"{kind}-{hashlib.sha256(json.dumps([_VERSION, *made_from]).encode()).hexdigest()[:12]}"
