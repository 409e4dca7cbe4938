"""Damaged files of every kind: a slice of `python -m benchmarks.damaged_audio`."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.damaged_audio import MOST_MB, damaged_file, read_all
from kws_data.audio import UnreadableAudioError, read_blocks, read_header, read_pcm

FILES = 100


@pytest.fixture(scope="session")
def clips(real_data: Path) -> list[Path]:
    return sorted(real_data.glob("[a-z]*/*.wav"))[::7]


@pytest.mark.parametrize("number", range(FILES))
def test_a_damaged_file_gives_a_reason_or_samples(clips: list[Path], tmp_path: Path, number: int) -> None:
    file = damaged_file(number, 1, clips)
    path = tmp_path / file.name
    path.write_bytes(file.content)
    pcm = None
    try:
        seconds = read_header(path).num_samples / read_header(path).sample_rate
        pcm = read_pcm(path, 16000)
        blocks = np.concatenate(list(read_blocks(path, 16000)))
    except UnreadableAudioError as error:
        reason = str(error)
    else:
        reason = ""
    assert bool(reason.strip()) == (pcm is None)
    if pcm is None:
        return
    assert pcm.dtype == np.int16
    assert 0 < len(pcm) == len(blocks)
    assert np.isfinite(blocks).all()
    if file.damage == "none":
        assert abs(len(pcm) - seconds * 16000) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flac", "rate", "channels", "float", "long"])
def test_no_small_file_takes_much_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("bomb.flac" if kind == "flac" else "bomb.wav")
    if kind == "flac":  # 5,000 samples a byte
        soundfile.write(path, np.zeros(100 * 60 * 16000, np.int16), 16000)
    else:
        options = {"subtype": "FLOAT"} if kind == "float" else {}
        samples = np.random.default_rng(0).uniform(-0.5, 0.5, (10 if kind == "long" else 1) * 60 * 44100)
        soundfile.write(path, samples, 44100, **options)
    content = bytearray(path.read_bytes())
    if kind == "rate":
        content[24:28] = struct.pack("<I", 1)
    elif kind == "channels":
        content[22:24] = struct.pack("<H", 65535)
    path.write_bytes(content)
    (outcome,) = read_all([path])
    assert not outcome.crash
    assert outcome.extra_mb < MOST_MB
    assert bool(outcome.error) == (kind in ("rate", "channels"))


@pytest.mark.slow
def test_the_benchmark_reports_crashes_memory_and_the_slowest_file() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.damaged_audio", "--files=30"], capture_output=True, text=True, check=True
    )
    assert "crashes: 0" in done.stdout
    assert "slowest" in done.stdout
