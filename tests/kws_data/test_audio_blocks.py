"""Long files, read piece by piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_data import audio_blocks
from kws_data.audio import UnreadableAudioError, read_pcm
from kws_data.audio_blocks import read_blocks, read_start
from tests.conftest import SAMPLE_RATE


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_blocks, "BLOCK_S", 1)


def noise(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2), (22050, 1)])
def test_blocks_are_the_whole_file(tmp_path: Path, suffix: str, rate: int, channels: int) -> None:
    path = tmp_path / f"clip{suffix}"
    soundfile.write(path, noise(3.3, rate, channels), rate)

    blocks = list(read_blocks(path, SAMPLE_RATE))

    assert len(blocks) == 4
    assert all(block.dtype == np.float32 and block.ndim == 1 for block in blocks)
    whole = read_pcm(path, SAMPLE_RATE) / 32768
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=0.01 if suffix == ".mp3" else 1e-4)


def test_16_bit_samples_come_through_unchanged(tmp_path: Path, real_data: Path) -> None:
    path = next((real_data / "yes").iterdir())
    (block,) = read_blocks(path, SAMPLE_RATE)
    np.testing.assert_array_equal(block * 32768, read_pcm(path, SAMPLE_RATE))


def test_the_start_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise(3.3, SAMPLE_RATE), SAMPLE_RATE)
    whole = read_pcm(path, SAMPLE_RATE) / 32768
    for count, more in ((100, True), (len(whole), False), (10**6, False)):
        samples, goes_on = read_start(path, SAMPLE_RATE, count)
        np.testing.assert_array_equal(samples, whole[:count].astype(np.float32))
        assert goes_on is more


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    good = tmp_path / "good.wav"
    soundfile.write(good, noise(3.3, SAMPLE_RATE), SAMPLE_RATE)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(good.read_bytes()[:50_000])
    flac = tmp_path / "whole.flac"
    soundfile.write(flac, noise(3.3, SAMPLE_RATE), SAMPLE_RATE)
    cut_flac = tmp_path / "cut.flac"
    cut_flac.write_bytes(flac.read_bytes()[:50_000])
    nan = tmp_path / "nan.wav"
    samples = noise(3.3, SAMPLE_RATE)
    samples[2 * SAMPLE_RATE] = np.nan
    soundfile.write(nan, samples, SAMPLE_RATE, subtype="FLOAT")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "empty.wav").write_bytes(b"")
    for name, message in {
        "cut.wav": "cut short", "cut.flac": "c", "nan.wav": "not finite", "folder.wav": "not a regular file",
        "empty.wav": "the file is empty", "absent.wav": "No such file",
    }.items():  # fmt: skip
        with pytest.raises(UnreadableAudioError, match=message):
            list(read_blocks(tmp_path / name, SAMPLE_RATE))
