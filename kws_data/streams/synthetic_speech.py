"""Running speech by the speech engine: made-up sentences in many voices, without the task's words."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator

import numpy as np

from kws_data.audio import to_int16
from kws_data.draws import text_order
from kws_data.sources.sentences import Sentences
from kws_data.sources.speech_engine import SpeechEngine
from kws_data.sources.synthetic_voices import SPLIT_PERCENTAGE, draw_voices, random_stream, read_aloud
from kws_data.splits import hash_split
from kws_data.streams.speech import TURN, Utterance
from kws_data.streams.speech_extent import speech_extent

_VOICES = 400  # of all splits: 40 of them each for validation and for testing
_PAUSE_MS = (150, 800)
_PEAK = 0.9


class SyntheticSpeech:
    """Sentences read by voices of one split; each voice reads TURN sentences, then another takes its turn.

    The sentence at an index, and how it is read, depend on the seed and the index only.

    Args:
        avoid: words that are not said.
        split: of the voices, by the hash of their names.
        sample_rate: Hz.

    Raises:
        KwsError: there is no speech engine, or no sentence without these words.
    """

    def __init__(self, avoid: Collection[str], split: str, sample_rate: int) -> None:
        self._engine, self._split, self._sample_rate = SpeechEngine(), split, sample_rate
        self._sentences = Sentences(avoid, self._engine)
        self.origin = {"speech": "synthetic", "engine": f"espeak-ng {self._engine.version}", "avoids": sorted(avoid)}

    def utterances(self, seed: int) -> Iterator[Utterance]:
        """Yield sentences without end."""
        key = seed % 2**64  # a generator's seed is not negative
        voices = {
            voice.speaker: voice
            for voice in draw_voices(_VOICES, key, "stream voice")
            if hash_split(voice.speaker, SPLIT_PERCENTAGE, SPLIT_PERCENTAGE) == self._split
        }
        names = list(voices)
        for number in itertools.count():
            again, turn = divmod(number // TURN, len(names))
            if number % (TURN * len(names)) == 0:
                order = text_order(names, seed, f"speech {again}")
            voice = voices[names[order[turn]]]
            rng = random_stream(key, "sentence", number)
            text = self._sentences.draw(rng)
            spoken = read_aloud(self._engine, text, voice, rng, self._sample_rate)
            samples = to_int16(spoken * _PEAK)
            begin, end = speech_extent(samples, self._sample_rate)
            rms = float(np.sqrt(np.mean(np.square(samples[begin:end], dtype=np.float64))))
            yield Utterance(samples, rms, text, voice.speaker, rng.uniform(*_PAUSE_MS), [])
