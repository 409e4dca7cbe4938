from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kws_data.draws import Draws
from kws_data.noise import GENERATED_RMS, NoiseBank
from kws_data.splits import SPLITS, TESTING, TRAINING, VALIDATION

RAMP = np.arange(1, 30_001).astype(np.int16)  # a sample tells where it stands
PART_OF_RAMP = {TRAINING: (1, 24_000), VALIDATION: (24_001, 27_000), TESTING: (27_001, 30_000)}


def windows(bank: NoiseBank, split: str, count: int, length: int, seed: int = 0, stage: str = "noise") -> np.ndarray:
    return bank.windows(split, Draws(seed, 0, np.arange(count)), stage, np.full(count, length))


@pytest.mark.parametrize("length", [1, 1000, 3000])
@pytest.mark.parametrize("split", SPLITS)
def test_windows_come_only_from_their_splits_part_and_from_all_of_it(split: str, length: int) -> None:
    drawn = windows(NoiseBank([RAMP, -RAMP]), split, 4000, length)
    assert drawn.dtype == np.int16
    assert drawn.shape == (4000, length)
    negative = drawn[:, 0] < 0
    assert abs(negative.mean() - 0.5) < 0.05
    places = np.abs(drawn.astype(int))
    assert (np.diff(places, axis=1) == 1).all()
    first, last = PART_OF_RAMP[split]
    assert places.min() >= first
    assert places.max() <= last
    room = last - first + 1 - length
    starts = places[:, 0] - first
    if room:
        assert stats.kstest((starts + 0.5) / (room + 1), "uniform").pvalue > 1e-3
        assert starts.min() <= room * 0.01
        assert starts.max() >= room * 0.99
    else:
        assert (starts == 0).all()


def test_each_clip_has_its_own_recording_and_place() -> None:
    bank = NoiseBank([RAMP, -RAMP])
    drawn = windows(bank, TRAINING, 100, 500)
    assert len({tuple(window[:1]) for window in drawn}) > 95
    # which recording tells nothing of where in it
    many = windows(bank, TRAINING, 4000, 500)[:, 0].astype(int)
    assert stats.ks_2samp(many[many > 0], -many[many < 0]).pvalue > 1e-3
    assert (drawn != windows(bank, TRAINING, 100, 500, seed=1)).any(axis=1).mean() > 0.9
    assert (drawn != windows(bank, TRAINING, 100, 500, stage="silence")).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(drawn, windows(bank, TRAINING, 100, 500))


@pytest.mark.parametrize("size", [10, 11, 99, 100, 12_345])
def test_parts_are_disjoint_and_whole_whatever_the_length(size: int) -> None:
    bank = NoiseBank([RAMP[:size]])
    used = {split: set(windows(bank, split, 3000, 1)[:, 0].tolist()) for split in SPLITS}
    assert not used[TRAINING] & used[VALIDATION]
    assert not used[VALIDATION] & used[TESTING]
    assert max(used[TRAINING]) < min(used[VALIDATION]) <= max(used[VALIDATION]) < min(used[TESTING])
    if size < 1000:
        assert set.union(*used.values()) == set(range(1, size + 1))


def test_a_part_shorter_than_the_window_is_repeated() -> None:
    bank = NoiseBank([RAMP[:100]])
    expected = np.resize(np.arange(81, 91), 35)
    np.testing.assert_array_equal(windows(bank, VALIDATION, 3, 35), [expected] * 3)


def test_windows_of_their_own_lengths_end_in_zeros() -> None:
    bank = NoiseBank([RAMP])
    lengths = np.array([100, 4000, 700, 1])
    drawn = bank.windows(TESTING, Draws(0, 0, np.arange(4)), "noise", lengths)
    assert drawn.shape == (4, 4000)
    for row, (window, length) in enumerate(zip(drawn, lengths, strict=True)):
        assert (window[:length] > 27_000).all()
        assert (window[length:] == 0).all()
        alone = bank.windows(TESTING, Draws(0, 0, np.array([row])), "noise", np.array([length]))[0]
        np.testing.assert_array_equal(window[:length], alone)


def test_low_level_noise_is_quiet_pink_and_the_same_for_a_data_seed() -> None:
    bank = NoiseBank.low_level(16000, 0)
    assert bank.generated
    assert not NoiseBank([RAMP]).generated
    drawn = windows(bank, TRAINING, 200, 16000) / 32768
    assert np.sqrt((drawn**2).mean()) == pytest.approx(GENERATED_RMS, rel=0.1)
    assert np.abs(drawn).max() < 10 * GENERATED_RMS
    power = (np.abs(np.fft.rfft(drawn)) ** 2).mean(axis=0)
    octaves = [power[low : 2 * low].sum() for low in (100, 200, 400, 800, 1600, 3200)]
    assert max(octaves) / min(octaves) < 1.5  # 1/f: every octave holds the same power
    np.testing.assert_array_equal(
        windows(NoiseBank.low_level(16000, 0), TESTING, 5, 16000), windows(bank, TESTING, 5, 16000)
    )
    other = windows(NoiseBank.low_level(16000, 1), TESTING, 5, 16000)
    assert (other != windows(bank, TESTING, 5, 16000)).mean() > 0.9


@pytest.mark.parametrize("data_seed", [-1, -(2**63), 2**63 - 1])
def test_low_level_noise_takes_any_seed(data_seed: int) -> None:
    assert windows(NoiseBank.low_level(8000, data_seed), TRAINING, 1, 100).any()


def test_chances_say_how_often_each_recording_is_used() -> None:
    bank = NoiseBank([np.full(1000, 1, np.int16), np.full(1000, 2, np.int16)], chances=[1.0, 3.0])
    used = bank.windows(TRAINING, Draws(0, 0, np.arange(4000)), "x", np.full(4000, 5))[:, 0]
    assert stats.binomtest(int((used == 2).sum()), 4000, 0.75).pvalue > 1e-3


def test_short_recordings_are_used_in_one_split_each() -> None:
    recordings = [np.full(100, number, np.int16) for number in range(1, 101)]
    bank = NoiseBank(recordings, whole_below=200, names=[f"{number}.wav" for number in range(1, 101)])
    used = {
        split: set(bank.windows(split, Draws(0, 0, np.arange(5000)), "x", np.full(5000, 90))[:, 0].tolist())
        for split in SPLITS
    }
    assert sum(map(len, used.values())) == 100
    assert set.union(*used.values()) == set(range(1, 101))
    assert len(used[TRAINING]) > 60


def test_a_recording_in_the_folder_of_a_split_is_used_there_alone() -> None:
    recordings = [np.full(1000, level, np.int16) for level in (1, 2)]
    bank = NoiseBank(recordings, splits=[TRAINING, TESTING])
    draws = Draws(0, 0, np.arange(200))
    heard = {split: set(np.unique(bank.windows(split, draws, "noise", np.full(200, 10)))) for split in SPLITS}
    # validation has no folder, and so a part of training's recording
    assert heard == {TRAINING: {1}, VALIDATION: {1}, TESTING: {1, 2}}


def test_few_short_recordings_are_cut_in_time_so_that_every_split_has_noise() -> None:
    bank = NoiseBank([np.arange(1, 101).astype(np.int16)], whole_below=200, names=["only.wav"])
    places = {split: bank.windows(split, Draws(0, 0, np.arange(50)), "x", np.full(50, 5)) for split in SPLITS}
    assert places[TRAINING].max() <= 80 < places[VALIDATION].min()
    assert places[VALIDATION].max() <= 90 < places[TESTING].min()
