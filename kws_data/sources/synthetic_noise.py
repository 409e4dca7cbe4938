"""The six background noises of the synthetic data set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from kws_data.sources.speech_engine import SpeechEngine
from kws_data.sources.synthetic_voices import draw_voices, random_stream, say
from kws_data.sources.words import CORE_WORDS, V002_WORDS

RMS = 0.05  # −26 dB of full scale: with the usual `background_volume` of at most 0.1, faint to clearly audible
PEAK = 0.9

_LOWEST_HZ = 20.0  # lower frequencies are inaudible, and brown noise would have most of its power there
_TALKERS, _WORDS_PER_TALKER = 12, 16


def white_noise(num_samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Equal power in every hertz. [num_samples] float64."""
    del sample_rate
    return rng.standard_normal(num_samples)


def pink_noise(num_samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Power falling with 1/f. [num_samples] float64."""
    return _power_law_noise(num_samples, sample_rate, 1.0, rng)


def brown_noise(num_samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Power falling with 1/f². [num_samples] float64."""
    return _power_law_noise(num_samples, sample_rate, 2.0, rng)


def mains_hum(num_samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A transformer at 50 Hz with overtones that wax and wane, over a little pink noise. [num_samples] float64."""
    seconds = np.arange(num_samples) / sample_rate
    # The frequency of the grid varies by some hundredths of a hertz.
    phase = 2 * np.pi * (50.0 * seconds + 0.05 * np.sin(2 * np.pi * 0.05 * seconds + rng.uniform(0, 2 * np.pi)))
    hum = np.zeros(num_samples)
    for harmonic in range(1, 21):
        if 50.0 * harmonic >= 0.45 * sample_rate:
            break
        # The even ones are strong, as the core is magnetised twice a cycle.
        level = rng.uniform(0.3, 1.0) / harmonic * (2.0 if harmonic % 2 == 0 else 1.0)
        swell = 1 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.05, 0.5) * seconds + rng.uniform(0, 2 * np.pi))
        hum += level * swell * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
    floor = pink_noise(num_samples, sample_rate, rng)
    return hum / hum.std() + 0.05 * floor / floor.std()


def tapping(num_samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Knocks and key strokes, in bursts, over a quiet floor. [num_samples] float64."""
    floor = pink_noise(num_samples, sample_rate, rng)
    taps = 0.02 * floor / floor.std()
    decay_seconds = np.arange(round(0.08 * sample_rate)) / sample_rate
    time = rng.uniform(0.0, 0.3)
    while (start := round(time * sample_rate)) < num_samples:
        decay = np.exp(-decay_seconds / rng.uniform(0.003, 0.02))
        resonances = rng.uniform(150, min(3500, 0.45 * sample_rate), size=3)
        knock = np.sin(2 * np.pi * resonances[:, None] * decay_seconds).sum(axis=0)
        knock = (knock + rng.standard_normal(len(decay))) * decay * rng.uniform(0.2, 1.0)
        end = min(num_samples, start + len(knock))
        taps[start:end] += knock[: end - start]
        time += rng.uniform(0.5, 2.0) if rng.uniform() < 0.15 else rng.uniform(0.08, 0.35)
    return taps


COMPUTED_NOISES = (white_noise, pink_noise, brown_noise, mains_hum, tapping)


def babble(num_samples: int, sample_rate: int, seed: int, engine: SpeechEngine) -> np.ndarray:
    """A dozen people talking at once; they are not speakers of the clips and say no core word.

    [num_samples] float64.
    """
    vocabulary = [word for word in V002_WORDS if word not in CORE_WORDS]
    mixture = np.zeros(num_samples)
    for number, voice in enumerate(draw_voices(_TALKERS, seed, "babble voice")):
        rng = random_stream(seed, "babble", number)
        chosen = rng.choice(len(vocabulary), _WORDS_PER_TALKER, replace=False)
        spoken = [say(engine, vocabulary[index], voice, rng, sample_rate) for index in chosen]
        loudness = rng.uniform(0.4, 1.0)
        start = -round(rng.uniform(0.0, 0.5) * sample_rate)  # some are in the middle of a word at the start
        while start < num_samples:
            word = spoken[rng.integers(len(spoken))]
            first, end = max(0, start), min(num_samples, start + len(word))
            if end > first:
                mixture[first:end] += loudness * word[first - start : end - start]
            start += len(word) + round(rng.exponential(0.15) * sample_rate)
    return mixture


def background_noises(
    seconds: float, sample_rate: int, seed: int, engine: SpeechEngine
) -> dict[str, Callable[[], np.ndarray]]:
    """By name, a function that makes the noise: [seconds × sample_rate] int16."""
    num_samples = round(seconds * sample_rate)

    def computed(make: Callable[[int, int, np.random.Generator], np.ndarray]) -> np.ndarray:
        return _levelled(make(num_samples, sample_rate, random_stream(seed, "background noise", make.__name__)))

    noises = {make.__name__: partial(computed, make) for make in COMPUTED_NOISES}
    return {"babble": lambda: _levelled(babble(num_samples, sample_rate, seed, engine)), **noises}


def _power_law_noise(num_samples: int, sample_rate: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    hertz = np.fft.rfftfreq(num_samples, 1 / sample_rate)
    audible = hertz >= _LOWEST_HZ
    spectrum[audible] *= hertz[audible] ** (-exponent / 2)
    spectrum[~audible] = 0
    return np.fft.irfft(spectrum, num_samples)


def _levelled(noise: np.ndarray) -> np.ndarray:
    """Scaled to RMS, or less if its peak would exceed PEAK. [samples] int16."""
    noise = noise - noise.mean()
    gain = min(RMS / noise.std(), PEAK / np.abs(noise).max())
    return np.round(noise * gain * 32767).astype(np.int16)
