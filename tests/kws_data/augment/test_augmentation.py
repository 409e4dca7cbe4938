from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_data.augment.augmentation import Augmentation
from kws_data.augment.background_noise import BackgroundNoise
from kws_data.augment.gain import Gain
from kws_data.augment.mixup import Mixup
from kws_data.augment.spec_augment import SpecAugment
from kws_data.augment.speed import Speed
from kws_data.augment.stage import ClipBatch, StageContext, WaveformStage
from kws_data.augment.time_shift import TimeShift
from kws_data.draws import Draws
from kws_data.errors import KwsError
from kws_data.noise import NoiseBank
from kws_data.splits import TRAINING
from kws_experiments.config.compose import CONF, compose
from kws_experiments.experiment.experiment import Experiment
from tests.conftest import MakeFolder
from tests.kws_data.augment.clips import FEATURE_STAGES, MOVING_ROWS, NOISE, RATE, STAGES, batch_of, context
from tests.kws_data.test_pipeline import from_folder

WAVEFORM = {name: build() for name, build in STAGES.items()}
FEATURES = {name: build() for name, build in FEATURE_STAGES.items()}


@pytest.fixture(scope="module", name="log_mel")
def log_mel_fixture() -> Any:
    from kws_data.features.log_mel import LogMel

    return LogMel()


def front_end_of(
    augmentation: Augmentation,
    batch: ClipBatch,
    features: Any = None,
    *,
    clip_samples: int | None = RATE,
    noise: NoiseBank = NOISE,
    seed: int = 0,
) -> Any:
    """What the front end makes of a batch, as NumPy arrays."""
    import tensorflow as tf

    from kws_data.front_end import FrontEnd

    drawn = augmentation.prepare(batch, Draws(seed, 0, batch.ids), context(clip_samples, noise))
    given = {"pcm": batch.pcm, "lengths": batch.lengths, "labels": batch.labels, "ids": batch.ids}
    tensors = {name: tf.constant(value) for name, value in (given | drawn).items()}
    outputs = FrontEnd(features, augmentation, variable_length=clip_samples is None)(tensors)
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), outputs)


# The chain -----------------------------------------------------------------------------------------------------------


def test_stages_apply_in_the_order_given() -> None:
    rows = np.full((50, 400), 8000, np.int16)
    noise: dict[str, WaveformStage] = {"background_noise": BackgroundNoise(1.0, 1.0)}
    lowered: dict[str, WaveformStage] = {"gain": Gain((-20, -20))}
    before = front_end_of(Augmentation(lowered | noise, clipping="leave"), batch_of(rows), clip_samples=400)["inputs"]
    after = front_end_of(Augmentation(noise | lowered, clipping="leave"), batch_of(rows), clip_samples=400)["inputs"]
    np.testing.assert_allclose(before - 800 / 32768, 10 * (after - 800 / 32768), atol=1e-5)


