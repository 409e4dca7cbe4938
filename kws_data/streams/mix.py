"""The samples of a stream: planned words and running speech over background noise.

As in the original's generate_streaming_test_wav.py, the noise consists of segments that fade into each other. Here the
speech has a chosen level above the noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from kws_data.audio import INT16_SCALE, to_int16
from kws_data.draws import Draws
from kws_data.streams.channels import send
from kws_data.streams.plan import NOTHING, StreamSettings, level_changes_db, noise_db
from kws_data.streams.rooms import open_rooms
from kws_data.streams.source import StreamSource

SEGMENT_S, FADE_S = 5.0, 0.5  # length of a noise segment, and of the fade into the next
_RAMP_S = 0.03  # clips fade in and out for this long, as the original's 500 samples


def render(data: StreamSource, plan: pd.DataFrame, settings: StreamSettings) -> Iterator[np.ndarray]:
    """Yield the stream in order, one noise segment at a time: [samples] int16.

    Args:
        data: clips and noise.
        plan: see `plan_words`.
        settings: those of the plan.
    """
    rate = data.corpus.sample_rate
    total = round(settings.minutes * 60 * rate)
    size, fade = round(SEGMENT_S * rate), round(FADE_S * rate)
    # Quarter waves, whose squares sum to 1: different noises keep their level where they meet.
    rise = np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
    fading = np.zeros(fade)
    sounds = _sounds(data, plan, settings)
    upcoming = next(sounds, None)
    heard: list[tuple[int, np.ndarray]] = []  # what has begun and not ended
    for number in range(math.ceil(total / size)):
        noise = _noise(data, settings, number, size + fade)
        block = noise[:size].copy()
        block[:fade] = block[:fade] * (rise if number else 1.0) + fading
        fading = noise[size:] * rise[::-1]
        first, after = number * size, (number + 1) * size
        while upcoming is not None and upcoming[0] < after:
            heard.append(upcoming)
            upcoming = next(sounds, None)
        for start, sound in heard:
            begin, end = max(start, first), min(start + len(sound), after)
            block[begin - first : end - first] += sound[begin - start : end - start]
        heard = [(start, sound) for start, sound in heard if start + len(sound) > after]
        block *= 10 ** (level_changes_db(settings, np.arange(first, after) / rate) / 20)
        yield to_int16(block[: total - first])


def _sounds(data: StreamSource, plan: pd.DataFrame, settings: StreamSettings) -> Iterator[tuple[int, np.ndarray]]:
    """(its first sample in the stream, [samples] float64) of each clip and utterance, in order."""
    rate = data.corpus.sample_rate
    rooms = open_rooms(settings.rooms, rate)
    utterances = data.speech.utterances(settings.seed) if data.speech is not None else iter(())
    for part in plan.itertuples():
        if part.utterance != NOTHING:
            samples = next(utterances).samples
        elif part.row != NOTHING:
            samples = data.samples(part.row)
        else:
            continue
        sound = _faded(samples[part.first : part.first + part.length] * (part.gain / INT16_SCALE), rate)
        yield part.start, send(part.channel, rooms.reverberate(part.room_number, sound), rate)


def _noise(data: StreamSource, settings: StreamSettings, number: int, length: int) -> np.ndarray:
    """[length] float64: a window of the split's noise at the stream's level; digital silence stays silent."""
    draws = Draws(settings.seed, 0, np.array([number]))
    noise = data.corpus.noise.windows(data.split, draws, "stream noise", np.array([length]))[0] / INT16_SCALE
    rms = math.sqrt(np.mean(noise**2))
    return noise * (10 ** (noise_db(settings) / 20) / rms) if rms else noise


def _faded(word: np.ndarray, rate: int) -> np.ndarray:
    ramp = min(round(_RAMP_S * rate), len(word) // 2)
    slope = np.arange(ramp) / max(ramp, 1)
    word[:ramp] *= slope
    word[len(word) - ramp :] *= slope[::-1]
    return word
