"""What rooms and channels do to a sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal

from kws_data.draws import Draws
from kws_data.errors import KwsError
from kws_data.streams.channels import CLEAN, CLIPPED, TELEPHONE, send
from kws_data.streams.rooms import Rooms

RATE = 16000


def power_db(samples: np.ndarray, low: float, high: float) -> float:
    frequencies, density = signal.welch(samples, RATE, nperseg=2048)
    return float(10 * np.log10(density[(frequencies >= low) & (frequencies < high)].mean()))


def test_a_telephone_passes_its_band_alone_with_eight_bits() -> None:
    noise = np.random.default_rng(0).normal(0, 1000, 10 * RATE)
    heard = send(TELEPHONE, noise, RATE)
    change = [power_db(heard, *band) - power_db(noise, *band) for band in ((0, 150), (500, 3000), (5000, 8000))]
    assert change[0] < -25
    assert abs(change[1]) < 0.5
    assert change[2] < -25
    assert len(np.unique(heard.round(6))) <= 255
    assert signal.correlate(heard, noise, "same", "fft").argmax() == len(noise) // 2  # not delayed


def test_an_overdriven_microphone_cuts_the_peaks() -> None:
    noise = np.random.default_rng(0).normal(0, 1000, RATE)
    heard = send(CLIPPED, noise, RATE)
    assert 0.015 < (np.abs(heard) == np.abs(heard).max()).mean() < 0.025
    assert np.abs(heard).max() < 0.7 * np.abs(noise).max()


@pytest.mark.parametrize("channel", [CLEAN, TELEPHONE, CLIPPED])
def test_a_louder_sound_only_comes_out_louder(channel: str) -> None:
    noise = np.random.default_rng(0).normal(0, 1000, RATE)
    np.testing.assert_allclose(send(channel, 0.01 * noise, RATE), 0.01 * send(channel, noise, RATE), atol=1e-9)
    for short in (np.zeros(100), np.ones(1), np.array([0.0, 5.0])):
        assert np.isfinite(send(channel, short, RATE)).all()
        assert len(send(channel, short, RATE)) == len(short)


def test_kinds_of_rooms_are_drawn_equally_often() -> None:
    rooms = Rooms(("none", "synthetic"), RATE)
    drawn = rooms.draw(Draws(0, 0, np.arange(4000)))
    assert 0.46 < np.mean([rooms.name(number) == "none" for number in drawn]) < 0.54
    assert len(set(drawn.tolist())) == 65
    assert {rooms.name(number) for number in drawn} == {"none", *(f"0.{tenth} s" for tenth in range(1, 7))}
    click = np.zeros(RATE)
    click[100] = 1
    np.testing.assert_array_equal(rooms.reverberate(0, click), click)
    wet = rooms.reverberate(1, click)
    assert len(wet) > len(click)
    assert np.square(wet).sum() == pytest.approx(1)
    assert np.abs(wet[:100]).max() < 1e-9


def test_rooms_of_a_folder_have_the_names_of_its_files(tmp_path: Path) -> None:
    for name in ("bath", "hall"):
        soundfile.write(tmp_path / f"{name}.wav", [0.5, 0.25], RATE)
    assert {Rooms((str(tmp_path),), RATE).name(number) for number in range(2)} == {"bath", "hall"}
    with pytest.raises(KwsError, match=r"--rooms: '.*empty' holds no usable impulse response"):
        Rooms((str(tmp_path / "empty"),), RATE)
