"""Small data for every test: generated clips, a cache of the test's own, and the real clips where they are."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import numpy as np
import pytest
import soundfile

from kws_data.audio import to_int16
from kws_experiments.config import interrupts

# In a script's background SIGINT is ignored, and processes that tests start inherit that; not so in a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are shared and noisy: how long an example takes says nothing about it.
hypothesis.settings.register_profile("noisy", deadline=None)
hypothesis.settings.load_profile("noisy")

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_RATE = 16000


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test has a cache folder of its own, which is gone after it: thousands of them would fill a disk."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("KWS_DATA", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that ends by Ctrl-C in this process does not end the process."""
    monkeypatch.setattr(interrupts, "_ends_stopped", False)


@pytest.fixture(scope="session", autouse=True)
def _signing_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests' runs are signed with a key of their own, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KWS_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips; the test is skipped, and says so, where there is none."""
    folder = Path(os.environ.get("KWS_REAL_DATA", ROOT.parent / "shared" / "speech_commands_subset"))
    if not folder.is_dir():
        pytest.skip(f"no real clips: '{folder}' is no folder (set KWS_REAL_DATA)")
    return folder.resolve()


def tone(frequency: float, seconds: float = 1.0, rate: int = SAMPLE_RATE, level: float = 0.3) -> np.ndarray:
    """[samples] float64: a tone with a decaying envelope, so that no two frequencies look alike."""
    time = np.arange(round(seconds * rate)) / rate
    return level * np.sin(2 * np.pi * frequency * time) * np.exp(-2 * time)


MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """A function that makes a data set below the test's own folder."""
    return folder_maker(tmp_path)


def folder_maker(parent: Path) -> MakeFolder:
    """A function that makes a data set below `parent`: each word a tone, each speaker a level, noise as background."""

    def make(
        name: str = "clips",
        words: tuple[str, ...] = ("yes", "no", "bed"),
        speakers: int = 20,
        *,
        noise: bool = True,
        seconds: float = 1.0,
    ) -> Path:
        root = parent / name
        for place, word in enumerate(words):
            (root / word).mkdir(parents=True)
            for speaker in range(speakers):
                clip = tone(300 * (place + 1) + speaker, seconds, level=0.2 + 0.02 * speaker)
                identity = f"{speaker * 2654435761 % 2**32:08x}"
                soundfile.write(root / word / f"{identity}_nohash_0.wav", to_int16(clip), SAMPLE_RATE)
        if noise:
            (root / "_background_noise_").mkdir()
            generator = np.random.default_rng(0)
            for number in range(2):
                samples = to_int16(generator.normal(0, 0.1, 20 * SAMPLE_RATE))
                soundfile.write(root / "_background_noise_" / f"noise_{number}.wav", samples, SAMPLE_RATE)
        return root

    return make
