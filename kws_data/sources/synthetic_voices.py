"""The speakers of the synthetic data set, and how they say a word.

A voice is an accent and a timbre of espeak-ng with its own pitch, tempo, vocal tract length, recording level and
microphone. All random values are drawn from (seed, stage, purpose), so that a word sounds the same whatever else is
synthesised, in any order and on any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr

from kws_data.draws import text_key
from kws_data.errors import KwsError
from kws_data.sources.speech_engine import ENGINE_RATE, MAX_RATE_WPM, MIN_RATE_WPM, SpeechEngine
from kws_data.splits import TESTING, TRAINING, VALIDATION, hash_split

# The engine's kinds of English but the one for the Shavian alphabet.
ACCENTS = (
    *("en", "en-029", "en-GB-scotland", "en-GB-x-gbclan", "en-GB-x-gbcwmd", "en-GB-x-rp"),
    *("en-US", "en-US-nyc"),
)

# The engine's voice variants without the whispering, robotic and dragging ones, and without near copies of another.
# Each was checked: a linear classifier of 30 words, trained on the other variants, gets at least 90 % of it right.
VARIANTS = (
    *("Alex", "Andrea", "Andy", "Annie", "AnxiousAndy", "Denis", "Diogo", "Gene", "Hugo", "Jacky", "Lee", "Mario"),
    *("Michael", "Mike", "Nguyen", "Reed", "Storm", "Tweaky", "adam", "antonio", "aunty", "belinda", "benjamin"),
    *("boris", "caleb", "david", "ed", "edward", "f1", "f2", "f3", "f4", "f5", "grandma", "grandpa", "gustave"),
    *("ian", "iven", "iven3", "john", "klatt3", "klatt5", "linda", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"),
    *("marcelo", "max", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro"),
    *("shelby", "steph", "travis", "victor"),
)

SPLIT_PERCENTAGE = 10.0  # of the voices in validation, and as many in testing

SHORTEST_S, LONGEST_S = 0.24, 0.90  # length of a word in its one-second clip
ACTIVE_DB = -40.0  # below the loudest frame: silence
_FRAME_S = 0.010
_QUIETEST_PEAK = 100  # of 32768; the engine returns less for text that it can't say


@dataclass(frozen=True)
class Voice:
    """A speaker.

    Attributes:
        speaker: 8 hex digits, which the file-name hash puts into the wanted split.
        engine_voice: the engine's name of accent and timbre.
        pitch, pitch_range, rate_wpm: as `SpeechEngine.speak` takes them.
        formant_scale: above 1 for a shorter vocal tract (all frequencies, and the tempo, times this).
        tilt: of the spectrum, −1 (darker) to 1 (brighter): a zero of the microphone.
        peak_db: usual peak level, dB of full scale.
        snr_db: of the word over the room's noise.
        noise_colour: −1 (bright) to 1 (dark), of that noise.
    """

    speaker: str
    engine_voice: str
    pitch: int
    pitch_range: int
    rate_wpm: int
    formant_scale: float
    tilt: float
    peak_db: float
    snr_db: float
    noise_colour: float


def random_stream(seed: int, stage: str, *what: int | str) -> np.random.Generator:
    """An independent generator for each `stage` and `what` (for example a clip's word, voice and number)."""
    keys = [int(text_key(part)) if isinstance(part, str) else part for part in (stage, *what)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *keys])))


def draw_voices(count: int, seed: int, stage: str = "voice") -> list[Voice]:
    """`count` speakers, of whom the file-name hash puts a tenth into validation and a tenth into testing.

    With three or more, each split has at least one. The splits are spread evenly over the list, so that any part of it
    is as balanced as its length allows. The voice at an index depends on the seed and the index only.
    """
    taken: set[str] = set()
    voices = []
    for index, split in enumerate(_spread_splits(count)):
        rng = random_stream(seed, f"{stage} id", index)
        speaker = ""
        while not speaker or speaker in taken or hash_split(speaker, SPLIT_PERCENTAGE, SPLIT_PERCENTAGE) != split:
            speaker = f"{rng.integers(2**32):08x}"
        taken.add(speaker)
        voices.append(_draw_voice(speaker, index, seed, stage))
    return voices


