from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal, stats

from kws_data.augment.reverb import Reverb
from kws_data.errors import KwsError
from tests.kws_data.augment.clips import MOVING_ROWS, RATE, augmented, batch_of, db, drawn_by


def test_a_wet_clip_keeps_its_energy_and_place() -> None:
    word = np.zeros(RATE, np.int16)
    word[3000:5000] = np.random.default_rng(0).normal(0, 4000, 2000)
    rows = augmented(Reverb(RATE, probability=1.0), batch_of([word] * 200)).astype(float)
    dry = word / 32768
    changes = db((rows**2).sum(axis=1) / (dry**2).sum())
    assert abs(changes).max() < 2
    assert abs(changes.mean()) < 0.3
    assert np.abs(rows[:, :3000]).max() < 1e-5  # nothing before the word
    lags = [signal.correlate(row, dry, "full", "fft").argmax() - (RATE - 1) for row in rows]
    assert np.mean(np.array(lags) == 0) > 0.97
    assert len(np.unique(rows.round(5), axis=0)) > 50


def test_wet_is_a_convolution_and_dry_stays_dry() -> None:
    stage = Reverb(RATE, probability=0.3)
    batch = batch_of([MOVING_ROWS[row % 40] for row in range(200)])
    drawn = drawn_by(stage, batch)
    before = (batch.pcm / 32768).astype(np.float32)
    after = stage.apply(before, drawn).numpy()
    wet = drawn["impulse"] >= 0
    assert stats.binomtest(int(wet.sum()), 200, 0.3).pvalue > 1e-3
    np.testing.assert_array_equal(after[~wet], before[~wet])
    for row in np.flatnonzero(wet)[:5]:
        expected = signal.fftconvolve(before[row].astype(float), stage.impulses[drawn["impulse"][row]])[:RATE]
        np.testing.assert_allclose(after[row], expected, atol=1e-5)


def test_a_batch_may_stay_dry_as_a_whole() -> None:
    rows = augmented(Reverb(RATE, probability=0.0), batch_of(MOVING_ROWS[:4]))
    np.testing.assert_array_equal(rows, MOVING_ROWS[:4] / np.float32(32768))


@pytest.mark.parametrize("rt60", [0.15, 0.4, 0.9])
def test_synthesized_rooms_ring_as_long_as_asked(rt60: float) -> None:
    tails = Reverb(RATE, (rt60, rt60), (3.0, 3.0)).impulses.astype(float)[:, 1:]
    # Schroeder: the energy yet to come, integrated backwards; T30, the slope from -5 to -35 dB
    for tail in tails:
        decay = db(np.cumsum(tail[::-1] ** 2)[::-1] / (tail**2).sum())
        from_, to = np.argmax(decay < -5), np.argmax(decay < -35)
        slope = np.polyfit(np.arange(from_, to) / RATE, decay[from_:to], 1)[0]
        assert -60 / slope == pytest.approx(rt60, rel=0.15)


def test_synthesized_rooms_have_the_ratios_asked_for() -> None:
    impulses = Reverb(RATE, direct_to_reverberant_db=(-5, 10)).impulses.astype(float)
    np.testing.assert_allclose((impulses**2).sum(axis=1), 1, rtol=1e-4)
    ratios = db(impulses[:, 0] ** 2 / (impulses[:, 1:] ** 2).sum(axis=1))
    assert stats.kstest(ratios, stats.uniform(-5, 15).cdf).pvalue > 1e-3


def response(rate: int = RATE, delay: int = 200, channels: int = 1) -> np.ndarray:
    samples = np.zeros(delay + rate // 10)
    samples[delay:] = 0.5 * np.exp(-np.arange(rate // 10) / (0.02 * rate)) * np.cos(np.arange(rate // 10) * 0.3)
    return samples if channels == 1 else np.stack([samples] * channels, axis=1)


def test_measured_responses_of_any_format_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "hall" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "hall" / "deep" / "a.flac", response(48_000, channels=2), 48_000, subtype="PCM_24")
    soundfile.write(tmp_path / "hall" / "b.WAV", response(delay=0), RATE)
    soundfile.write(tmp_path / "hall" / "c.wav", np.r_[0.1, np.nan, 0.2], RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "hall" / "d.wav", np.zeros(400), RATE)
    soundfile.write(tmp_path / "hall" / "e.wav", response(), RATE)
    cut = tmp_path / "hall" / "e.wav"
    cut.write_bytes(cut.read_bytes()[:-500])
    (tmp_path / "hall" / "f.wav").write_bytes(b"not audio")
    (tmp_path / "hall" / "notes.txt").write_text("microphone at 2 m")
    stage = Reverb(RATE, impulse_dir=str(tmp_path / "hall"), probability=1.0)
    assert len(stage.impulses) == 2
    assert np.isfinite(stage.impulses).all()
    np.testing.assert_allclose((stage.impulses.astype(float) ** 2).sum(axis=1), 1, rtol=1e-4)
    assert (np.abs(stage.impulses).argmax(axis=1) == 0).all()  # the delay before the direct path is gone
    left_out = [record.getMessage() for record in caplog.records]
    assert [message.split("'")[1].rsplit("/", 1)[1] for message in left_out] == ["c.wav", "d.wav", "e.wav", "f.wav"]
    word = np.zeros(RATE, np.int16)
    word[3000] = 20_000
    rows = augmented(stage, batch_of([word] * 20))
    assert (np.abs(rows).argmax(axis=1) == 3000).all()


@pytest.mark.parametrize("content", ["missing", "empty", "bad"])
def test_a_folder_without_usable_responses_is_refused_at_once(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "rooms"
    if content != "missing":
        folder.mkdir()
    if content == "bad":
        soundfile.write(folder / "nan.wav", np.full(50, np.nan), RATE, subtype="FLOAT")
        soundfile.write(folder / "silent.wav", np.zeros(50), RATE)
    with pytest.raises(KwsError, match=r"^impulse_dir: '.*rooms'") as error:
        Reverb(RATE, impulse_dir=str(folder))
    assert "\n" not in str(error.value)
