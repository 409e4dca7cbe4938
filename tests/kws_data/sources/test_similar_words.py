"""Words that sound like a word, and not the same."""

from __future__ import annotations

import pytest

from kws_data.sources.similar_words import similar_words
from kws_data.sources.speech_engine import SpeechEngine


@pytest.fixture(scope="module")
def engine() -> SpeechEngine:
    pytest.importorskip("espeakng_loader")
    return SpeechEngine()


def test_they_sound_like_the_word_and_one_half_is_real(engine: SpeechEngine) -> None:
    found = similar_words("stop", 20, ["up"], engine)
    assert len(set(found)) == 20
    assert found == similar_words("stop", 20, ["up"], engine)
    assert "shop" in found[:10]
    assert {"top", "step"} & set(found[10:])


def test_what_sounds_the_same_as_the_word_or_another_is_none_of_them(engine: SpeechEngine) -> None:
    found = similar_words("write", 60, ["light", "no"], engine)
    assert {"write", "right", "rite", "light", "know"}.isdisjoint(found)


@pytest.mark.parametrize("word", ["hey computer", "öl", "go"])
def test_any_word_has_some(engine: SpeechEngine, word: str) -> None:
    assert len(similar_words(word, 4, [], engine)) == 4
