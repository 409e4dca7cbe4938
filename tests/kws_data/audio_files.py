"""Audio files for tests, and what is read from them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from kws_data.audio import UnreadableAudioError, read_header, read_pcm


def sine(frequency: float, rate: int, seconds: float = 1.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def written(folder: Path, samples: Any, rate: int = 16000, name: str = "clip.wav", **options: Any) -> Path:
    soundfile.write(folder / name, samples, rate, **options)
    return folder / name


def read(path: Path) -> np.ndarray:
    """As the catalog and then the store do."""
    read_header(path)
    return read_pcm(path, 16000)


def refused(path: Path) -> str:
    """The reason that the catalog or the store would list; fails if the file goes through."""
    with pytest.raises(UnreadableAudioError) as info:
        read(path)
    assert str(info.value).strip(), "no reason"
    return str(info.value)


def speech(real_data: Path) -> np.ndarray:
    samples, _ = soundfile.read(sorted((real_data / "yes").iterdir())[0], dtype="int16")
    return samples


def patched(path: Path, *changes: tuple[int, bytes]) -> Path:
    """The file with bytes replaced."""
    content = bytearray(path.read_bytes())
    for place, replacement in changes:
        content[place : place + len(replacement)] = replacement
    path.write_bytes(content)
    return path


def apple_double() -> bytes:
    """What macOS writes as `._name` beside a file `name` on a disk of another system: Finder's data, an empty fork."""
    maps = struct.pack(">IIII", 256, 256, 0, 30)
    fork = maps + b"This resource fork intentionally left blank   ".ljust(240, b"\0") + maps + bytes(14)
    head = struct.pack(">II16sH", 0x00051607, 0x00020000, b"Mac OS X        ", 2)
    return head + struct.pack(">IIIIII", 9, 50, 32, 2, 82, len(fork)) + bytes(32) + fork


def without_count(mp3: bytes) -> bytes:
    """An MP3 of 16 kHz without its first frame, which counts the others, as encoders write to a pipe."""
    assert b"Info" in mp3[:60] or b"Xing" in mp3[:60]
    kbit_s = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)[mp3[2] >> 4]
    return mp3[72 * 1000 * kbit_s // 16000 + (mp3[2] >> 1 & 1) :]
