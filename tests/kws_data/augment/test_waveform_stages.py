from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy import signal, stats
from threadpoolctl import threadpool_limits

from kws_data.audio import read_pcm
from kws_data.augment.augmentation import Augmentation
from kws_data.augment.background_noise import BackgroundNoise
from kws_data.augment.gain import Gain
from kws_data.augment.mixup import Mixup
from kws_data.augment.polarity import Polarity
from kws_data.augment.reverb import Reverb
from kws_data.augment.speed import Speed
from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.augment.time_mask import TimeMask
from kws_data.augment.time_shift import TimeShift
from kws_data.augment.white_noise import WhiteNoise
from kws_data.draws import Draws
from kws_data.errors import KwsError
from kws_data.noise import NoiseBank
from kws_data.splits import TRAINING

RATE = 16000
MANY = 4000
NOISE = NoiseBank([np.random.default_rng(seed).integers(-3000, 3000, 60_000).astype(np.int16) for seed in range(3)])

# One of each, at settings under which every clip is changed
STAGES: dict[str, Callable[[], WaveformStage]] = {
    "mixup": lambda: Mixup(alpha=0.5, probability=1.0),
    "time_shift": lambda: TimeShift(100),
    "speed": lambda: Speed((0.8, 1.25)),
    "reverb": lambda: Reverb(RATE, probability=1.0),
    "gain": lambda: Gain((-10, -3)),
    "polarity": lambda: Polarity(0.5),
    "background_noise": lambda: BackgroundNoise(0.1, 1.0),
    "background_noise at an SNR": lambda: BackgroundNoise(None, 1.0, (-5, 20)),
    "time_mask": lambda: TimeMask(100, 1.0),
    "white_noise": lambda: WhiteNoise((-60, -40)),
}
MOVING_ROWS = np.random.default_rng(5).normal(0, 3000, (40, RATE)).clip(-32768, 32767).astype(np.int16)


def batch_of(rows: Any, ids: Any = None, silence: Any = None) -> ClipBatch:
    """Clips of any lengths, padded with zeros to the longest."""
    lengths = np.array([len(row) for row in rows], np.int32)
    pcm = np.zeros((len(rows), lengths.max()), np.int16)
    for place, row in zip(pcm, rows, strict=True):
        place[: len(row)] = row
    ids = np.arange(len(rows)) if ids is None else np.asarray(ids)
    return ClipBatch(pcm, lengths, (ids % 7).astype(np.int32), ids, np.zeros(len(rows), bool)
                     if silence is None else np.array(silence))  # fmt: skip


def context(clip_samples: int | None = RATE, noise: NoiseBank = NOISE, words: Any = None) -> StageContext:
    pool = np.arange(100, 140) if words is None else np.asarray(words)
    return StageContext(noise, TRAINING, RATE, clip_samples, pool, partners)


def partners(ids: np.ndarray) -> ClipBatch:
    return batch_of([MOVING_ROWS[example % 40] for example in ids], ids)


def drawn_by(stage: WaveformStage, batch: ClipBatch, seed: int = 0, epoch: int = 0, **options: Any) -> Any:
    return stage.prepare(batch, Draws(seed, epoch, batch.ids), context(**options))


def augmented(stages: Any, batch: ClipBatch, *, seed: int = 0, epoch: int = 0, **options: Any) -> np.ndarray:
    """What the whole stage, or chain of them by name, makes of a batch, unclipped; lengths are in the batch."""
    import tensorflow as tf

    stages = {"stage": stages} if isinstance(stages, WaveformStage) else stages
    chain = Augmentation(stages, clipping="leave")
    drawn = chain.prepare(batch, Draws(seed, epoch, batch.ids), context(**options))
    waveform = tf.constant(batch.pcm.astype(np.float32) / 32768)
    return chain.apply_to_waveform(waveform, {name: tf.constant(value) for name, value in drawn.items()}).numpy()


def tiny(count: int = MANY, samples: int = 400) -> ClipBatch:
    return batch_of(np.full((count, samples), 1000, np.int16))


def db(ratio: Any) -> Any:
    return 10 * np.log10(ratio)


