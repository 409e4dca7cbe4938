"""What holds for every stage of augmentation: independence of other clips, repeatable draws, declared parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kws_data.augment.augmentation import Augmentation
from kws_data.augment.background_noise import BackgroundNoise
from kws_data.augment.equalizer import Equalizer
from kws_data.augment.frequency_warp import FrequencyWarp
from kws_data.augment.gain import Gain
from kws_data.augment.mixup import Mixup
from kws_data.augment.polarity import Polarity
from kws_data.augment.reverb import Reverb
from kws_data.augment.spec_augment import SpecAugment
from kws_data.augment.spec_cutout import SpecCutout
from kws_data.augment.speed import Speed
from kws_data.augment.time_mask import TimeMask
from kws_data.augment.time_shift import TimeShift
from kws_data.augment.white_noise import WhiteNoise
from kws_data.draws import Draws
from tests.kws_data.augment.clips import MOVING_ROWS, RATE, STAGES, WORDS, augmented, batch_of, context, tiny


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
        rows = WORDS if name == "context" else MOVING_ROWS  # a word that fills its clip has no place to go
        return augmented({as_name: STAGES[name]()}, batch_of(rows[:12], ids), seed=seed, epoch=epoch)

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


@pytest.mark.parametrize(
    "name",
    [
        "mixup", "time_shift", "speed", "reverb", "equalizer", "background_noise", "background_noise at an SNR",
        "white_noise",
    ],
)  # fmt: skip
def test_silence_rows_stay_as_they_are(name: str) -> None:
    silence = np.arange(20) % 2 == 0
    batch = batch_of(MOVING_ROWS[:20], silence=silence)
    before = batch.pcm / np.float32(32768)
    after = augmented(STAGES[name](), batch)
    np.testing.assert_array_equal(after[silence], before[silence])
    assert (after[~silence] != before[~silence]).any(axis=1).all()


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
        (lambda: TimeShift(-1), "time_shift_ms"),
        (lambda: TimeShift(float("nan")), "time_shift_ms"),
        (lambda: TimeShift(float("inf")), "time_shift_ms"),
        (lambda: BackgroundNoise(-0.1, 0.8), "background_volume"),
        (lambda: BackgroundNoise(1.1, 0.8), "background_volume"),
        (lambda: BackgroundNoise(0.1, 80), "background_frequency"),
        (lambda: BackgroundNoise(0.1, -1), "background_frequency"),
        (lambda: SpecAugment(-1, 2, 2, 2), "time_masks"),
        (lambda: SpecAugment(1, -2, 2, 2), "max_frames"),
        (lambda: SpecAugment(1, 2, 1.5, 2), "frequency_masks"),  # type: ignore[arg-type]
        (lambda: SpecAugment(1, 2, 1, None), "max_bins"),  # type: ignore[arg-type]
        (lambda: Equalizer((3, -3)), "gain_db"),
        (lambda: Equalizer(points=1), "points"),
        (lambda: Equalizer(probability=2), "probability"),
        (lambda: FrequencyWarp((0, 1)), "factor"),
        (lambda: FrequencyWarp((0.9, 1.3)), "factor"),
        (lambda: FrequencyWarp(probability=-1), "probability"),
        (lambda: SpecCutout("3", 2, 2), "masks"),  # type: ignore[arg-type]
        (lambda: SpecCutout(3, -1, 2), "max_frames"),
        (lambda: SpecCutout(3, 1, -2), "max_bins"),
    ],
)
def test_wrong_parameters_are_refused_by_name(build: Any, parameter: str) -> None:
    with pytest.raises(ValueError, match=f"^{parameter}"):
        build()
