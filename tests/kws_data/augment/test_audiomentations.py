from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from kws_data.audio import read_pcm
from kws_data.augment.audiomentations.stage import Audiomentations
from kws_data.augment.stage import ClipBatch
from kws_data.draws import Draws
from kws_data.errors import KwsError
from tests.conftest import ROOT, MakeFolder
from tests.kws_data.augment.clips import RATE, context

CONTEXT = context()


def am(name: str, *, p: float = 1.0, **parameters: Any) -> dict[str, Any]:
    return {"_target_": f"audiomentations.{name}", "p": p, **parameters}


def composed(*transforms: dict[str, Any]) -> dict[str, Any]:
    return am("Compose", transforms=list(transforms))


def function(path: str) -> dict[str, Any]:
    return am("Lambda", transform={"_target_": "hydra.utils.get_method", "path": path})


MIX = composed(
    am("Gain", p=0.5),
    am("OneOf", transforms=[am("PolarityInversion"), am("Shift", p=0.7), am("TanhDistortion")]),
    am("SomeOf", num_transforms=[0, 2], transforms=[am("TimeMask"), am("BandPassFilter"), am("Aliasing")]),
    am("TimeStretch", min_rate=0.2, max_rate=0.4, p=0.3),  # slow enough for its own C++ generator to be asked
    am("AddGaussianSNR", p=0.5),
)


def batch_of(ids: Any, samples: int = RATE, *, silence: Any = None) -> ClipBatch:
    """Clips of different lengths; each depends on its id alone."""
    ids = np.array(ids)
    lengths = np.array([samples - 1000 * (clip_id % 4) for clip_id in ids], np.int32)
    pcm = np.zeros((len(ids), samples), np.int16)
    for row, length, clip_id in zip(pcm, lengths, ids, strict=True):
        row[:length] = np.random.default_rng(clip_id).normal(0, 3000, length).clip(-32768, 32767)
    muted = np.zeros(len(ids), bool) if silence is None else np.array(silence)
    return ClipBatch(pcm, lengths, np.zeros(len(ids), np.int32), ids, muted)


def changed(stage: Audiomentations, ids: Any, *, seed: int = 1, epoch: int = 0) -> np.ndarray:
    batch = batch_of(ids)
    assert stage.prepare(batch, Draws(seed, epoch, batch.ids), CONTEXT) == {}
    return batch.pcm


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[int, Audiomentations]]:
    made = {workers: Audiomentations(MIX, workers) for workers in (0, 1, 3)}
    yield made
    for stage in made.values():
        stage.close()


def worker_pids(before: set[int]) -> list[int]:
    return [child.pid for child in psutil.Process().children() if child.pid not in before]


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_same_bits_with_any_number_of_workers_and_threads(stages: dict[int, Audiomentations]) -> None:
    ids = np.arange(40)
    epochs = {epoch: changed(stages[0], ids, epoch=epoch) for epoch in range(4)}
    for workers in (1, 3):
        with ThreadPoolExecutor(2) as threads:  # as tf.data calls it
            again = list(threads.map(lambda epoch, stage=stages[workers]: changed(stage, ids, epoch=epoch), epochs))
        for epoch, pcm in epochs.items():
            np.testing.assert_array_equal(again[epoch], pcm)


def test_another_epoch_seed_or_clip_is_another_draw(stages: dict[int, Audiomentations]) -> None:
    ids = np.arange(20)
    first = changed(stages[0], ids)
    for other in (changed(stages[0], ids, epoch=1), changed(stages[0], ids, seed=2)):
        assert (first != other).any(1).sum() > 15  # some clips may stay as they are, twice
    assert len({row.tobytes() for row in first}) == len(ids)


@pytest.mark.parametrize("workers", [0, 3])
def test_a_clip_does_not_depend_on_its_neighbours(stages: dict[int, Audiomentations], workers: int) -> None:
    whole = changed(stages[workers], np.arange(24))
    order = np.random.default_rng(0).permutation(24)
    for part in (order[:1], order[1:8], order[8:]):
        np.testing.assert_array_equal(changed(stages[workers], part), whole[part])


