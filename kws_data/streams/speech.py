"""Running speech, for streams: what all kinds of it have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from kws_data.folders import find_folder

SYNTHETIC = "synthetic"  # where a folder of recordings could be given
SPEECH = "_speech_"  # the word of a stretch of running speech in the table of a stream
TURN = 4  # utterances of one speaker before there is a gap


class KnownWord(NamedTuple):
    """A word that is known to be said in an utterance; samples from its start."""

    start: int
    end: int
    word: str


class Utterance(NamedTuple):
    """A stretch of running speech.

    Attributes:
        samples: [samples] int16.
        rms: the level of its speech; that of its recording, where it is part of one.
        clip: what is said, or the file and the second in it.
        speaker: a name.
        pause_ms: of silence before it, if it does not follow a gap.
        words: those that are known to be said in it.
    """

    samples: np.ndarray
    rms: float
    clip: str
    speaker: str
    pause_ms: float
    words: list[KnownWord]


class Speech(Protocol):
    """A source of running speech.

    Attributes:
        origin: where it is from, for the stream's record.
    """

    origin: dict[str, Any]

    def utterances(self, seed: int) -> Iterator[Utterance]:
        """Yield utterances in order, the same ones for the same seed."""


def check_speech(speech: str | None, key: str) -> None:
    """Refuse running speech that is not there, before anything slow.

    Args:
        speech: SYNTHETIC, a folder, or None.
        key: the option or key that it is given by.

    Raises:
        KwsError: there is no such folder, or no speech engine.
    """
    if speech == SYNTHETIC:
        from kws_data.sources.speech_engine import SpeechEngine

        SpeechEngine()
    elif speech is not None:
        find_folder(Path(speech), key, f"; give a folder of recordings, or '{SYNTHETIC}'")