# What is drawn -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [1.0, 0.3])
def test_gains_are_uniform_in_db(probability: float) -> None:
    rows = augmented(Gain((-12, 3), probability), tiny(samples=2), clip_samples=2)
    gains = 20 * np.log10(rows[:, 0] / (1000 / 32768))
    changed = np.abs(gains) > 1e-4
    assert stats.binomtest(int(changed.sum()), MANY, probability).pvalue > 1e-3
    assert stats.kstest(gains[changed], stats.uniform(-12, 15).cdf).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_a_fraction_of_the_clips_is_turned_upside_down(probability: float) -> None:
    rows = augmented(Polarity(probability), tiny(samples=3), clip_samples=3)
    assert set(np.unique(rows)) <= {np.float32(1000 / 32768), -np.float32(1000 / 32768)}
    assert stats.binomtest(int((rows[:, 0] < 0).sum()), MANY, probability).pvalue > 1e-3
    assert (rows == rows[:, :1]).all()


def test_white_noise_has_the_levels_asked_for_and_is_each_clips_own() -> None:
    batch = batch_of(np.zeros((1000, 4000), np.int16))
    rows = augmented(WhiteNoise((-80, -40), 0.6), batch, clip_samples=4000)
    noisy = rows.any(axis=1)
    assert stats.binomtest(int(noisy.sum()), 1000, 0.6).pvalue > 1e-3
    levels = db((rows[noisy].astype(float) ** 2).mean(axis=1))
    assert stats.kstest(levels, stats.uniform(-80, 40).cdf).pvalue > 1e-3
    first = rows[noisy][0] / rows[noisy][0].std()
    assert stats.kstest(first, "norm").pvalue > 1e-4
    spectrum = np.abs(np.fft.rfft(first)) ** 2
    assert 0.8 < spectrum[:1000].mean() / spectrum[1000:].mean() < 1.25  # white
    normal = rows[noisy][:200] / rows[noisy][:200].std(axis=1, keepdims=True)
    alike = normal @ normal.T / 4000 - np.eye(200)
    assert (np.abs(alike) > 0.9).mean() < 0.01


