"""`label` over many files, with scores that show what came in; a trained network is in `cli/test_listen.py`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_data.audio import read_pcm, to_int16
from kws_data.clip_format import ClipFormat
from kws_data.errors import KwsError
from kws_experiments.export import load
from kws_experiments.export.scorer import Facts, Scorer
from kws_experiments.inference.label import label
from tests.conftest import SAMPLE_RATE


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What the model is given."""
    given: list[np.ndarray] = []

    def infer(waveforms: np.ndarray) -> np.ndarray:
        given.extend(waveforms)
        return np.tile([[0.3, 0.7]], (len(waveforms), 1)).astype(np.float32)

    facts = Facts(["no", "yes"], SAMPLE_RATE, SAMPLE_RATE, clip_from="auto")
    monkeypatch.setattr(load, "load_scorer", lambda model: Scorer(facts, infer))
    return given


def test_no_file_ends_a_command_over_many(
    real_data: Path, tmp_path: Path, inputs: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = sorted((real_data / "yes").iterdir())[:3]
    bad = {
        "empty.wav": b"", "text.mp3": b"no sound" * 99, "cut.wav": good[0].read_bytes()[:9000],
        "rate.wav": good[0].read_bytes()[:24] + b"\1\0\0\0" + good[0].read_bytes()[28:],
    }  # fmt: skip
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    soundfile.write(tmp_path / "loud.wav", np.full(44100, 3.4e38), 44100, subtype="FLOAT")
    soundfile.write(tmp_path / "odd.flac", np.zeros(16000), SAMPLE_RATE)
    read = soundfile.SoundFile.read

    def fail(self: soundfile.SoundFile, *arguments: object, **options: object) -> np.ndarray:
        if self.format == "FLAC":
            raise ValueError("array is too big")
        return read(self, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    labelled, failed = label(Path("model"), [*good, tmp_path], top=1)
    assert sorted(found.path for found in labelled) == sorted(good)
    assert {path.name for path in failed} == {*bad, "loud.wav", "odd.flac"}
    np.testing.assert_array_equal(inputs[0] * 32768, np.pad(read_pcm(good[0], SAMPLE_RATE), (0, 0))[:SAMPLE_RATE])


def test_broken_links_and_pipes_are_named(
    real_data: Path, tmp_path: Path, inputs: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    """An unfetched file of git-annex is such a link; opening a pipe would block."""
    (tmp_path / "good.wav").write_bytes(sorted((real_data / "yes").iterdir())[0].read_bytes())
    (tmp_path / "annexed.wav").symlink_to("nowhere.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    labelled, failed = label(Path("model"), [tmp_path], top=1)
    assert [found.path.name for found in labelled] == ["good.wav"]
    assert [path.name for path in failed] == ["annexed.wav", "pipe.wav"]
    assert len(caplog.messages) == 2


def test_a_name_too_long_for_its_picture_costs_no_label(
    real_data: Path, tmp_path: Path, inputs: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.wav", 83 * "録" + ".wav"):  # 253 bytes
        (tmp_path / name).write_bytes(sorted((real_data / "yes").iterdir())[0].read_bytes())
    labelled, failed = label(Path("model"), [tmp_path], top=1, figures=tmp_path / "pictures")
    assert (len(labelled), failed) == (2, [])
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["a.wav.png"]
    assert "no picture: its name would be too long" in caplog.text


def test_nothing_readable_is_one_line(tmp_path: Path, inputs: list[np.ndarray]) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(KwsError, match="the file cannot be read"):
        label(Path("model"), [tmp_path], top=1)


def test_the_part_that_training_would_use_is_labelled(
    real_data: Path, tmp_path: Path, inputs: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    word, _ = soundfile.read(sorted((real_data / "yes").iterdir())[0])
    samples = np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE) * 1e-3
    samples[SAMPLE_RATE : SAMPLE_RATE + len(word)] += word
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", to_int16(samples), SAMPLE_RATE)
    label(Path("model"), [tmp_path], top=1)
    begin = ClipFormat(SAMPLE_RATE, SAMPLE_RATE).start_in(to_int16(samples))
    assert abs(begin - SAMPLE_RATE) < 6400
    np.testing.assert_array_equal(inputs[0] * 32768, to_int16(samples)[begin : begin + SAMPLE_RATE])
    assert "3 files are longer than the model's window" in caplog.text