def test_samples_move_on_the_host_before_the_graph_runs() -> None:
    rows = [MOVING_ROWS[0][:3000], MOVING_ROWS[1][:2000]]
    moving = {"time_shift": TimeShift(50), "speed": Speed((1.25, 1.25))}
    mixing = {"mixup": Mixup(0.5, 1.0)}
    one = front_end_of(Augmentation(moving | mixing), batch_of(rows), clip_samples=None)["inputs"]
    other = front_end_of(Augmentation(mixing | moving), batch_of(rows), clip_samples=None)["inputs"]
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("clipping", ["clip", "normalise", "leave"])
def test_what_goes_beyond_full_scale_is_treated_as_chosen(clipping: Any) -> None:
    rows = np.stack([MOVING_ROWS[0], MOVING_ROWS[0] // 20, np.full(RATE, 32767), np.full(RATE, -32768), np.zeros(RATE)])
    augmentation = Augmentation({"gain": Gain((12, 12))}, clipping=clipping)
    after = front_end_of(augmentation, batch_of(rows))["inputs"]
    raised = rows.astype(np.int16) / 32768 * 10 ** (12 / 20)
    assert np.abs(raised[0]).max() > 1 > np.abs(raised[1]).max()
    if clipping == "clip":
        expected = raised.clip(-1, 1)
    elif clipping == "normalise":
        expected = raised / np.maximum(np.abs(raised).max(axis=1, keepdims=True), 1)
    else:
        expected = raised
    np.testing.assert_allclose(after, expected, rtol=1e-5)
    if clipping != "leave":
        assert np.abs(after).max() <= 1


def test_without_stages_clips_come_through_unchanged(log_mel: Any) -> None:
    rows = np.stack([MOVING_ROWS[0], np.full(RATE, -32768), np.full(RATE, 32767)])
    outputs = front_end_of(Augmentation(), batch_of(rows))
    np.testing.assert_array_equal(outputs["inputs"], rows / np.float32(32768))
    features = front_end_of(Augmentation(), batch_of(rows), log_mel)["inputs"]
    np.testing.assert_array_equal(features, log_mel(rows.astype(np.float32) / 32768).numpy())


def test_the_front_end_hands_on_labels_and_no_draws(log_mel: Any) -> None:
    batch = batch_of([MOVING_ROWS[row][: 4000 + 500 * row] for row in range(5)])
    outputs = front_end_of(Augmentation(WAVEFORM, FEATURES), batch, log_mel, clip_samples=None)
    assert set(outputs) == {"inputs", "lengths", "labels", "ids"}
    assert set(outputs["inputs"]) == {"features", "num_frames"}
    np.testing.assert_array_equal(outputs["inputs"]["num_frames"], log_mel.num_frames(batch.lengths))
    np.testing.assert_array_equal(outputs["lengths"], batch.lengths)
    assert outputs["inputs"]["features"].shape[1] >= outputs["inputs"]["num_frames"].max()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Augmentation(clipping="cut"), "^clipping must be one of clip, normalise, leave"),  # type: ignore[arg-type]
        (lambda: Augmentation({"mask": Gain((0, 1))}, {"mask": SpecAugment(1, 1, 1, 1)}), "^waveform .*'mask'"),
        (lambda: Augmentation({"one": Mixup(), "two": Mixup()}), "^waveform .*mixup"),
    ],
)
def test_wrong_augmentations_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("clip_samples", [RATE, None])
def test_all_stages_together_do_not_depend_on_the_batch(clip_samples: int | None, log_mel: Any) -> None:
    augmentation = Augmentation(WAVEFORM, FEATURES)
    lengths = [16000, 7000, 2345, 12000, 479]
    rows = [MOVING_ROWS[row][:length] for row, length in enumerate(lengths)]
    rows = [np.pad(row, (0, RATE - len(row))) for row in rows] if clip_samples else rows
    ids = np.array([9, 2, 77, 31, 4])
    silence = np.array([False, False, True, False, False])
    together = front_end_of(augmentation, batch_of(rows, ids, silence), log_mel, clip_samples=clip_samples)
    for row in range(5):
        chosen = slice(row, row + 1)
        single = batch_of(rows[chosen], ids[chosen], silence[chosen])
        alone = front_end_of(augmentation, single, log_mel, clip_samples=clip_samples)["inputs"]
        if clip_samples:
            np.testing.assert_allclose(together["inputs"][row], alone[0], atol=2e-3)
            continue
        frames = int(alone["num_frames"][0])
        assert together["inputs"]["num_frames"][row] == frames
        features = alone["features"][0]
        np.testing.assert_allclose(together["inputs"]["features"][row, :frames], features[:frames], atol=2e-3)


# Any clip at all -----------------------------------------------------------------------------------------------------