def test_batches_may_grow_and_shrink(stages: dict[int, Audiomentations]) -> None:
    for samples in (4000, 20000, 5000):
        batches = [batch_of(np.arange(7), samples) for _ in range(2)]
        for batch, workers in zip(batches, (0, 1), strict=True):
            stages[workers].prepare(batch, Draws(0, 0, batch.ids), CONTEXT)
        np.testing.assert_array_equal(batches[0].pcm, batches[1].pcm)


def test_silence_rows_and_padding_stay(stages: dict[int, Audiomentations]) -> None:
    for workers in (0, 1):
        batch = batch_of(np.arange(8), silence=np.arange(8) % 2 == 0)
        before = batch.pcm.copy()
        stages[workers].prepare(batch, Draws(0, 0, batch.ids), CONTEXT)
        np.testing.assert_array_equal(batch.pcm[::2], before[::2])
        assert (batch.pcm[1::2] != before[1::2]).any()
        for row, length in zip(batch.pcm, batch.lengths, strict=True):
            assert not row[length:].any()
    all_silence = batch_of(np.arange(3), silence=[True] * 3)
    assert stages[1].prepare(all_silence, Draws(0, 0, all_silence.ids), CONTEXT) == {}


@pytest.mark.parametrize(
    "transform",
    [
        am("RepeatPart"),
        am("AdjustDuration", duration_samples=5000),
        am("AdjustDuration", duration_seconds=2.0),
        am("Resample", min_sample_rate=4000, max_sample_rate=40000),
        am("TimeStretch", leave_length_unchanged=False),
    ],
)
def test_a_transform_that_changes_the_length_is_cut_or_filled_back(transform: dict[str, Any]) -> None:
    batch = batch_of(np.arange(4))
    before = batch.lengths.copy()
    Audiomentations(transform, 0).prepare(batch, Draws(0, 0, batch.ids), CONTEXT)
    np.testing.assert_array_equal(batch.lengths, before)
    assert batch.pcm.shape == (4, RATE)
    for row, length in zip(batch.pcm, before, strict=True):
        assert row[:4000].any()
        assert not row[length:].any()


def test_the_samples_are_what_the_transform_makes_of_them() -> None:
    batch = batch_of([0, 4])
    expected = -batch.pcm.astype(int)
    Audiomentations(am("PolarityInversion"), 0).prepare(batch, Draws(0, 0, batch.ids), CONTEXT)
    np.testing.assert_array_equal(batch.pcm, expected)


def test_beyond_full_scale_is_clipped() -> None:
    batch = batch_of([0])
    signs = np.sign(batch.pcm)
    Audiomentations(am("Gain", min_gain_db=120, max_gain_db=120), 0).prepare(batch, Draws(0, 0, batch.ids), CONTEXT)
    np.testing.assert_array_equal(batch.pcm, np.select([signs > 0, signs < 0], [32767, -32768], 0))


def test_in_this_process_the_global_generators_are_left_alone() -> None:
    random.seed(5)
    np.random.seed(6)
    expected = random.random(), np.random.random()
    random.seed(5)
    np.random.seed(6)
    changed(Audiomentations(MIX, 0), np.arange(3))
    with pytest.raises(KwsError):
        changed(Audiomentations(function("builtins.abs"), 0), np.arange(3))
    assert (random.random(), np.random.random()) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_transform_names_itself_and_the_clip(workers: int) -> None:
    stage = Audiomentations(composed(am("Gain"), composed(am("Reverse"), function("builtins.abs"))), workers)
    place = r"transform\.transforms\.1\.transforms\.1 \(Lambda\)"
    with pytest.raises(KwsError, match=rf"^audiomentations: {place} failed on clip 21: TypeError: .+$") as caught:
        changed(stage, [21, 22, 23, 24])
    assert "\n" not in str(caught.value)
    with pytest.raises(KwsError, match="clip 31"):  # the workers are still there
        changed(stage, [31])
    stage.close()


def test_samples_that_are_not_finite_are_refused() -> None:
    batch = batch_of([7, 8, 9])
    batch.pcm[:2] = 0  # 0 times any power of two is 0
    stage = Audiomentations(composed(function("numpy.ldexp"), am("Normalize")), 0)
    with pytest.raises(KwsError, match=r"transforms\.0 \(Lambda\) failed on clip 9: .*not finite"):
        stage.prepare(batch, Draws(0, 0, batch.ids), CONTEXT)