def test_time_masks_have_the_widths_and_places_asked_for() -> None:
    lengths = np.where(np.arange(MANY) % 2, 400, 100)
    batch = batch_of([np.full(length, 1000, np.int16) for length in lengths])
    rows = augmented(TimeMask(2.0, 0.8), batch, clip_samples=400)  # 32 samples
    masked = (rows == 0) & (np.arange(400) < lengths[:, None])
    widths = masked.sum(axis=1)
    starts = masked.argmax(axis=1)
    ends = 400 - masked[:, ::-1].argmax(axis=1)
    assert (widths == np.where(widths, ends - starts, 0)).all()  # in one piece
    expected = np.array([0.2 + 0.8 / 33, *[0.8 / 33] * 32]) * MANY
    assert stats.chisquare(np.bincount(widths, minlength=33), expected).pvalue > 1e-3
    for length in (100, 400):
        chosen = (lengths == length) & (widths > 0)
        assert stats.kstest(starts[chosen] / (length - widths[chosen] + 1), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("max_ms", [0.0, 0.03, 0.09, 1.99 * 1000 / RATE])
def test_a_time_mask_is_never_longer_than_asked(max_ms: float) -> None:
    rows = augmented(TimeMask(max_ms, 1.0), tiny(500, 10), clip_samples=10)
    assert (rows == 0).sum(axis=1).max() == int(max_ms * RATE / 1000)


def test_a_time_mask_longer_than_the_clip_stays_in_it() -> None:
    batch = batch_of([np.full(length, 1000, np.int16) for length in [1, 5, 30] * 50])
    drawn = drawn_by(TimeMask(1000, 1.0), batch, clip_samples=None)
    assert (drawn["start"] >= 0).all()
    assert (drawn["end"] <= batch.lengths).all()
    assert (drawn["end"] == batch.lengths).any()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_weights_are_of_the_beta_distribution(alpha: float) -> None:
    batch = tiny(samples=4)
    weights = drawn_by(Mixup(alpha, 0.7), batch, clip_samples=4)["weight"]
    assert batch.label_weights is not None
    np.testing.assert_array_equal(weights, batch.label_weights)
    mixed = weights < 1
    if alpha >= 1:  # below, many weights are so close to 1 as to be 1
        assert stats.binomtest(int(mixed.sum()), MANY, 0.7).pvalue > 1e-3
    beta = stats.beta(alpha, alpha)
    for weight in (0.6, 0.8, 0.95):
        expected = 0.7 * (beta.cdf(weight) - beta.cdf(1 - weight))
        assert stats.binomtest(int((weights < weight).sum()), MANY, expected).pvalue > 1e-3
    assert weights.min() >= 0.5


def test_mixup_mixes_clips_and_labels_alike() -> None:
    silence = np.arange(300) % 3 == 0
    batch = batch_of([MOVING_ROWS[row % 40] for row in range(300)], silence=silence)
    before = batch.pcm / 32768
    labels = batch.labels.copy()
    stage = Mixup(0.5, 1.0)
    drawn = drawn_by(stage, batch)
    after = stage.apply(before.astype(np.float32), drawn).numpy()
    assert batch.second_labels is not None
    assert batch.label_weights is not None
    np.testing.assert_array_equal(batch.labels, labels)
    np.testing.assert_array_equal(batch.label_weights[silence], 1)
    np.testing.assert_array_equal(after[silence], before[silence].astype(np.float32))
    # every partner is one clip of the pool, and its label comes with it
    for row in np.flatnonzero(~silence):
        partner = np.flatnonzero((MOVING_ROWS[:, :50] == drawn["partner"][row, :50]).all(axis=1))
        assert batch.second_labels[row] in {example % 7 for example in range(100, 140) if example % 40 == partner[0]}
        weight = batch.label_weights[row]
        expected = weight * before[row] + (1 - weight) * MOVING_ROWS[partner[0]] / 32768
        np.testing.assert_allclose(after[row], expected, atol=1e-6)
    assert len(np.unique(drawn["partner"][:, :50], axis=0)) > 35


def test_without_words_nothing_is_mixed() -> None:
    batch = tiny(10)
    before = batch.pcm / np.float32(32768)
    np.testing.assert_array_equal(augmented(Mixup(0.5, 1.0), batch, clip_samples=400, words=[]), before)
    assert batch.second_labels is None


# Independence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_samples", [RATE, None])
@pytest.mark.parametrize("name", STAGES)
def test_a_clip_is_augmented_alike_whatever_stands_beside_it(name: str, clip_samples: int | None) -> None:
    ids = np.array([3, 11, 4, 27, 8])
    rows = [MOVING_ROWS[example][: [16000, 9000, 4001, 321, 12345][place]] for place, example in enumerate(ids)]
    if clip_samples:
        rows = [np.pad(row, (0, RATE - len(row))) for row in rows]
    together = batch_of(rows, ids)
    stage = STAGES[name]()
    after = augmented(stage, together, clip_samples=clip_samples)
    assert after.shape == together.pcm.shape
    for place in range(5):
        alone = batch_of(rows[place : place + 1], ids[place : place + 1])
        row = augmented(stage, alone, clip_samples=clip_samples)[0]
        length = int(alone.lengths[0])
        assert together.lengths[place] == length
        np.testing.assert_allclose(after[place, :length], row[:length], atol=2e-6)
        assert not after[place, length:].any() or clip_samples
    order = [4, 2, 0, 1, 3]
    turned = augmented(stage, batch_of([rows[place] for place in order], ids[order]), clip_samples=clip_samples)
    np.testing.assert_allclose(turned, after[order], atol=2e-6)


@pytest.mark.parametrize("name", STAGES)
def test_draws_depend_on_seed_epoch_id_and_name(name: str) -> None:
    def once(seed: int = 0, epoch: int = 0, as_name: str = "stage", ids: Any = None) -> np.ndarray:
        return augmented({as_name: STAGES[name]()}, batch_of(MOVING_ROWS[:12], ids), seed=seed, epoch=epoch)

    first = once()
    np.testing.assert_array_equal(first, once())
    others = [once(seed=1), once(epoch=1), once(as_name="other"), once(ids=np.arange(12) + 50)]
    for other in others:
        # polarity has only two outcomes, so that single clips may agree
        assert (other != first).any(axis=1).mean() > (0 if name == "polarity" else 0.8)


@pytest.mark.parametrize("name", ["gain", "polarity", "white_noise", "background_noise", "time_mask"])
def test_two_stages_of_a_kind_draw_independently(name: str) -> None:
    batch = tiny(2000, 30)
    chain = Augmentation({"one": STAGES[name](), "two": STAGES[name]()})
    drawn = chain.prepare(batch, Draws(0, 0, batch.ids), context(30))
    pairs = {
        "gain": "factor", "polarity": "sign", "white_noise": "scale", "background_noise": "amount",
        "time_mask": "start",
    }  # fmt: skip
    one, two = (drawn[f"{stage}/{pairs[name]}"] for stage in ("one", "two"))
    assert np.std(one) > 0
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.08


def test_another_stage_changes_no_draw_of_the_others() -> None:
    def draws_with(names: list[str]) -> dict[str, np.ndarray]:
        batch = batch_of(MOVING_ROWS[:20])
        chain = Augmentation({name: STAGES[name]() for name in names})
        return chain.prepare(batch, Draws(0, 0, batch.ids), context())

    every = draws_with(list(STAGES))
    for name in STAGES:
        for parameter, value in draws_with([name]).items():
            np.testing.assert_array_equal(value, every[parameter])


@pytest.mark.parametrize("clip_samples", [RATE, None])
@pytest.mark.parametrize("name", STAGES)
def test_parameters_are_as_declared(name: str, clip_samples: int | None) -> None:
    rows = MOVING_ROWS[:6] if clip_samples else [MOVING_ROWS[place][: 900 + place] for place in range(6)]
    batch = batch_of(rows)
    chain = Augmentation({name: STAGES[name]()})
    drawn = chain.prepare(batch, Draws(0, 0, batch.ids), context(clip_samples))
    declared = {
        parameter: (dtype, (6, *(batch.pcm.shape[1] if size is None else size for size in shape)))
        for parameter, (dtype, shape) in chain.parameter_shapes().items()
    }
    assert {parameter: (str(value.dtype), value.shape) for parameter, value in drawn.items()} == declared


# Silence rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["mixup", "time_shift", "speed", "reverb", "background_noise", "background_noise at an SNR", "white_noise"]
)
def test_silence_rows_stay_as_they_are(name: str) -> None:
    silence = np.arange(20) % 2 == 0
    batch = batch_of(MOVING_ROWS[:20], silence=silence)
    before = batch.pcm / np.float32(32768)
    after = augmented(STAGES[name](), batch)
    np.testing.assert_array_equal(after[silence], before[silence])
    assert (after[~silence] != before[~silence]).any(axis=1).all()


