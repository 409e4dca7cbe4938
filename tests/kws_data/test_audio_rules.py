"""The rules of `audio`: levels, rates, channels and lengths of files, and muted clips."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kws_data import audio
from kws_data.audio import UnreadableAudioError, read_blocks, read_pcm, to_int16
from kws_data.clip_format import AudioRules
from tests.kws_data.audio_files import patched, read, refused, sine, speech, written


def test_float_beyond_full_scale_is_clipped_not_wrapped(tmp_path: Path) -> None:
    path = written(tmp_path, np.array([1.5, -1.5, 1.0, -1.0] * 100), subtype="FLOAT")
    assert read_pcm(path, 16000)[:4].tolist() == [32767, -32768, 32767, -32768]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    samples = sine(300, 16000, 0.1)
    samples[800] = value
    path = written(tmp_path, samples, subtype="FLOAT")
    assert "not finite" in refused(path)


@pytest.mark.parametrize("full_scale", [2.0**15, 2.0**23, 2.0**31])
def test_integers_in_a_float_file_are_scaled_to_what_they_were(
    real_data: Path, tmp_path: Path, full_scale: float
) -> None:
    samples = speech(real_data)
    path = written(tmp_path, samples / 32768 * full_scale, subtype="FLOAT")
    np.testing.assert_array_equal(read(path), samples)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(path, 16000))), samples / np.float32(32768))


def test_levels_far_beyond_full_scale_follow_the_rule(real_data: Path, tmp_path: Path) -> None:
    samples = speech(real_data) / np.abs(speech(real_data)).max()
    path = written(tmp_path, 4.0 * samples, subtype="FLOAT")
    np.testing.assert_allclose(read(path), to_int16(samples), atol=1)
    with pytest.raises(UnreadableAudioError, match=r"reach 4.*audio\.levels"):
        read_pcm(path, 16000, AudioRules(levels="set_aside"))
    np.testing.assert_array_equal(
        read_pcm(path, 16000, AudioRules(levels="clip")), to_int16((4.0 * samples).astype(np.float32))
    )
    little = written(tmp_path, 1.4 * samples, subtype="FLOAT")
    np.testing.assert_array_equal(
        read_pcm(little, 16000, AudioRules(levels="set_aside")), to_int16((1.4 * samples).astype(np.float32))
    )


@pytest.mark.parametrize("levels", ["scale", "set_aside", "clip"])
@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_the_largest_floats_never_become_samples(tmp_path: Path, levels: str, rate: int, subtype: str) -> None:
    samples = np.array([3.4e38, -3.4e38] * (rate // 2)) * (1e200 if subtype == "DOUBLE" else 1)
    path = written(tmp_path, samples, rate, subtype=subtype)
    rules = AudioRules(levels=levels)
    if levels == "clip" and rate == 16000 and subtype == "FLOAT":
        assert set(read_pcm(path, 16000, rules).tolist()) == {-32768, 32767}
        return
    for reader in (read_pcm, lambda *arguments: list(read_blocks(*arguments))):
        with pytest.raises(UnreadableAudioError, match=r"not finite|reach"):
            reader(path, 16000, rules)


@pytest.mark.parametrize(
    ("place", "number", "reason"),
    [
        (24, struct.pack("<I", 1), "rate of 1 Hz .*audio.min_rate=1000"),
        (24, struct.pack("<I", 2**32 - 1), "rate of .*audio.max_rate=768000|not plausible|cannot be decoded"),
        (22, struct.pack("<H", 65535), "65535 channels .*audio.max_channels=64|cannot be decoded"),
    ],
)
def test_rates_and_channels_are_bounded(tmp_path: Path, place: int, number: bytes, reason: str) -> None:
    path = patched(written(tmp_path, np.tile(sine(300, 16000), 9), 16000), (place, number))
    for reader in (read_pcm, lambda *arguments: list(read_blocks(*arguments))):
        with pytest.raises(UnreadableAudioError, match=reason):
            reader(path, 16000)


def test_clips_may_last_as_long_as_the_rules_say(tmp_path: Path) -> None:
    for subtype in ("PCM_16", "PCM_24"):
        path = written(tmp_path, sine(300, 16000, 3), subtype=subtype)
        assert len(read_pcm(path, 16000, AudioRules(max_seconds=3))) == 48000
        with pytest.raises(UnreadableAudioError, match=r"audio\.max_seconds=2\.5"):
            read_pcm(path, 16000, AudioRules(max_seconds=2.5))
        assert sum(map(len, read_blocks(path, 16000, AudioRules(max_seconds=2.5)))) == 48000  # streams may be long
    path.write_bytes(3 * path.read_bytes())  # joined files count together
    with pytest.raises(UnreadableAudioError, match=r"audio\.max_seconds=8"):
        read_pcm(path, 16000, AudioRules(max_seconds=8))


def test_a_clip_of_one_value_is_known_as_muted(real_data: Path, tmp_path: Path) -> None:
    def muted(samples: np.ndarray, rate: int = 16000, **options: Any) -> bool:
        file = audio.AudioFile(written(tmp_path, samples, rate, **options), 16000)
        list(file.blocks())
        return file.muted

    assert muted(np.zeros(16000))
    assert muted(np.full(16000, 0.25))
    assert muted(np.full(44100, 0.25), 44100)
    assert muted(np.zeros((16000, 2)), subtype="FLOAT")
    late = np.zeros(16000)
    late[15000] = 1 / 32768
    assert not muted(late)
    assert not muted(speech(real_data))