def say(engine: SpeechEngine, text: str, voice: Voice, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """One utterance without silence around it: [samples] float64 of peak 1, at most LONGEST_S and some margin long.

    It is said faster if it takes too long, and slower if it is too short to be understood.

    Raises:
        KwsError: the engine says nothing for `text`, or cannot say it within LONGEST_S.
    """
    rate = voice.rate_wpm * rng.uniform(0.9, 1.1)
    manner = _draw_manner(voice, rng)
    for _ in range(8):
        rate_wpm = int(np.clip(rate, MIN_RATE_WPM, MAX_RATE_WPM))
        speech = engine.speak(text, voice.engine_voice, rate_wpm=rate_wpm, **manner)
        if len(speech) == 0 or np.abs(speech.astype(np.int32)).max() < _QUIETEST_PEAK:
            raise KwsError(
                f"words: the speech engine has nothing to say for '{text}'; give a word that can be read aloud"
            )
        start, stop = active_span(speech, ENGINE_RATE)
        seconds = (stop - start) / (ENGINE_RATE * voice.formant_scale)
        if SHORTEST_S <= seconds <= LONGEST_S or rate != np.clip(rate, MIN_RATE_WPM, MAX_RATE_WPM):
            break
        # The tempo of a single word follows the rate less than in proportion, so overshoot.
        rate *= (seconds / np.clip(seconds, SHORTEST_S * 1.1, LONGEST_S * 0.9)) ** 1.3
    if seconds > LONGEST_S:
        raise KwsError(f"words: '{text}' does not fit into the clips' one second, spoken as fast as can be; shorten it")
    return _with_timbre(speech, start, stop, voice, sample_rate)


def read_aloud(engine: SpeechEngine, text: str, voice: Voice, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """A sentence, of any length, without silence around it: [samples] float64 of peak 1."""
    rate_wpm = int(np.clip(voice.rate_wpm * rng.uniform(0.8, 1.25), MIN_RATE_WPM, MAX_RATE_WPM))
    speech = engine.speak(text, voice.engine_voice, rate_wpm=rate_wpm, **_draw_manner(voice, rng))
    return _with_timbre(speech, *active_span(speech, ENGINE_RATE), voice, sample_rate)


def place(speech: np.ndarray, voice: Voice, rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Speech of a peak of at most 1 at a random time and level in low noise: [num_samples] int16; it is never cut."""
    peak = 10 ** (min(voice.peak_db + rng.uniform(-4, 4), -1.0) / 20)
    snr_db = voice.snr_db + rng.uniform(-3, 3)
    # Around the middle rather than anywhere, as in recordings cut to their loudest second.
    offset = round((num_samples - len(speech)) * rng.beta(2, 2))
    noise = np.convolve(rng.standard_normal(num_samples + 1), [1.0, voice.noise_colour], mode="valid")
    loudness = np.sqrt(np.mean(np.square(speech))) * peak
    # Never digital silence, but at least two quantisation steps.
    noise *= max(loudness * 10 ** (-snr_db / 20), 2 / 32768) / np.sqrt(np.mean(np.square(noise)))
    clip = noise
    clip[offset : offset + len(speech)] += speech * peak
    return np.round(np.clip(clip, -1.0, 1.0) * 32767).astype(np.int16)


def active_span(samples: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """(first sample, end) of the part within ACTIVE_DB of the loudest 10 ms. `samples`: [samples], not all zero."""
    frame = round(_FRAME_S * sample_rate)
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % frame))
    power = np.mean(np.square(padded.reshape(-1, frame)), axis=1)
    (active,) = np.nonzero(power > power.max() * 10 ** (ACTIVE_DB / 10))
    return int(active[0]) * frame, min(len(samples), int(active[-1] + 1) * frame)


def _draw_manner(voice: Voice, rng: np.random.Generator) -> dict[str, int]:
    """What differs between utterances of a voice, beside the tempo."""
    pitch = int(np.clip(voice.pitch + rng.integers(-6, 7), 0, 99))
    return {"pitch": pitch, "pitch_range": voice.pitch_range, "noise_seed": int(rng.integers(1, 2**31))}


def _with_timbre(speech: np.ndarray, start: int, stop: int, voice: Voice, sample_rate: int) -> np.ndarray:
    """The part of what the engine said, by this voice's vocal tract and microphone, faded in and out."""
    margin = round(0.01 * ENGINE_RATE)
    cut = speech[max(0, start - margin) : stop + margin].astype(np.float64)
    word = soxr.resample(cut, ENGINE_RATE * voice.formant_scale, sample_rate)
    word = np.convolve(word, [1.0, -voice.tilt])[: len(word)]
    fade = np.linspace(0.0, 1.0, round(0.005 * sample_rate))
    word[: len(fade)] *= fade
    word[-len(fade) :] *= fade[::-1]
    return word / np.abs(word).max()


def _spread_splits(count: int) -> list[str]:
    splits = [TRAINING] * count
    if count >= 3:
        share = max(1, int(count * SPLIT_PERCENTAGE / 100 + 0.5))
        for turn in range(share):
            splits[int((turn + 0.25) * count / share)] = VALIDATION
            splits[int((turn + 0.75) * count / share)] = TESTING
    return splits


def _draw_voice(speaker: str, index: int, seed: int, stage: str) -> Voice:
    rng = random_stream(seed, stage, index)
    accent = _deal(ACCENTS, index, seed, f"{stage} accent")
    variant = _deal(VARIANTS, index, seed, f"{stage} variant")
    return Voice(
        speaker=speaker,
        engine_voice=f"{accent}+{variant}",
        pitch=int(rng.integers(30, 71)),
        pitch_range=int(rng.integers(25, 76)),
        rate_wpm=int(rng.integers(115, 191)),
        formant_scale=float(np.exp(rng.uniform(-0.08, 0.08))),
        tilt=float(rng.uniform(-0.5, 0.5)),
        peak_db=float(rng.uniform(-16, -3)),
        snr_db=float(rng.uniform(20, 50)),
        noise_colour=float(rng.uniform(-0.5, 0.9)),
    )


def _deal(cards: tuple[str, ...], index: int, seed: int, stage: str) -> str:
    """Deal `cards` in random order, all of them before any is dealt again."""
    order = random_stream(seed, stage, index // len(cards)).permutation(len(cards))
    return cards[order[index % len(cards)]]