# Background noise at an SNR ------------------------------------------------------------------------------------------


def active_power(clip: np.ndarray) -> float:
    """By the definition: mean power of the 20 ms frames within 30 dB of the loudest."""
    frames = np.pad(clip.astype(float), (0, -len(clip) % 320)).reshape(-1, 320)
    power = (frames**2).mean(axis=1)
    return float(power[power >= power.max() / 1000].mean())


def test_snrs_of_real_clips_are_as_drawn(real_data: Path) -> None:
    files = sorted(real_data.glob("[a-z]*/*_nohash_*.wav"))[::40][:120]
    recordings = [read_pcm(path, RATE) for path in sorted((real_data / "_background_noise_").glob("*.wav"))]
    clips = [read_pcm(path, RATE) for path in files]
    clips = [np.pad(clip, (0, max(0, RATE - len(clip))))[:RATE] for clip in clips if clip.any()]
    assert len(clips) > 50
    measured = []
    for seed in range(3):
        after = augmented(BackgroundNoise(None, 0.9, (-5, 20)), batch_of(clips), seed=seed, noise=NoiseBank(recordings))
        for clip, row in zip(clips, after, strict=True):
            noise = row - clip / 32768
            if np.abs(noise).max() > 1e-5:
                measured.append(db(active_power(clip / 32768) / (noise.astype(float) ** 2).mean()))
    assert stats.binomtest(len(measured), 3 * len(clips), 0.9).pvalue > 1e-3
    assert stats.kstest(measured, stats.uniform(-5, 25).cdf).pvalue > 1e-3
    fixed = augmented(BackgroundNoise(None, 1.0, (10, 10)), batch_of(clips), noise=NoiseBank(recordings))
    for clip, row in zip(clips, fixed, strict=True):
        noise = row - clip / 32768
        assert db(active_power(clip / 32768) / (noise.astype(float) ** 2).mean()) == pytest.approx(10, abs=0.5)


