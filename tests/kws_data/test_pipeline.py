from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kws_data.audio import read_pcm
from kws_data.augment.augmentation import Augmentation
from kws_data.augment.background_noise import BackgroundNoise
from kws_data.augment.stage import WaveformStage
from kws_data.augment.time_shift import TimeShift
from kws_data.catalog import SILENCE
from kws_data.clip_format import ClipFormat
from kws_data.corpus import Corpus, build_corpus
from kws_data.noise import NoiseBank
from kws_data.splits import SPLITS, TESTING, TRAINING, VALIDATION, HashSplit, ListSplit, RandomSplit
from kws_data.task import NO_SOURCE, Task
from tests.conftest import ROOT, MakeFolder

RATE = 16000
STAGES = (TimeShift(100), BackgroundNoise(0.1, 0.8))


def source_of(corpus: Corpus, examples: pd.DataFrame, **options: Any) -> Any:
    from kws_data.pipeline import ClipSource

    defaults: dict[str, Any] = {"clip_samples": RATE, "silence_kind": "noise", "data_seed": 0, "seed": 0}
    silence_samples = options.get("clip_samples", RATE) or RATE
    return ClipSource(corpus, examples, silence_samples=silence_samples, **(defaults | options))


def stream(
    source: Any,
    split: str = TRAINING,
    *,
    batch_size: int = 16,
    stages: Sequence[WaveformStage] = (),
    epochs: int = 1,
    start_step: int = 0,
    threads: int = 2,
    features: Any = None,
) -> list[dict[str, Any]]:
    """All batches of a split, as NumPy arrays: shuffled for training, in order for the others."""
    import tensorflow as tf

    from kws_data.pipeline import batches, evaluation_plan, training_plan

    plan = training_plan(source, batch_size) if split == TRAINING else evaluation_plan(source, split)
    augmentation = Augmentation({f"stage {place}": stage for place, stage in enumerate(stages)})
    dataset = batches(
        source, split, plan, augmentation=augmentation, features=features, start_step=start_step,
        steps=epochs * plan.steps_per_epoch, threads=threads,
    )  # fmt: skip
    return [tf.nest.map_structure(lambda tensor: tensor.numpy(), batch) for batch in dataset]


def joined(batches: list[dict[str, Any]], name: str = "inputs") -> np.ndarray:
    """One array of all batches, its rows sorted by example."""
    ids = np.concatenate([batch["ids"] for batch in batches])
    return np.concatenate([batch[name] for batch in batches])[np.argsort(ids, kind="stable")]


def assert_same(first: Sequence[Any], second: Sequence[Any]) -> None:
    import tensorflow as tf

    assert len(first) == len(second)
    for one, other in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def from_folder(root: Path, words: Sequence[str] = ("yes", "no"), split: Any = None, **options: Any) -> Any:
    policy = split or RandomSplit(0, 20, 20)
    corpus = build_corpus(root, policy, ClipFormat(RATE, RATE), data_seed=0)
    task = Task(list(words))
    return source_of(corpus, task.examples(corpus, 0), unknown=task.unknown_label, **options)


def made_up(
    clips: Sequence[np.ndarray], noise: NoiseBank, split: str = TRAINING, *, silence: int = 0, **options: Any
) -> Any:
    """A source of these clips and of silence rows, with no file behind them."""
    lengths = [len(clip) for clip in clips]
    table = pd.DataFrame(
        {
            "split": split,
            "label": [1] * len(clips) + [0] * silence,
            "source": [0] * len(clips) + [NO_SOURCE] * silence,
            "word": ["yes"] * len(clips) + [SILENCE] * silence,
            "path": [f"{number}.wav" for number in range(len(clips) + silence)],
            "offset": [*np.cumsum([0, *lengths])[:-1].tolist(), *[0] * silence],
            "length": [*lengths, *[0] * silence],
        }
    )
    pcm = np.concatenate([*clips, np.zeros(1)]).astype(np.int16)
    corpus = Corpus(pd.DataFrame(), pd.DataFrame(), [pcm], [Path("data")], noise, RATE)
    return source_of(corpus, table, **options)


def constant_noise(level: int = 16384) -> NoiseBank:
    return NoiseBank([np.full(60_000, level, np.int16)])


@pytest.fixture(scope="module", name="log_mel")
def log_mel_fixture() -> Any:
    from kws_data.features.log_mel import LogMel

    return LogMel()


