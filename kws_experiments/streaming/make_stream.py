"""Long recordings to test on: test clips over background noise, and what is said when (`kws make-stream`).

After the original's generate_streaming_test_wav.py: words at random places, noise in segments that are faded into each
other. Here the speech stands at a chosen level above the noise, the noise is that part of the recordings which training
never hears, and every draw is a function of the seed and the word's or segment's number.
"""

from __future__ import annotations

import json
import math
import wave
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from kws_data.audio import INT16_SCALE, to_int16
from kws_data.corpus import Corpus
from kws_data.draws import Draws
from kws_data.errors import KwsError
from kws_data.splits import TESTING
from kws_data.storage.atomic import replace_dir
from kws_data.streams.plan import SPEECH_DB, StreamSettings, clip_samples, noise_db, plan_words
from kws_experiments.streaming.label_track import write_label_track
from kws_experiments.streaming.stream_source import open_source
from kws_experiments.streaming.truth import AUDIO, FACTS, TRACK, TRUTH

SEGMENT_S, FADE_S = 5.0, 0.5  # noise segments, and how long one fades into the next
_RAMP_S = 0.03  # clips fade in and out for so long, as the original's 500 samples


def parse_range(name: str, text: str) -> tuple[float, float]:
    """'15' → (15, 15); '5,20' → (5, 20).

    Raises:
        ValueError: naming it.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise ValueError(f"{name} must be a number, or LOW,HIGH, got '{text}'")
    return numbers[0], numbers[-1]


def write_stream(source: Sequence[str], out: Path, settings: StreamSettings) -> str:
    """Write `stream.wav`, `truth.csv`, `labels.txt` (an Audacity label track) and `stream.json` into `out`.

    Args:
        source: the folder of a run, or overrides as train.py takes them.
        out: a folder that does not exist yet, or an older stream.
        settings: see StreamSettings.

    Returns:
        a line about it.

    Raises:
        KwsError: the data aren't right, or `out` holds something else.
    """
    if out.exists() and not (out / FACTS).is_file():
        raise KwsError(f"--out: '{out}' exists and is no older stream; give a new folder")
    data = open_source(source)
    plan = plan_words(data, settings)
    rate = data.corpus.sample_rate
    spoken = plan[["time_ms", "end_ms", "word", "snr_db", "clip"]]
    facts = {
        **asdict(settings), "sample_rate": rate, "words": len(plan), "keywords": int(plan["keyword"].sum()),
        "different_clips": int(plan["row"].nunique()), "speech_db": SPEECH_DB, "data": data.told,
        "noise": "generated" if data.corpus.noise.generated else "recorded",
    }  # fmt: skip
    with replace_dir(out.absolute()) as folder:
        with (folder / AUDIO).open("wb") as file, wave.open(file, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(rate)
            for block in render(data.corpus, plan, settings):
                sound.writeframes(block.astype("<i2").tobytes())
        spoken.to_csv(folder / TRUTH, index=False)
        write_label_track(folder / TRACK, spoken[["time_ms", "end_ms", "word"]].itertuples(index=False, name=None))
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    return (
        f"{settings.minutes:g} min, {len(plan)} words ({facts['keywords']} keywords) of "
        f"{facts['different_clips']} different clips"
    )


def render(corpus: Corpus, plan: pd.DataFrame, settings: StreamSettings) -> Iterator[np.ndarray]:
    """The stream in order, [samples] int16 a noise segment each.

    Args:
        corpus: clips and noise.
        plan: see `plan_words`.
        settings: `minutes`, `snr_db` and `seed` are used.
    """
    rate, total = corpus.sample_rate, round(settings.minutes * 60 * corpus.sample_rate)
    size, fade = round(SEGMENT_S * rate), round(FADE_S * rate)
    # quarter waves, whose squares sum to 1: different noises keep their level where they meet
    rise = np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
    fading = np.zeros(fade)
    starts, ends = plan["start"].to_numpy(), (plan["start"] + plan["length"]).to_numpy()
    for number in range(math.ceil(total / size)):
        noise = _noise(corpus, settings, number, size + fade)
        block = noise[:size].copy()
        block[:fade] = block[:fade] * (rise if number else 1.0) + fading
        fading = noise[size:] * rise[::-1]
        first, after = number * size, (number + 1) * size
        for place in np.flatnonzero((starts < after) & (ends > first)):
            word = _faded(
                clip_samples(corpus, plan["row"].iloc[place]) * (plan["gain"].iloc[place] / INT16_SCALE), rate
            )
            begin, end = max(starts[place], first), min(ends[place], after)
            block[begin - first : end - first] += word[begin - starts[place] : end - starts[place]]
        yield to_int16(block[: total - first])


def _noise(corpus: Corpus, settings: StreamSettings, number: int, length: int) -> np.ndarray:
    """[length] float64: a window of the recordings' test parts at the stream's level; digital silence stays it."""
    draws = Draws(settings.seed, 0, np.array([number]))
    noise = corpus.noise.windows(TESTING, draws, "stream noise", np.array([length]))[0] / INT16_SCALE
    rms = math.sqrt(np.mean(noise**2))
    return noise * (10 ** (noise_db(settings) / 20) / rms) if rms else noise


def _faded(word: np.ndarray, rate: int) -> np.ndarray:
    ramp = min(round(_RAMP_S * rate), len(word) // 2)
    slope = np.arange(ramp) / max(ramp, 1)
    word[:ramp] *= slope
    word[len(word) - ramp :] *= slope[::-1]
    return word