def test_pauses_do_not_count_for_the_snr() -> None:
    word = np.zeros(RATE)
    word[3840:5440] = np.random.default_rng(0).normal(0, 3000, 1600)  # a tenth of the clip
    tight = augmented(BackgroundNoise(None, 1.0, (20, 20)), batch_of([word]))[0] - word.astype(np.int16) / 32768
    assert db((word[3840:5440] / 32768).var() / (tight**2).mean()) == pytest.approx(20, abs=0.2)


def test_neither_silent_clips_nor_silent_noise_have_an_snr() -> None:
    stage = BackgroundNoise(None, 1.0, (0, 0))
    clips = [np.zeros(RATE, np.int16), MOVING_ROWS[0]]
    after = augmented(stage, batch_of(clips))
    assert not after[0].any()
    assert (after[1] != MOVING_ROWS[0] / 32768).any()
    silent = augmented(stage, batch_of(clips), noise=NoiseBank([np.zeros(60_000, np.int16)]))
    np.testing.assert_array_equal(silent, np.stack(clips) / 32768)


def test_the_snr_is_that_of_the_clip_not_of_its_padding() -> None:
    clips = [MOVING_ROWS[0], MOVING_ROWS[1][:1000]]
    after = augmented(BackgroundNoise(None, 1.0, (6, 6)), batch_of(clips), clip_samples=None)
    noise = after[1, :1000] - clips[1] / 32768
    assert db(active_power(clips[1] / 32768) / (noise**2).mean()) == pytest.approx(6, abs=0.1)


# Speed ---------------------------------------------------------------------------------------------------------------


def tone(frequency: float, samples: int = RATE) -> np.ndarray:
    return np.rint(10_000 * np.sin(2 * np.pi * frequency * np.arange(samples) / RATE)).astype(np.int16)


def pitch(row: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(row * np.hanning(len(row)), 8 * len(row)))
    return float(spectrum.argmax() * RATE / (8 * len(row)))


@pytest.mark.parametrize("factor", [0.5, 0.85, 0.9, 1.1, 1.15, 2.0])
@pytest.mark.parametrize("clip_samples", [RATE, None])
def test_a_faster_clip_is_higher_and_shorter(factor: float, clip_samples: int | None) -> None:
    batch = batch_of([tone(440)])
    row = augmented(Speed((factor, factor)), batch, clip_samples=clip_samples)[0]
    sounding = np.flatnonzero(np.abs(row) > 1e-3)
    span = sounding[-1] - sounding[0] + 1
    expected = RATE / factor if clip_samples is None else min(RATE, RATE / factor)
    assert span == pytest.approx(expected, abs=40)
    assert pitch(row[sounding[0] : sounding[-1]]) == pytest.approx(440 * factor, abs=0.6)
    assert batch.lengths[0] == (RATE if clip_samples else round(RATE / factor))
    if clip_samples and factor > 1:  # about the middle, and nothing wraps around
        assert sounding[0] == pytest.approx(RATE - 1 - sounding[-1], abs=40)


@pytest.mark.parametrize("factor", [0.5, 0.85, 0.9025, 1.1, 1.1575, 2.0])
def test_speed_keeps_the_band_that_both_rates_have(factor: float) -> None:
    middle, place = (RATE - 1) / 2, np.arange(5000, 11_000)
    for frequency in np.array([0.01, 0.1, 0.4, 0.76]) * 8000 / max(1, factor):
        row = augmented(Speed((factor, factor)), batch_of([tone(frequency)]))[0].astype(float)[place]
        source = (place - middle) * factor + middle
        expected = 10_000 / 32768 * np.sin(2 * np.pi * frequency * source / RATE)
        assert db(((row - expected) ** 2).mean() / (expected**2).mean()) < -57


@pytest.mark.parametrize("factor", [1.1, 1.15, 1.25, 1.5, 2.0])
def test_what_becomes_too_high_for_the_rate_is_gone(factor: float) -> None:
    nyquist = RATE / 2
    for frequency in np.linspace(nyquist / factor, nyquist, 7)[:-1] + 20:
        row = augmented(Speed((factor, factor)), batch_of([tone(frequency)]))[0].astype(float)
        assert db((row[5000:11_000] ** 2).mean() / (tone(frequency) / 32768).var()) < -57