def wave(kind: str, length: int, seed: int) -> np.ndarray:
    time = np.arange(length)
    generator = np.random.default_rng(seed)
    made = {
        "silence": np.zeros(length),
        "square": np.where(time // (1 + seed % 40) % 2, -32768, 32767),
        "dc": np.full(length, [32767, -32768, 1, 700][seed % 4]),
        "impulse": np.where(time == seed % length, -32768, 0),
        "last bits": generator.integers(-1, 2, length),
        "one bit": np.where(time == seed % length, 1, 0),
        "speech-like": 8000 * np.sin(time * 0.05) * np.sin(time * 0.0007),
        "noise": generator.integers(-32768, 32768, length),
    }
    return made[kind].astype(np.int16)


KINDS = ("silence", "square", "dc", "impulse", "last bits", "one bit", "speech-like", "noise")
BANKS = {
    "noise": NOISE,
    "silent": NoiseBank([np.zeros(50_000, np.int16)]),
    "short": NoiseBank([np.arange(10, dtype=np.int16)]),
    "one bit": NoiseBank([wave("one bit", 20_000, 3), wave("last bits", 10, 0)]),
    "full scale": NoiseBank([wave("square", 30_000, 7)]),
}
clips = st.tuples(
    st.sampled_from(KINDS), st.sampled_from([1, 2, 3, 319, 320, 321, 480, 48_000]) | st.integers(1, 48_000),
    st.integers(0, 99_999), st.booleans(),
)  # fmt: skip


@settings(deadline=None, max_examples=80)
@given(
    st.lists(clips, min_size=1, max_size=4), st.booleans(), st.sampled_from(sorted(BANKS)),
    st.sampled_from(["clip", "normalise", "leave"]), st.permutations(list(WAVEFORM)), st.integers(0, 99),
)  # fmt: skip
def test_any_clips_come_out_finite_in_shape_and_in_range(
    log_mel: Any, drawn: Any, variable: bool, bank: str, clipping: Any, order: list[str], seed: int
) -> None:
    rows = [wave(kind, length, number) for kind, length, number, _ in drawn]
    if not variable:
        rows = [np.pad(row, (0, max(0, RATE - len(row))))[:RATE] for row in rows]
    batch = batch_of(rows, silence=[silent for *_, silent in drawn])
    if not variable:
        batch.lengths = np.array([min(length, RATE) for _, length, *_ in drawn], np.int32)
    before = batch.lengths.copy()
    stages = {name: WAVEFORM[name] for name in order}
    options: dict[str, Any] = {
        "clip_samples": None if variable else RATE, "noise": BANKS[bank], "seed": seed
    }  # fmt: skip
    fresh = ClipBatch(batch.pcm.copy(), before.copy(), batch.labels, batch.ids, batch.silence)
    waveform = front_end_of(Augmentation(stages, clipping=clipping), batch, **options)["inputs"]
    assert waveform.dtype == np.float32
    assert np.isfinite(waveform).all()
    if clipping != "leave":
        assert np.abs(waveform).max() <= 1
    assert waveform.shape == batch.pcm.shape
    assert (batch.lengths >= 1).all()
    assert (batch.lengths <= waveform.shape[1]).all()
    if variable:
        assert not waveform[np.arange(waveform.shape[1]) >= batch.lengths[:, None]].any()
        expected = before / 0.8 + 1
        assert (batch.lengths <= expected).all()
    else:
        assert waveform.shape[1] == RATE
    outputs = front_end_of(Augmentation(stages, FEATURES, clipping), fresh, log_mel, **options)["inputs"]
    features = outputs["features"] if variable else outputs
    assert np.isfinite(features).all()
    assert features.shape == (len(rows), log_mel.num_frames(waveform.shape[1]), 40)
    assert (batch.lengths == before)[batch.silence].all()


# Inside and outside tf.data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_samples", [RATE, None])
def test_on_the_device_as_in_tf_data(make_folder: MakeFolder, log_mel: Any, clip_samples: int | None) -> None:
    import tensorflow as tf

    from kws_data.front_end import FrontEnd
    from kws_data.pipeline import batches, host_batches, training_plan

    source = from_folder(make_folder(speakers=12, seconds=0.7), clip_samples=clip_samples)
    augmentation = Augmentation(WAVEFORM, FEATURES)
    plan = training_plan(source, 7)
    arguments: Mapping[str, Any] = {"augmentation": augmentation, "steps": 2 * plan.steps_per_epoch, "threads": 2}
    front_end = FrontEnd(log_mel, augmentation, variable_length=clip_samples is None)
    inside = list(batches(source, TRAINING, plan, features=log_mel, **arguments))
    step = tf.function(front_end, reduce_retracing=True)
    on_device = [step(batch) for batch in host_batches(source, TRAINING, plan, **arguments)]
    assert len(inside) == len(on_device) == 2 * plan.steps_per_epoch
    for one, other in zip(inside, on_device, strict=True):
        tf.nest.assert_same_structure(one, other)
        for name in ("ids", "labels", "lengths", "second_labels", "label_weights"):
            np.testing.assert_array_equal(one[name], other[name])
        for first, second in zip(tf.nest.flatten(one["inputs"]), tf.nest.flatten(other["inputs"]), strict=True):
            np.testing.assert_allclose(first, second, atol=1e-4)
    half = plan.steps_per_epoch
    first, later = (
        {
            int(batch["ids"][row]): float(batch["label_weights"][row])
            for batch in part
            for row in range(len(batch["ids"]))
        }
        for part in (inside[:half], inside[half:])
    )
    assert any(first[example] != later[example] for example in first)


# The configurations --------------------------------------------------------------------------------------------------


def choices(folder: str) -> list[str]:
    return sorted(path.stem for path in (CONF / folder).glob("*.yaml"))


def runs_on_a_batch(config: dict[str, Any]) -> Augmentation:
    augmentation = Experiment(config).augmentation
    try:
        rows = front_end_of(augmentation, batch_of(MOVING_ROWS[:4]))["inputs"]
    finally:
        augmentation.close()
    assert np.isfinite(rows).all()
    assert np.abs(rows).max() <= 1
    return augmentation


@pytest.mark.parametrize("mix", ["none", "original"])
@pytest.mark.parametrize("name", choices("augment/waveform"))
def test_every_waveform_stage_can_be_added_to_a_mix(name: str, mix: str) -> None:
    config = compose([f"augment={mix}", f"+augment/waveform={name}"])
    assert name in runs_on_a_batch(config).waveform


@pytest.mark.parametrize("mix", ["none", "bc_resnet"])
@pytest.mark.parametrize("name", choices("augment/features"))
def test_every_feature_stage_can_be_added_to_a_mix(name: str, mix: str) -> None:
    assert name in runs_on_a_batch(compose([f"augment={mix}", f"+augment/features={name}"])).features


@pytest.mark.parametrize(("mix", "stages"), [
    ("none", []),
    ("original", ["time_shift", "background_noise"]),
    ("light", ["time_shift", "gain", "background_noise"]),
    ("strong", ["mixup", "time_shift", "speed", "reverb", "gain", "background_noise", "white_noise", "spec_augment"]),
    ("bc_resnet", ["time_shift", "background_noise", "spec_augment"]),
    ("small_data", ["mixup", "time_shift", "speed", "gain", "background_noise", "spec_augment"]),
    ("in_context", ["impostor", "context", "mixup", "speed", "gain", "background_noise", "spec_augment"]),
    ("ablation/shift", ["time_shift"]),
    ("ablation/noise", ["time_shift", "background_noise"]),
    ("ablation/spec_augment", ["time_shift", "background_noise", "spec_augment"]),
    ("matchboxnet", ["time_shift", "white_noise", "spec_augment", "spec_cutout"]),
    ("mhatt_rnn", ["speed", "time_shift", "background_noise", "spec_augment"]),
])  # fmt: skip
def test_every_mix_holds_its_stages_in_order(mix: str, stages: list[str]) -> None:
    augmentation = runs_on_a_batch(compose([f"augment={mix}"]))
    assert [*augmentation.waveform, *augmentation.features] == stages


def test_no_mix_is_missing_from_the_test_above() -> None:
    assert choices("augment") == [
        "bc_resnet", "in_context", "light", "matchboxnet", "mhatt_rnn", "none", "original", "small_data", "strong"
    ]  # fmt: skip
    assert choices("augment/ablation") == ["noise", "shift", "spec_augment"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augment.clipping=cut"], "augment.clipping must be one of"),
        (["+augment/waveform=gain", "augment.waveform.gain.gain_db=[3,1]"], "augment.waveform.gain.gain_db must"),
        (["+augment/waveform=gain", "+augment.waveform.gain.gaindb=3"], "augment.waveform.gain.*gaindb"),
        (["+augment/waveform=reverb", "augment.waveform.reverb.impulse_dir=/nowhere"], "impulse_dir: '/nowhere'"),
        (["+augment/features=spec_augment", "augment.features.spec_augment.max_bins=-1"], "spec_augment.max_bins must"),
    ],
)
def test_wrong_configurations_are_refused_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(KwsError, match=message) as error:
        _ = Experiment(compose(overrides)).augmentation
    assert "\n" not in str(error.value)


def test_a_stage_of_ones_own_may_ask_for_values(make_folder: MakeFolder) -> None:
    """AutoGraph makes a graph of its `if`, though the project's own code does without."""
    from kws_data.pipeline import batches, training_plan

    class Louder(WaveformStage):
        def prepare(self, batch: ClipBatch, draws: Draws, context: StageContext) -> dict[str, np.ndarray]:
            return {}

        def apply(self, waveform: Any, parameters: Mapping[str, Any]) -> Any:
            import tensorflow as tf

            if tf.reduce_max(tf.abs(waveform)) < 2.0:
                waveform = 3.0 * waveform
            return waveform

    source = from_folder(make_folder(speakers=4), clip_samples=RATE)
    plan = training_plan(source, batch_size=4)
    plain, louder = (
        next(iter(batches(source, TRAINING, plan, augmentation=augmentation, steps=1, threads=1)))["inputs"].numpy()
        for augmentation in (Augmentation(), Augmentation({"louder": Louder()}, clipping="leave"))
    )
    np.testing.assert_array_equal(louder, np.float32(3) * plain)
