"""Sentences in which no keyword is said."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kws_data.errors import KwsError
from kws_data.sources.sentences import Sentences
from kws_data.sources.words import V002_WORDS

pytest.importorskip("espeakng_loader")
from kws_data.sources.speech_engine import SpeechEngine


@pytest.fixture(scope="module")
def engine() -> SpeechEngine:
    return SpeechEngine()


def test_no_sentence_holds_a_keyword_as_a_word_or_at_its_edges(engine: SpeechEngine) -> None:
    sentences = Sentences(V002_WORDS, engine)
    generator = np.random.default_rng(0)
    texts = [sentences.draw(generator) for _ in range(2000)]
    said = {word for text in texts for word in re.findall(r"[\w']+", text.casefold())}
    assert len(said) > 300
    assert not [(word, key) for word in said for key in V002_WORDS if word.startswith(key) or word.endswith(key)]
    assert len(set(texts)) > 1900


def test_words_that_sound_like_a_keyword_are_left_out(engine: SpeechEngine) -> None:
    everything = Sentences([], engine)
    assert "bear" in everything.words["animal"]
    assert "duck" in everything.words["animal"]
    without = Sentences(["bare", "Duct tape"], engine)
    assert "bear" not in without.words["animal"]
    assert "duck" in without.words["animal"]
    assert "worked" in everything.words["waited"]
    assert "worked" not in Sentences(["work"], engine).words["waited"]


def test_a_keyword_in_every_sentence_is_refused(engine: SpeechEngine) -> None:
    with pytest.raises(KwsError, match="no sentence can be made without the words a, e, i, o, s, t"):
        Sentences(["a", "e", "i", "o", "t", "s"], engine)


def test_phonemes_depend_on_the_accent(engine: SpeechEngine) -> None:
    american, british = (engine.phonemes(["know", "tomato, bath"], accent) for accent in ("en-US", "en"))
    assert american[0].translate(str.maketrans("", "", "ˈˌː")) == "noʊ"
    assert american[1] != british[1]
    assert len(american[1].split()) == 2
    with pytest.raises(KwsError, match="no voice 'xx-none'"):
        engine.phonemes(["know"], "xx-none")
