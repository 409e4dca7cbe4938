"""Words that sound like a word, for a network that has to tell them apart: real ones, and some that nobody says."""

from __future__ import annotations

from collections.abc import Collection
from difflib import SequenceMatcher
from string import ascii_lowercase

from kws_data.draws import text_order
from kws_data.sources.sentences import TEMPLATES, WORDS, sound_alike, sounds, tokens
from kws_data.sources.speech_engine import SpeechEngine
from kws_data.sources.words import V002_WORDS

_LANGUAGE = "en-US"


def similar_words(word: str, count: int, avoid: Collection[str], engine: SpeechEngine) -> list[str]:
    """Words whose phonemes are most like those of `word`.

    One half is of the sentences' words and those of Speech Commands; the other is `word` with one letter changed or
    left out. What sounds the same as `word`, or as one to avoid, is none of them.
    """
    texts = (*TEMPLATES, *" ".join(WORDS.values()).split())
    real = sorted({*V002_WORDS, *(token for text in texts for token in tokens(text))})
    letters = word.casefold()
    changed = {
        letters[:index] + letter + letters[index + 1 :]
        for index in range(len(letters))
        for letter in ("", *ascii_lowercase)
        if letters[index].isalpha()
    }
    invented = sorted(text for text in changed - {*real} if len(text) > 1)
    invented = [invented[index] for index in text_order(invented, 0, "similar words")]  # many are equally similar
    same = sound_alike([word, *avoid], [*real, *invented], engine)
    target, *others = sounds([word, *real, *invented], _LANGUAGE, engine)
    sound = dict(zip([*real, *invented], others, strict=True))

    def unlikeness(text: str) -> float:
        return -SequenceMatcher(None, target, sound[text], autojunk=False).ratio()

    chosen: dict[str, str] = {}  # by sound: 'stohp' and 'stoap' are one
    for words, most in ((real, count // 2), (invented, count)):
        for text in sorted((text for text in words if text not in same), key=unlikeness):
            if len(chosen) < most:
                chosen.setdefault(sound[text], text)
    return list(chosen.values())