def test_batches_hold_the_files_samples_and_their_labels(make_folder: MakeFolder) -> None:
    source = from_folder(make_folder(speakers=15))
    labels = ["_silence_", "_unknown_", "yes", "no"]
    seen = []
    for split in SPLITS:
        for batch in stream(source, split):
            assert batch["inputs"].dtype == np.float32
            assert batch["inputs"].shape == (len(batch["ids"]), RATE)
            for row, example in enumerate(batch["ids"]):
                row_of = source.examples.loc[example]
                seen.append(example)
                assert row_of["split"] == split
                assert batch["labels"][row] == row_of["label"]
                if row_of["source"] != NO_SOURCE:
                    assert labels[row_of["label"]] in (row_of["word"], "_unknown_")
                    expected = read_pcm(source.corpus.roots[0] / row_of["path"], RATE) / 32768
                    np.testing.assert_array_equal(batch["inputs"][row], expected)
    assert sorted(seen) == list(range(len(source.examples)))


def test_real_clips_are_padded_to_one_length(real_data: Path) -> None:
    source = from_folder(real_data, ["yes", "no", "up"], ListSplit())
    for batch in stream(source, TESTING):
        for row, example in enumerate(batch["ids"]):
            row_of = source.examples.loc[example]
            if row_of["source"] != NO_SOURCE:
                pcm = read_pcm(real_data / row_of["path"], RATE)
                np.testing.assert_array_equal(batch["inputs"][row, : len(pcm)], pcm / 32768)
                assert not batch["inputs"][row, len(pcm) :].any()
                assert batch["lengths"][row] == len(pcm)


