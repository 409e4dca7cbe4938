from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_data.augment.equalizer import Equalizer
from kws_data.draws import Draws
from tests.kws_data.augment.clips import MANY, RATE, augmented, batch_of, context, drawn_by, tiny


def gains_between(before: np.ndarray, after: np.ndarray, frequency: float) -> float:
    """dB that a filter gave to the band of 40 Hz around a frequency."""
    band = slice(round(frequency) - 20, round(frequency) + 21)  # of one second: a bin is 1 Hz
    powers = [np.sum(np.abs(np.fft.rfft(clip * np.hanning(RATE))[band]) ** 2) for clip in (before, after)]
    return float(10 * np.log10(powers[1] / powers[0]))


def test_real_clips_have_the_drawn_gains_at_their_frequencies(real_data: Path) -> None:
    files = sorted((real_data / "yes").glob("*.wav"))[:20]
    clips = [soundfile.read(path, dtype="int16")[0] for path in files]
    batch = batch_of([clip // 8 for clip in clips if len(clip) == RATE])  # so that no gain clips it
    stage = Equalizer((-9, 9), 5, 1.0)
    drawn = stage.prepare(batch, Draws(0, 0, batch.ids).of("stage"), context())["gains_db"]
    before, after = batch.pcm / 32768, augmented({"stage": stage}, batch)
    points = 700 * ((1 + 8000 / 700) ** np.linspace(0, 1, 5) - 1)  # evenly spaced on HTK's mel scale
    for clip, filtered, gains in zip(before, after, drawn, strict=True):
        for frequency, gain in list(zip(points, gains, strict=True))[1:4]:
            assert gains_between(clip, filtered, frequency) == pytest.approx(gain, abs=1.0)
        middle = 700 * ((1 + 8000 / 700) ** 0.375 - 1)
        assert gains_between(clip, filtered, middle) == pytest.approx((gains[1] + gains[2]) / 2, abs=1.0)


def test_a_click_stays_where_it_is() -> None:
    click = np.zeros(RATE, np.int16)
    click[5000] = 10_000
    after = augmented(Equalizer((-9, 9), 5, 1.0), batch_of([click] * 20))
    assert (np.abs(after).argmax(axis=1) == 5000).all()


def test_as_many_clips_as_asked_are_filtered_by_gains_in_the_range() -> None:
    drawn = drawn_by(Equalizer((-6, 3), 4, 0.3), tiny(MANY, 30))["gains_db"]
    chosen = drawn.any(axis=1)
    assert chosen.mean() == pytest.approx(0.3, abs=0.03)
    assert -6 <= drawn.min() < -5.9
    assert 2.9 < drawn.max() <= 3
    assert np.abs(np.corrcoef(drawn[chosen].T) - np.eye(4)).max() < 0.12