@pytest.mark.parametrize("factor", [0.5, 0.8, 0.95])
def test_a_slower_clip_has_no_images_above_its_band(factor: float) -> None:
    noise = np.random.default_rng(0).normal(0, 3000, RATE).astype(np.int16)
    row = augmented(Speed((factor, factor)), batch_of([noise]))[0].astype(float)
    spectrum = np.abs(np.fft.rfft(row * np.hanning(RATE))) ** 2
    assert db(spectrum[int(8000 * factor) :].max() / spectrum[: int(6000 * factor)].mean()) < -50


@pytest.mark.parametrize("stage", [Speed((1, 1)), Speed((0.999, 1.001)), Speed((0.8, 1.2), 0.0)])
@pytest.mark.parametrize("clip_samples", [RATE, None])
def test_at_its_own_speed_a_clip_keeps_its_bits(stage: Speed, clip_samples: int | None) -> None:
    rows = [*MOVING_ROWS[:6], np.full(RATE, -32768, np.int16)]
    rows = rows if clip_samples else [*rows, MOVING_ROWS[7][:777]]
    batch = batch_of(rows)
    before = batch.pcm.copy()
    assert drawn_by(stage, batch, clip_samples=clip_samples) == {}
    np.testing.assert_array_equal(batch.pcm, before)
    assert batch.lengths.tolist() == [len(row) for row in rows]


def test_factors_are_uniform_in_small_steps() -> None:
    batch = tiny(samples=10)
    stage = Speed((0.8, 1.3), 0.5)
    factors = stage.factors(batch, Draws(0, 0, batch.ids))
    changed = factors != 1
    assert stats.binomtest(int(changed.sum()), MANY, 0.5).pvalue > 1e-3
    assert stats.kstest(factors[changed], stats.uniform(0.8, 0.5).cdf).pvalue > 1e-3
    np.testing.assert_allclose(factors * 400, np.rint(factors * 400), atol=1e-9)
    one, two = (stage.factors(batch, Draws(0, 0, batch.ids).of(name)) for name in ("one", "two"))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.08


def test_the_bits_do_not_depend_on_threads() -> None:
    rows = [np.tile(MOVING_ROWS[place], 12) for place in range(4)]  # long enough for BLAS to want threads

    def once(_: int = 0) -> bytes:
        batch = batch_of(rows)
        Speed((0.5, 2.0)).prepare(batch, Draws(3, 0, batch.ids), context(None))
        return batch.pcm.tobytes()

    with threadpool_limits(1):
        alone = once()
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(once, range(12))) == {alone}


