"""What a stream holds, and when: words, running speech, or both.

Each draw is a function of the seed and of an item's number. An item is a word (or the same word twice), inside running
speech or not, or a turn of running speech; a gap precedes it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kws_data.audio import INT16_SCALE
from kws_data.checks import check_choice, check_number, check_range, check_whole, require
from kws_data.draws import Draws, text_order
from kws_data.errors import KwsError
from kws_data.streams.channels import CHANNELS, CLEAN, send
from kws_data.streams.rooms import NO_ROOM, open_rooms
from kws_data.streams.source import StreamSource
from kws_data.streams.speech import SPEECH, TURN, KnownWord, Utterance
from kws_data.streams.speech_extent import speech_extent

SPEECH_DB = -26.0  # RMS of the loudest words, of full scale: the usual level of speech (ITU-T P.56), far from clipping
LEVEL_S = 20.0  # in which the level goes from one drawn value to the next
NOTHING = -1  # no clip, or no utterance
MINUTES = (0.05, 24 * 60.0)  # the shortest and the longest; a WAV file holds no more than 4 GB
_SHORTEST_WORD_S = 0.1  # with its gap; limits the number of draws
_MARGIN_S = 0.05  # what is left around the speech of a clip that follows another without a gap


@dataclass(frozen=True)
class StreamSettings:
    """How a stream is made.

    Attributes:
        minutes: its length.
        snr_db: (low, high), the level of each word's speech above the noise, uniform.
        gap_ms: (low, high), from the end of an item to the start of the next, uniform.
        unknown_percentage: percentage of words outside the task.
        seed: the seed of all draws.
        level_db: (low, high), RMS of the loudest words, of full scale; a value is drawn every LEVEL_S, and the level of
            speech and noise alike goes from one to the next.
        speech_percentage: percentage of items that are running speech, if there is any.
        inside_percentage: percentage of words that have running speech directly before and behind them.
        repeat_percentage: percentage of words that are said twice in a row, if possible in two clips of one speaker.
        rooms: kinds of rooms, of which one is drawn for each item; see Rooms.
        channels: of CHANNELS, of which one is drawn for each item.

    Raises:
        ValueError: naming the attribute.
    """

    minutes: float = 30.0
    snr_db: tuple[float, float] = (15.0, 15.0)
    gap_ms: tuple[float, float] = (1000.0, 3000.0)
    unknown_percentage: float = 30.0
    seed: int = 0
    level_db: tuple[float, float] = (SPEECH_DB, SPEECH_DB)
    speech_percentage: float = 100.0
    inside_percentage: float = 0.0
    repeat_percentage: float = 0.0
    rooms: tuple[str, ...] = (NO_ROOM,)
    channels: tuple[str, ...] = (CLEAN,)

    def __post_init__(self) -> None:
        check_number("minutes", self.minutes, *MINUTES)
        check_range("snr_db", self.snr_db, -40, 50)  # 16 bits hold no noise much quieter
        check_range("gap_ms", self.gap_ms, 0, 600_000)
        check_whole("seed", self.seed, -(2**63))
        check_range("level_db", self.level_db, -70, -5)
        for name in ("unknown_percentage", "speech_percentage", "inside_percentage", "repeat_percentage"):
            check_number(name, getattr(self, name), 0, 100)
        require(bool(self.rooms), "rooms", "at least one", self.rooms)
        require(bool(self.channels), "channels", "at least one", self.channels)
        for channel in self.channels:
            check_choice("channels", channel, CHANNELS)


def plan_words(data: StreamSource, settings: StreamSettings) -> pd.DataFrame:
    """Draw items, gaps and levels until the stream is full.

    Returns:
        a row per word and utterance, in order: `row` (of the corpus's clips) or NOTHING, `utterance` (its number) or
        NOTHING, `first` (sample of that which is used), `clip`, `word`, `keyword`, `speaker`, `start` and `length`
        (samples), `gain`, `snr_db`, `time_ms` and `end_ms` (of the speech in it), `room`, `room_number`, `channel`,
        `level_db` (of the speech, of full scale). A word that is known to be said in an utterance has a row without a
        sound of its own.

    Raises:
        KwsError: not even one word fits in, or running speech is missing or used up.
    """
    if data.speech is None and settings.inside_percentage:
        raise KwsError("--inside-percentage needs running speech: give --speech")
    rate, total = data.corpus.sample_rate, round(settings.minutes * 60 * data.corpus.sample_rate)
    most = math.ceil(total / rate / _SHORTEST_WORD_S)
    items = Draws(settings.seed, 0, np.arange(most))
    rooms = open_rooms(settings.rooms, rate)
    room_numbers, channels = rooms.draw(items), items.integers("channel", len(settings.channels))
    gaps, snrs = _between(items, "gap", settings.gap_ms), _between(items, "snr", settings.snr_db)
    keywords = set(data.corpus.clips["word"][data.keywords])
    rows: list[dict[str, Any]] = []
    position = 0
    for number, sound in _sounds(data, settings, items):
        pause_ms = gaps[number] if sound.pause_ms is None else sound.pause_ms
        start = position + round(pause_ms * rate / 1000)
        position = start + len(sound.samples)
        if position > total:
            break
        snr_db, channel, room = round(float(snrs[number]), 2), settings.channels[channels[number]], room_numbers[number]
        begin, end = speech_extent(sound.samples, rate)
        speech = sound.samples[begin:end]
        gain = 10 ** ((noise_db(settings) + snr_db) / 20) * INT16_SCALE / (sound.rms or _rms(speech) or 1.0)
        dry = sound.samples.astype(np.float64)
        heard = send(channel, rooms.reverberate(room, dry), rate)
        if heard is not dry:
            gain *= _rms(speech) / (_rms(heard[begin:end]) or 1.0)
        middle_s = (start + (begin + end) / 2) / rate
        common = {
            "clip": sound.clip, "speaker": sound.speaker, "gain": gain, "snr_db": snr_db, "room": rooms.name(room),
            "room_number": room, "channel": channel,
            "level_db": round(noise_db(settings) + snr_db + float(level_changes_db(settings, middle_s)), 2),
        }  # fmt: skip
        rows.append(
            {
                **common, "row": sound.row, "utterance": sound.utterance, "first": sound.first, "word": sound.word,
                "keyword": sound.word in keywords, "start": start, "length": len(sound.samples),
                "time_ms": round(1000 * (start + begin) / rate), "end_ms": round(1000 * (start + end) / rate),
            }
        )  # fmt: skip
        rows.extend(
            {
                **common, "row": NOTHING, "utterance": NOTHING, "first": 0, "word": known.word,
                "keyword": known.word in keywords, "start": start + known.start, "length": known.end - known.start,
                "time_ms": round(1000 * (start + known.start) / rate),
                "end_ms": round(1000 * (start + known.end) / rate),
            }
            for known in sound.words
        )  # fmt: skip
    else:
        raise KwsError(
            f"--speech: the recordings last for {math.floor(100 * position / rate / 60) / 100:g} minutes of the stream;"
            " give --minutes so many, or use them again with --loop"
        )
    if not rows:
        raise KwsError(f"--minutes: no word fits into {settings.minutes:g} minutes with gaps of {settings.gap_ms} ms")
    return pd.DataFrame(rows)


def noise_db(settings: StreamSettings) -> float:
    """RMS of the noise in dB of full scale, so that the loudest words are at SPEECH_DB, before the level changes."""
    return SPEECH_DB - settings.snr_db[1]


def level_changes_db(settings: StreamSettings, seconds: np.ndarray | float) -> np.ndarray:
    """What is added to the level of speech and noise at these times."""
    low, high = settings.level_db
    points = np.arange(math.ceil(settings.minutes * 60 / LEVEL_S) + 1)
    drawn = low + Draws(settings.seed, 0, points).uniform("level")[:, 0] * (high - low)
    return np.interp(np.asarray(seconds) / LEVEL_S, points, drawn - SPEECH_DB)


class _Sound(NamedTuple):
    """A clip or an utterance, or the part of it that is used: `samples`, from its sample `first` on.

    `rms` is that of its speech, None if not known; `pause_ms` None means the item's gap.
    """

    samples: np.ndarray
    clip: str
    word: str
    speaker: str
    rms: float | None
    pause_ms: float | None
    row: int = NOTHING
    utterance: int = NOTHING
    first: int = 0
    words: Sequence[KnownWord] = ()

    def trimmed(self, rate: int) -> _Sound:
        """Without what precedes and follows the speech; directly behind the last sound."""
        margin = round(_MARGIN_S * rate)
        begin, end = speech_extent(self.samples, rate)
        first = max(0, begin - margin)
        samples = self.samples[first : end + margin]
        words = [
            KnownWord(max(0, start - first), min(end - first, len(samples)), word)
            for start, end, word in self.words
            if start < first + len(samples) and end > first
        ]
        return self._replace(samples=samples, first=self.first + first, pause_ms=0.0, words=words)


def _sounds(data: StreamSource, settings: StreamSettings, items: Draws) -> Iterator[tuple[int, _Sound]]:
    """(number of the item, a sound of it), in order; ends where running speech ends."""
    rate, corpus = data.corpus.sample_rate, data.corpus
    keywords, unknown = (_endless(data, rows, settings.seed) for rows in (data.keywords, data.unknown))
    utterances = _utterances(data, settings)
    is_unknown, is_speech, inside, repeated = (
        items.uniform(name)[:, 0] * 100 < (percentage if possible else 0)
        for name, percentage, possible in (
            ("unknown", settings.unknown_percentage, len(data.unknown)),
            ("speech", settings.speech_percentage, data.speech),
            ("inside", settings.inside_percentage, data.speech),
            ("repeat", settings.repeat_percentage, True),
        )
    )
    chances = items.uniform("twin")[:, 0]
    clips = corpus.clips

    def of_clip(row: int) -> _Sound:
        clip = clips.loc[row]
        return _Sound(data.samples(row), clip["path"], clip["word"], clip["speaker"], None, None, row)

    for number in range(len(items.ids)):
        if is_speech[number]:
            sounds = list(itertools.islice(utterances, TURN))
            yield from ((number, sound if turn else sound._replace(pause_ms=None)) for turn, sound in enumerate(sounds))
            if len(sounds) < TURN:
                return
            continue
        row = next(unknown if is_unknown[number] else keywords)
        sounds = [of_clip(row)]
        if repeated[number]:
            sounds.append(of_clip(data.twin(row, chances[number])))
        if inside[number]:
            around = list(itertools.islice(utterances, 2))
            if len(around) < 2:
                return
            sounds = [around[0], *sounds, around[1]]
        if len(sounds) > 1:
            sounds = [sound.trimmed(rate) for sound in sounds]
        yield number, sounds[0]._replace(pause_ms=None)
        for sound in sounds[1:]:
            yield number, sound


def _utterances(data: StreamSource, settings: StreamSettings) -> Iterator[_Sound]:
    if data.speech is not None:
        for number, spoken in enumerate(data.speech.utterances(settings.seed)):
            yield _of_utterance(number, spoken)


def _of_utterance(number: int, spoken: Utterance) -> _Sound:
    return _Sound(
        spoken.samples, spoken.clip, SPEECH, spoken.speaker, spoken.rms, spoken.pause_ms, utterance=number,
        words=spoken.words,
    )  # fmt: skip


def _between(items: Draws, name: str, bounds: tuple[float, float]) -> np.ndarray:
    low, high = bounds
    return low + items.uniform(name)[:, 0] * (high - low)


def _rms(samples: np.ndarray) -> float:
    return math.sqrt(np.mean(np.square(samples, dtype=np.float64)))


def _endless(data: StreamSource, rows: np.ndarray, seed: int) -> Iterator[int]:
    """The rows in a drawn order, then in another, and so on: no row repeats before all have been used."""
    clips = data.corpus.clips.loc[rows]
    names = (clips["path"] + "@" + clips["offset"].astype(str)).tolist()
    for turn in itertools.count():
        yield from rows[text_order(names, seed, f"stream {turn}")]