@pytest.mark.parametrize("clip_samples", [RATE, None])
def test_batches_are_the_same_bits_for_any_threads_and_any_start(
    make_folder: MakeFolder, clip_samples: int | None, log_mel: Any
) -> None:
    source = from_folder(make_folder(speakers=15), clip_samples=clip_samples)
    for features in (None, log_mel):
        options: dict[str, Any] = {"stages": STAGES, "epochs": 3, "batch_size": 7, "features": features}
        unbroken = stream(source, threads=1, **options)
        assert_same(unbroken, stream(source, threads=3, **options))
        for start in (1, len(unbroken) // 3, len(unbroken) // 3 + 2, len(unbroken) - 1):
            assert_same(unbroken[start:], stream(source, threads=2, start_step=start, **options))


def test_a_new_source_gives_the_same_batches_and_another_seed_others(make_folder: MakeFolder) -> None:
    root = make_folder(speakers=15)
    first = stream(from_folder(root), stages=STAGES)
    assert_same(first, stream(from_folder(root), stages=STAGES))
    other = stream(from_folder(root, seed=1), stages=STAGES)
    assert not np.array_equal(np.concatenate([b["ids"] for b in first]), np.concatenate([b["ids"] for b in other]))
    assert (joined(first) != joined(other)).any(axis=1).mean() > 0.9


def test_epochs_differ_in_order_and_in_augmentation(make_folder: MakeFolder) -> None:
    source = from_folder(make_folder(speakers=15))
    both = stream(source, stages=STAGES, epochs=2)
    first, second = both[: len(both) // 2], both[len(both) // 2 :]
    ids = [np.concatenate([batch["ids"] for batch in epoch]) for epoch in (first, second)]
    assert ids[0].tolist() != ids[1].tolist()
    assert sorted(ids[0]) == sorted(ids[1])
    assert (joined(first) != joined(second)).any(axis=1).mean() > 0.9


def test_batch_size_does_not_change_what_a_clip_sounds_like(make_folder: MakeFolder) -> None:
    source = from_folder(make_folder(speakers=15))
    np.testing.assert_array_equal(
        joined(stream(source, stages=STAGES, batch_size=5)), joined(stream(source, stages=STAGES, batch_size=31))
    )


@pytest.mark.parametrize(("volume", "frequency"), [(0.1, 0.8), (1.0, 0.5)])
def test_noise_in_training_is_of_the_asked_frequency_and_volumes(volume: float, frequency: float) -> None:
    # constant noise of 0.5 on silent clips: the sample is half the volume
    source = made_up([np.zeros(40)] * 4000, constant_noise(), clip_samples=40)
    result = joined(stream(source, batch_size=500, stages=[BackgroundNoise(volume, frequency)]))
    assert (result == result[:, :1]).all()
    volumes = result[:, 0] * 2
    noisy = volumes > 0
    assert stats.binomtest(int(noisy.sum()), 4000, frequency).pvalue > 1e-3
    assert stats.kstest(volumes[noisy] / volume, "uniform").pvalue > 1e-3


def test_shift_and_noise_in_training_are_independent_of_each_other() -> None:
    clips = [np.arange(1, 401) * 10] * 3000
    source = made_up(clips, constant_noise(8), clip_samples=400)
    result = joined(stream(source, batch_size=500, stages=[TimeShift(10), BackgroundNoise(1.0, 0.5)])) * 32768
    shifts = np.array([np.flatnonzero(np.floor(row / 10) == 200)[0] for row in result]) - 199
    noisy = result[:, 200] % 10 > 0
    assert shifts.min() == -160
    assert shifts.max() == 160
    assert stats.kstest((shifts + 160.5) / 321, "uniform").pvalue > 1e-3
    assert stats.ks_2samp(shifts[noisy], shifts[~noisy]).pvalue > 1e-3


def test_one_kind_of_stage_twice_draws_twice() -> None:
    source = made_up([np.zeros(40)] * 2000, constant_noise(8192), clip_samples=40)
    result = joined(stream(source, batch_size=500, stages=[BackgroundNoise(1.0, 0.5), BackgroundNoise(1.0, 0.5)]))
    assert stats.binomtest(int((result[:, 0] == 0).sum()), 2000, 0.25).pvalue > 1e-3


def test_silence_in_training_is_noise_at_uniform_volumes_and_new_in_every_epoch() -> None:
    source = made_up([np.zeros(40)], constant_noise(), silence=3000, clip_samples=40)
    batches = stream(source, batch_size=3001, epochs=2, stages=[TimeShift(1), BackgroundNoise(1.0, 1.0)])
    first, second = (joined([batch])[1:] for batch in batches)
    assert (first == first[:, :1]).all()
    for result in (first, second):
        assert stats.kstest(result[:, 0] * 2, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.08
    assert (np.concatenate([batch["labels"] for batch in batches]) == 0).sum() == 6000


def test_silence_in_training_at_levels_that_the_recordings_have_not() -> None:
    quiet = NoiseBank([np.random.default_rng(0).normal(0, 50, 60_000).astype(np.int16)])  # -56 dB
    source = made_up([np.zeros(800)], quiet, silence=2000, clip_samples=800, silence_level_db=(-80.0, -20.0))
    level_db = 20 * np.log10(np.sqrt(np.mean(joined(stream(source))[1:] ** 2, axis=1)))
    # below -70 dB rounding to 16 bits adds to the level
    assert stats.kstest((level_db[level_db > -70] + 70) / 50, "uniform").pvalue > 1e-3
    assert level_db.min() > -81
    assert (level_db < -70).mean() == pytest.approx(1 / 6, abs=0.04)


def test_silence_at_a_level_stays_finite_where_the_recording_has_no_sound() -> None:
    recording = np.zeros(60_000, np.int16)
    recording[-10:] = 1000
    source = made_up(
        [np.zeros(800)], NoiseBank([recording]), silence=50, clip_samples=800,
        silence_level_db=(-20.0, -20.0),
    )  # fmt: skip
    assert not joined(stream(source))[1:].any()


@pytest.mark.parametrize("split", [VALIDATION, TESTING])
def test_silence_in_evaluation_depends_on_the_data_seed_alone(split: str) -> None:
    bank = NoiseBank([np.arange(1, 30_001).astype(np.int16)])

    def waveforms(**options: Any) -> np.ndarray:
        source = made_up([np.zeros(100)] * 3, bank, split, silence=1000, clip_samples=100, **options)
        return joined(stream(source, split))

    first = waveforms()
    np.testing.assert_array_equal(first, waveforms(seed=5))
    assert (first[3:] != waveforms(data_seed=5)[3:]).any(axis=1).mean() > 0.9
    assert not first[:3].any()
    # of a ramp: its slope is the volume, its height then tells the place
    volume = (first[3:, -1] - first[3:, 0]) * 32768 / 99
    assert stats.kstest(np.clip(volume, 0, 1), "uniform").pvalue > 1e-3
    clear = volume > 0.2
    place = first[3:][clear].mean(axis=1) * 32768 / volume[clear]
    assert abs(stats.spearmanr(volume[clear], place).statistic) < 0.2
    np.testing.assert_array_equal(first, waveforms(silence_level_db=(-20.0, -20.0)))
    zeros = waveforms(silence_kind="zeros")
    assert not zeros.any()
    assert zeros.shape == first.shape


def test_zeros_are_for_evaluation_only() -> None:
    source = made_up([np.zeros(40)], constant_noise(), silence=50, clip_samples=40, silence_kind="zeros")
    assert joined(stream(source))[1:].any(axis=1).all()


def test_evaluation_hears_no_augmentation_and_every_clip_once(make_folder: MakeFolder) -> None:
    source = from_folder(make_folder(speakers=15))
    for split in (VALIDATION, TESTING):
        batches = stream(source, split)
        ids = np.concatenate([batch["ids"] for batch in batches])
        assert ids.tolist() == source.ids(split).tolist()
        assert_same(batches, stream(source, split, threads=1))


def test_clips_are_cut_and_padded_at_their_end() -> None:
    clips = [np.arange(1, count + 1) for count in (50, 100, 130)]
    source = made_up(clips, constant_noise(), VALIDATION, clip_samples=100)
    (batch,) = stream(source, VALIDATION)
    result = batch["inputs"] * 32768
    for row, length in zip(result, (50, 100, 100), strict=True):
        assert row[:length].tolist() == list(range(1, length + 1))
        assert not row[length:].any()
    assert batch["lengths"].tolist() == [50, 100, 100]


@pytest.mark.parametrize("clip_samples", [2000, None])
def test_nothing_leaves_the_range(clip_samples: int | None) -> None:
    generator = np.random.default_rng(0)
    clips = [generator.choice([-32768, 32767], generator.integers(500, 2500)) for _ in range(200)]
    loud = NoiseBank([generator.choice([-32768, 32767], 20_000).astype(np.int16)])
    source = made_up(clips, loud, silence=20, clip_samples=clip_samples)
    for batch in stream(source, stages=[TimeShift(20), BackgroundNoise(1.0, 1.0)]):
        assert batch["inputs"].min() >= -1
        assert batch["inputs"].max() <= 1
        assert np.isfinite(batch["inputs"]).all()


def test_generated_noise_makes_silence_but_is_not_mixed_into_words() -> None:
    clips = [np.arange(1, 101)] * 50
    bank = NoiseBank.low_level(RATE, 0)
    source = made_up(clips, bank, silence=50, clip_samples=100)
    result = joined(stream(source, stages=[BackgroundNoise(1.0, 1.0)])) * 32768
    np.testing.assert_array_equal(result[:50], clips)
    assert result[50:].any(axis=1).mean() > 0.9
    assert np.abs(result[50:]).max() < 0.1 * 32768


@pytest.fixture
def of_all_lengths() -> Any:
    """2,000 clips of 0.1 to 1.5 s, no sample of them zero, and some silence rows."""
    generator = np.random.default_rng(0)
    clips = [generator.integers(1, 3000, length) for length in generator.integers(1600, 24_000, 2000)]
    return made_up(clips, constant_noise(), silence=20, clip_samples=None)


@pytest.mark.parametrize("stages", [(), STAGES])
def test_clips_that_keep_their_lengths_are_padded_to_their_batch(
    of_all_lengths: Any, stages: Any, log_mel: Any
) -> None:
    source = of_all_lengths
    padding, total = 0, 0
    for batch in stream(source, batch_size=20, stages=stages):
        waveforms, lengths = batch["inputs"], batch["lengths"]
        assert waveforms.shape[1] == lengths.max()
        row_of = source.examples.loc[batch["ids"]]
        expected = np.where(row_of["source"] == NO_SOURCE, RATE, row_of["length"])
        np.testing.assert_array_equal(lengths, expected)
        for row, length in zip(waveforms, lengths, strict=True):
            assert not row[length:].any()
        padding += (lengths.max() - lengths).sum()
        total += waveforms.size
    assert padding / total < 0.05  # 47 % without buckets
    by_step = [batch["lengths"].max() for batch in stream(source, batch_size=20)]
    assert abs(np.corrcoef(by_step, np.arange(len(by_step)))[0, 1]) < 0.4
    ids = np.concatenate([batch["ids"] for batch in stream(source, batch_size=20, epochs=2)])
    assert (np.bincount(ids) == 2).all()


def test_true_frame_counts_are_passed_on(of_all_lengths: Any, log_mel: Any) -> None:
    from kws_data.pipeline import batches, training_plan

    plan = training_plan(of_all_lengths, 20)
    dataset = batches(of_all_lengths, TRAINING, plan, features=log_mel, steps=5, threads=2)
    for batch in dataset:
        features, num_frames = batch["inputs"]["features"].numpy(), batch["inputs"]["num_frames"].numpy()
        lengths = batch["lengths"].numpy()
        assert num_frames.dtype == np.int32
        assert num_frames.tolist() == [1 + (length - 480) // 160 for length in lengths]
        assert features.shape == (20, num_frames.max(), 40)
        for row, frames, length in zip(features, num_frames, lengths, strict=True):
            # a frame that touches no sample is the logarithm's offset
            silent = np.all(np.abs(row - np.log(1e-6)) < 1e-3, axis=-1)
            assert not silent[:frames].any()
            assert silent[-(-length // 160) :].all()


def test_a_clip_sounds_the_same_whatever_it_is_padded_to(of_all_lengths: Any) -> None:
    def by_example(batch_size: int) -> dict[int, np.ndarray]:
        return {
            int(example): row[:length]
            for batch in stream(of_all_lengths, batch_size=batch_size, stages=STAGES)
            for example, row, length in zip(batch["ids"], batch["inputs"], batch["lengths"], strict=True)
        }

    few, many = by_example(8), by_example(50)
    assert few.keys() == many.keys()
    assert all(np.array_equal(few[example], many[example]) for example in few)


def test_evaluation_of_clips_that_keep_their_lengths_sorts_them(make_folder: MakeFolder) -> None:
    clips = [np.ones(length) for length in (700, 300, 500)]
    source = made_up(clips, constant_noise(), TESTING, clip_samples=None)
    (batch,) = stream(source, TESTING)
    assert batch["lengths"].tolist() == [300, 500, 700]
    assert batch["ids"].tolist() == [1, 2, 0]
    assert batch["inputs"].sum(axis=1).tolist() == [300 / 32768, 500 / 32768, 700 / 32768]


def test_an_empty_split_has_no_batches() -> None:
    source = made_up([np.ones(9)], constant_noise(), TRAINING, clip_samples=9)
    assert stream(source, TESTING) == []


DIGESTS = """
import hashlib, sys
from pathlib import Path
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(2)
tf.config.experimental.enable_op_determinism()
tf.keras.utils.set_random_seed(0)
from kws_data.features.log_mel import LogMel
from tests.kws_data import test_pipeline as tests

source = tests.from_folder(Path(sys.argv[1]))
features = LogMel()

def digests(threads, start):
    batches = tests.stream(
        source, batch_size=7, stages=tests.STAGES, epochs=3, features=features, threads=threads, start_step=start
    )
    return [hashlib.sha256(b["inputs"].tobytes() + b["ids"].tobytes()).hexdigest() for b in batches]

unbroken = digests(1, 0)
assert len(set(unbroken)) == len(unbroken)
for threads, start in ((3, 0), (3, 4), (2, 7)):
    assert digests(threads, start) == unbroken[start:], (threads, start)
print(unbroken[-1])
"""


@pytest.mark.slow
def test_batches_are_the_same_with_deterministic_ops_and_from_process_to_process(
    make_folder: MakeFolder, log_mel: Any
) -> None:
    root = make_folder(speakers=10)
    command = [sys.executable, "-c", DIGESTS, str(root)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert output.returncode == 0, output.stderr[-2000:]
    here = stream(from_folder(root), batch_size=7, stages=STAGES, epochs=3, features=log_mel)[-1]
    assert output.stdout.split()[-1] == hashlib.sha256(here["inputs"].tobytes() + here["ids"].tobytes()).hexdigest()


def test_split_of_examples_is_the_corpus_split(make_folder: MakeFolder) -> None:
    source = from_folder(make_folder(speakers=30), split=HashSplit())
    of_clip = source.corpus.clips.set_index("path")["split"]
    clips = source.examples[source.examples["source"] != NO_SOURCE]
    assert (clips["split"].to_numpy() == of_clip[clips["path"]].to_numpy()).all()