def test_an_overshoot_beyond_full_scale_is_clipped() -> None:
    square = np.where(np.arange(RATE) // 100 % 2, -32768, 32767)
    row = augmented(Speed((0.8, 0.8)), batch_of([square]))[0]
    assert row.max() == np.float32(32767 / 32768)
    assert row.min() == -1
    source = np.rint((np.arange(RATE) - 7999.5) * 0.8 + 7999.5).astype(int)
    plateau = (source % 100 > 5) & (source % 100 < 95)
    assert (row * square[source] / 32768)[plateau].min() > 0.8  # and none wraps to the other sign


def test_a_short_clip_that_a_shift_moved_is_not_cut_at_its_former_end() -> None:
    batch = batch_of([np.pad(tone(440, 4000), (0, RATE - 4000))] * 30)
    batch.lengths[:] = 4000
    rows = augmented({"time_shift": TimeShift(100), "speed": Speed((0.8, 0.8))}, batch)
    sounding = [np.flatnonzero(np.abs(row) > 1e-3) for row in rows]
    later = [np.ptp(places) for places in sounding if places[0] > 30]
    assert len(later) > 5
    np.testing.assert_allclose(later, 5000, atol=40)


def test_a_short_clip_in_its_padding_changes_its_length() -> None:
    clips = [np.pad(tone(440, length), (0, RATE - length)) for length in (4000, 15_900, 4000, 8000)]
    batch = batch_of(clips, silence=[False, False, True, False])
    batch.lengths = np.array([4000, 15_900, 4000, 8000], np.int32)
    rows = augmented(Speed((0.8, 0.8)), batch)
    assert rows.shape == (4, RATE)
    assert batch.lengths.tolist() == [5000, RATE, 4000, 10_000]
    for row, length in zip(rows, batch.lengths, strict=True):
        assert not row[length + 3 :].any()
        assert row[length - 100 : length].any()


def test_lengths_follow_the_speed_and_what_comes_later_follows_them() -> None:
    clips = [tone(440, length) for length in (1, 7, 5000, 4000)]
    batch = batch_of(clips)
    stages = {"mixup": Mixup(0.5, 1.0), "speed": Speed((0.5, 0.5)), "reverb": Reverb(RATE, probability=1.0),
              "background_noise": BackgroundNoise(0.1, 1.0), "white_noise": WhiteNoise((-50, -50))}  # fmt: skip
    rows = augmented(stages, batch, clip_samples=None)
    assert batch.lengths.tolist() == [2, 14, 10_000, 8000]
    assert rows.shape == batch.pcm.shape == (4, 10_000)
    for row, length in zip(rows, batch.lengths, strict=True):
        assert not row[length:].any()
        assert row[:length].all()  # noise up to the end
    faster = batch_of(clips)
    rows = augmented(stages | {"speed": Speed((2, 2))}, faster, clip_samples=None)
    assert faster.lengths.tolist() == [1, 4, 2500, 2000]
    assert rows.shape == (4, 5000)
    assert not rows[np.arange(5000) >= faster.lengths[:, None]].any()


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_shift_after_a_change_of_speed_still_moves_the_whole_clip(factor: float) -> None:
    clip = np.zeros(4000, np.int16)
    clip[1000:3000] = tone(440, 2000)
    batch = batch_of([clip] * 30)
    rows = augmented({"speed": Speed((factor, factor)), "time_shift": TimeShift(50)}, batch, clip_samples=None)
    energy = (rows.astype(float) ** 2).sum(axis=1)
    np.testing.assert_allclose(energy, energy.mean(), rtol=1e-3)  # nothing torn off or left behind
    for row in rows:
        sounding = np.flatnonzero(np.abs(row) > 0.01)
        assert sounding[-1] - sounding[0] == pytest.approx(2000 / factor, abs=40)


# Reverberation -------------------------------------------------------------------------------------------------------


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


# Parameters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "parameter"),
    [
        (lambda: Gain((3, -3)), "gain_db"),
        (lambda: Gain((-3, float("nan"))), "gain_db"),
        (lambda: Gain(3), "gain_db"),  # type: ignore[arg-type]
        (lambda: Gain("lo"), "gain_db"),  # type: ignore[arg-type]
        (lambda: Gain((-3, 3), 1.5), "probability"),
        (lambda: Gain((-3, 3), None), "probability"),  # type: ignore[arg-type]
        (lambda: Polarity(-0.1), "probability"),
        (lambda: Polarity(float("nan")), "probability"),
        (lambda: WhiteNoise((-50, 10)), "level_db"),
        (lambda: WhiteNoise((-50, -40), 2), "probability"),
        (lambda: TimeMask(-1), "max_ms"),
        (lambda: TimeMask(float("nan")), "max_ms"),
        (lambda: TimeMask(float("inf")), "max_ms"),
        (lambda: TimeMask(10, 7), "probability"),
        (lambda: Speed((0, 1)), "factor"),
        (lambda: Speed((1.2, 0.8)), "factor"),
        (lambda: Speed((0.9, 1.1), -1), "probability"),
        (lambda: Reverb(RATE, rt60_s=(0, 1)), "rt60_s"),
        (lambda: Reverb(RATE, direct_to_reverberant_db=(5, 0)), "direct_to_reverberant_db"),
        (lambda: Reverb(RATE, probability=2), "probability"),
        (lambda: Mixup(0), "alpha"),
        (lambda: Mixup(float("nan")), "alpha"),
        (lambda: Mixup(float("inf")), "alpha"),
        (lambda: Mixup(0.2, 5), "probability"),
        (lambda: BackgroundNoise(None, 0.5), "background_volume"),
        (lambda: BackgroundNoise(0.1, 0.5, (0, 10)), "background_volume"),
        (lambda: BackgroundNoise(None, 0.5, (10, 0)), "snr_db"),
        (lambda: BackgroundNoise(None, 0.5, (0, 1, 2)), "snr_db"),  # type: ignore[arg-type]
    ],
)
def test_wrong_parameters_are_refused_by_name(build: Any, parameter: str) -> None:
    with pytest.raises(ValueError, match=f"^{parameter}"):
        build()
