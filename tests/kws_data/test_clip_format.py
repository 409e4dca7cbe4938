from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from kws_data.audio import read_clip, read_pcm, to_int16
from kws_data.clip_format import AudioRules, ClipFormat

RATE = 16000


def with_word_at(second: float, total: float, real_data: Path, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Faint noise with a spoken word in it, and the word."""
    word, _ = soundfile.read(sorted((real_data / "yes").iterdir())[seed])
    samples = np.random.default_rng(seed).standard_normal(round(total * RATE)) * 1e-3
    begin = round(second * RATE)
    samples[begin : begin + len(word)] += word[: len(samples) - begin]
    return to_int16(samples), to_int16(word)


@pytest.mark.parametrize(
    ("seconds", "start", "loudest", "centre", "auto"),
    [(0.5, 0, 0, 0, 0), (1.0, 0, 0, 0, 0), (1.4, 0, 0.4, 0.2, 0), (3.0, 0, 2.0, 1.0, 2.0)],
)
def test_the_part_that_is_used(
    real_data: Path, seconds: float, start: float, loudest: float, centre: float, auto: float
) -> None:
    pcm, _ = with_word_at(max(0, seconds - 1), seconds, real_data)
    for clip_from, expected in {"start": start, "loudest": loudest, "centre": centre, "auto": auto}.items():
        found = ClipFormat(RATE, RATE, clip_from).start_in(pcm) / RATE
        assert found == pytest.approx(expected, abs=0.2 if expected == loudest else 0)


def test_the_loudest_part_holds_the_word(real_data: Path) -> None:
    for seed in range(10):
        pcm, word = with_word_at(1.0, 3.0, real_data, seed)
        begin = ClipFormat(RATE, RATE, "loudest").start_in(pcm)
        energy = np.square(pcm[RATE : RATE + len(word)], dtype=float).sum()
        assert np.square(pcm[begin : begin + RATE], dtype=float).sum() >= 0.98 * energy
        assert abs(begin - RATE) < 0.4 * RATE  # words are about in the middle of their clips


def test_clips_of_any_length_are_cut_at_ten_seconds() -> None:
    form = ClipFormat(RATE, None)
    assert (form.longest, form.window) == (10 * RATE, RATE)
    loud_end = np.repeat(np.array([1, 1000], np.int16), 8 * RATE)
    assert form.start_in(loud_end) == pytest.approx(6 * RATE, abs=RATE // 10)


def test_a_short_sound_is_in_the_middle_of_its_clip() -> None:
    pcm = np.zeros(3 * RATE, np.int16)
    pcm[20000:21000] = 1000
    begin = ClipFormat(RATE, RATE, "loudest").start_in(pcm)
    assert begin + RATE // 2 == pytest.approx(20500, abs=RATE // 100)


def test_silence_has_a_loudest_part_too() -> None:
    assert ClipFormat(RATE, RATE, "loudest").start_in(np.zeros(3 * RATE, np.int16)) == RATE
    assert ClipFormat(100, 150, "loudest").start_in(np.ones(151, np.int16)) in (0, 1)


def test_a_file_is_cut_as_in_training(real_data: Path, tmp_path: Path) -> None:
    pcm, _ = with_word_at(1.0, 3.0, real_data)
    path = tmp_path / "clip.wav"
    soundfile.write(path, pcm, RATE)
    form = ClipFormat(RATE, RATE)
    clip = read_clip(path, form)
    begin = form.start_in(read_pcm(path, RATE))
    np.testing.assert_array_equal(clip.samples, (pcm[begin : begin + RATE] / 32768).astype(np.float32))
    assert clip.longer
    assert clip.samples.dtype == np.float32
    whole = read_clip(path, ClipFormat(RATE, 3 * RATE))
    assert (len(whole.samples), whole.longer) == (3 * RATE, False)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^clip_from must be one of auto, start, loudest, centre"):
        ClipFormat(RATE, RATE, "end")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min_rate", 0), ("max_rate", 500), ("max_channels", 1.5), ("max_seconds", 0), ("max_seconds", "long"),
        ("levels", "louder"), ("muted", True),
    ],
)  # fmt: skip
def test_wrong_rules_are_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{key} must be"):
        AudioRules(**{key: value})