def test_what_is_no_waveform_is_refused() -> None:
    with pytest.raises(KwsError, match=r"transform \(Lambda\) failed on clip 3: it didn't return an array"):
        changed(Audiomentations(function("builtins.divmod"), 0), [3])


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (am("Gian"), r"^transform: audiomentations has no Gian; did you mean Gain\?$"),
        (composed(am("Gain"), am("shift", x=1)), r"^transform\.transforms\.1: .*did you mean Shift\?$"),
        ({"_target_": "audiomentation.Gain"}, "^transform: cannot import 'audiomentation'"),
        ({"_target_": "Gain"}, "^transform: cannot import ''"),
        (
            composed(am("Gain", min_gain=1)),
            r"^transform\.transforms\.0: Gain has no parameter min_gain; did you",
        ),
        (am("AddBackgroundNoise"), "^transform: AddBackgroundNoise: missing .*sounds_path"),
        (am("Gain", p=2), "^transform: Gain: not so: assert 0 <= p <= 1"),
        (am("Gain", min_gain_db=3.0, max_gain_db=1.0), "^transform: Gain: "),
        (am("ApplyImpulseResponse", ir_path="/nowhere"), "^transform: ApplyImpulseResponse: .*No impulse response"),
        ({"transforms": []}, "^transform must be a mapping"),
        ([am("Gain")], "^transform must be a mapping"),
        ({"_target_": "builtins.int"}, "^transform: builtins.int is not a transform"),
    ],
)
def test_wrong_names_and_values_fail_when_built(transform: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Audiomentations(transform, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [-1, 1.5, True])
def test_wrong_number_of_workers(workers: Any) -> None:
    with pytest.raises(ValueError, match=r"^num_workers"):
        Audiomentations(am("Gain"), workers)


def test_transforms_that_read_files(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(speakers=3)
    monkeypatch.setenv("HOME", str(folder))
    noise = str(folder / "_background_noise_")
    transform = composed(
        am("AddBackgroundNoise", sounds_path=noise, noise_transform=am("PolarityInversion", p=0.5)),
        am("AddShortNoises", sounds_path=str(folder / "yes")),
        am("ApplyImpulseResponse", ir_path="~/no"),
    )
    here, there = Audiomentations(transform, 0), Audiomentations(transform, 2)
    expected = changed(here, np.arange(8))
    np.testing.assert_array_equal(changed(there, np.arange(8)), expected)
    np.testing.assert_array_equal(changed(here, np.arange(8)), expected)  # now with its files in the cache
    there.close()


def test_many_transforms_over_real_clips(real_data: Path) -> None:
    words = sorted(path for path in real_data.iterdir() if path.is_dir() and not path.name.startswith("_"))
    clips = [read_pcm(next(iter(sorted(word.glob("*.wav")))), RATE)[:RATE] for word in words[:6]]
    pcm = np.stack([np.pad(clip, (0, RATE - len(clip))) for clip in clips])
    names = (
        "AddColorNoise AddGaussianNoise AddGaussianSNR AirAbsorption Aliasing BandPassFilter BandStopFilter BitCrush "
        "ClippingDistortion Gain GainTransition HighPassFilter HighShelfFilter LowPassFilter LowShelfFilter Normalize "
        "Padding PeakingFilter PitchShift PolarityInversion RepeatPart Reverse SevenBandParametricEQ Shift "
        "TanhDistortion TimeMask TimeStretch Trim"
    )
    for name in names.split():
        stage = Audiomentations(am(name), 0)
        results = []
        for order in (np.arange(6), np.arange(6)[::-1]):  # the second time with what the first may have left behind
            batch = ClipBatch(
                pcm[order].copy(), np.array([len(clips[i]) for i in order]), order, order, np.zeros(6, bool)
            )
            stage.prepare(batch, Draws(3, 0, order), CONTEXT)
            results.append(batch.pcm)
        np.testing.assert_array_equal(results[0], results[1][::-1], err_msg=name)
        assert name == "Normalize" or (results[0] != pcm).any(), name


def changed_often(stage: Audiomentations) -> None:
    """Batch after batch: on a busy machine, one worker may do every part of a batch before the other wakes."""
    for _ in range(1000):
        changed(stage, np.arange(4))


def test_a_dead_worker_is_an_error() -> None:
    before = children()
    stage = Audiomentations(am("Gain"), 2)
    changed(stage, np.arange(4))
    os.kill(worker_pids(before)[1], signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(KwsError, match=r"worker 2 of 2 died while it augmented, by SIGKILL"):
            changed_often(stage)
    stage.close()
    assert not worker_pids(before)


def test_workers_start_once_and_end_with_close() -> None:
    before = children()
    stage = Audiomentations(am("Gain"), 2)
    assert not worker_pids(before)  # not before the first batch
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda epoch: changed(stage, np.arange(4), epoch=epoch), range(6)))
    assert len(worker_pids(before)) == 2
    stage.close()
    stage.close()
    assert not worker_pids(before)
    with pytest.raises(KwsError, match="closed"):
        changed(stage, np.arange(4))
    unused = Audiomentations(am("Gain"), 2)
    unused.close()


def test_workers_end_with_a_forgotten_stage() -> None:
    before = children()
    stage = Audiomentations(am("Gain"), 1)
    changed(stage, np.arange(4))
    del stage
    assert not worker_pids(before)


def test_the_config_builds_it() -> None:
    from kws_experiments.config.compose import compose, instantiate

    config = compose(["+augment/waveform=audiomentations", "augment.waveform.audiomentations.num_workers=0"])
    stage = instantiate(config, "augment.waveform.audiomentations")
    assert (changed(stage, np.arange(8)) != batch_of(np.arange(8)).pcm).any()
    config["augment"]["waveform"]["audiomentations"]["transform"]["transforms"][1]["min_shfit"] = 0
    with pytest.raises(KwsError, match=r"audiomentations\.transform\.transforms\.1: Shift has no parameter min_shfit"):
        instantiate(config, "augment.waveform.audiomentations")


# Without a main guard, and with TensorFlow at the top: neither may reach the workers.
PARENT = """
import json, sys, threading
import tensorflow
import numpy as np
import psutil
from tests.kws_data.augment.test_audiomentations import MIX, changed
from kws_data.augment.audiomentations.stage import Audiomentations

stage = Audiomentations(MIX, 2)
changed(stage, np.arange(20))
print(json.dumps([child.pid for child in psutil.Process().children()]), flush=True)
if sys.argv[1] == "end":
    sys.exit(0)
for epoch in range(1_000_000):
    changed(stage, np.arange(20), epoch=epoch)
"""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def shared_memory() -> set[str]:
    """Names of shared memory, except joblib's: the pool uses none, but other programs on the machine may."""
    folder = Path("/dev/shm")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if "loky" not in name and "joblib" not in name}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["end", "SIGINT", "SIGTERM", "SIGKILL"])
def test_no_worker_outlives_its_parent(tmp_path: Path, ending: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    before = shared_memory()
    parent = subprocess.Popen(
        [sys.executable, script, ending],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    pids = json.loads(parent.stdout.readline())
    assert len(pids) == 2
    if ending != "end":
        maps = [Path(f"/proc/{pid}/maps") for pid in pids]
        assert not any("tensorflow" in path.read_text() for path in maps if path.exists())
        time.sleep(0.3)  # in the middle of a batch
        os.killpg(parent.pid, signal.Signals[ending])  # as the terminal does for Ctrl-C
    try:
        _, errors = parent.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(parent.pid, signal.SIGKILL)  # or they take half the machine from all tests that follow
        raise
    deadline = time.monotonic() + 30
    while not all(map(gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(gone, pids))
    assert shared_memory() <= before
    assert errors.count("Traceback") == (1 if ending == "SIGINT" else 0), errors
    assert "serve" not in errors


def test_real_noise_file_of_another_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 8000)
    stage = Audiomentations(am("AddBackgroundNoise", sounds_path=str(tmp_path)), 0)
    with pytest.warns(UserWarning, match="resampled"):
        pcm = changed(stage, [0, 4])
    assert (pcm != batch_of([0, 4]).pcm).any(1).all()
