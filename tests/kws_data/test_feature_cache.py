"""Features of a split on disk: the bits that would have been computed, and computed once."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kws_data import feature_cache
from kws_data.errors import KwsError
from kws_data.feature_cache import CachedBatches
from kws_data.features.base import FeatureLayer
from kws_data.pipeline import ClipSource, evaluation_batches
from kws_data.splits import VALIDATION
from kws_data.storage.atomic import lock_for
from kws_data.storage.cache import features_dir
from kws_experiments.config.compose import compose
from kws_experiments.experiment.data import prepare_data
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs.environment import feature_identity


def source_and_features(root: Path, *overrides: str) -> tuple[ClipSource, FeatureLayer, dict]:
    given = ["dataset=folder", f"dataset.path={root}", "split=lists", "features=log_mel_20ms", *overrides]
    experiment = Experiment(compose(given))
    data = prepare_data(experiment)
    experiment.features.build()
    source = experiment.clip_source(data.corpus, data.examples)
    return source, experiment.features, experiment.part("features")


def cached_evaluation_batches(*arguments: Any, threads: int) -> tf.data.Dataset:
    with CachedBatches(*arguments, threads=threads) as batches:
        return batches.dataset()


def arrays(dataset) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    flat = []
    for batch in dataset.as_numpy_iterator():
        inputs = batch["inputs"]
        flat += [*(inputs.values() if isinstance(inputs, dict) else [inputs]), batch["labels"], batch["ids"]]
    return flat


def entries() -> list[Path]:
    return sorted(path for path in features_dir().iterdir() if path.is_dir())


@pytest.mark.parametrize("clip_ms", ["1000", "null"])
def test_what_is_kept_is_what_would_be_computed_and_is_computed_once(
    real_data: Path, monkeypatch: pytest.MonkeyPatch, clip_ms: str
) -> None:
    source, features, config = source_and_features(real_data, f"clip_ms={clip_ms}")
    computed = arrays(evaluation_batches(source, VALIDATION, features, threads=1))

    first = arrays(cached_evaluation_batches(source, VALIDATION, features, feature_identity(config), threads=2))
    (entry,) = entries()
    monkeypatch.setattr("kws_data.feature_cache.replace_dir", lambda _: pytest.fail("computed again"))
    again = cached_evaluation_batches(source, VALIDATION, features, feature_identity(config), threads=1)

    assert entries() == [entry]
    for cached in (first, arrays(again)):
        assert all(np.array_equal(one, other) for one, other in zip(computed, cached, strict=True))


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "lost"])
def test_damaged_features_are_computed_again(real_data: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    source, features, config = source_and_features(real_data, "clip_ms=1000")
    first = arrays(cached_evaluation_batches(source, VALIDATION, features, feature_identity(config), threads=1))
    (entry,) = entries()
    file = max(entry.iterdir(), key=lambda path: path.stat().st_size)
    size = file.stat().st_size
    if damage == "truncated":
        os.truncate(file, size // 2)
    elif damage == "overwritten":
        file.write_bytes(bytes(size))
    else:
        file.unlink()
    again = arrays(cached_evaluation_batches(source, VALIDATION, features, feature_identity(config), threads=1))
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert "is damaged" in caplog.text


def test_other_samples_configurations_and_weights_are_other_entries(real_data: Path) -> None:
    source, features, config = source_and_features(real_data)
    for kept in (
        source_and_features(real_data),
        source_and_features(real_data, "seed=1"),
        source_and_features(real_data, "data_seed=1"),  # other unknown clips and silence rows
        source_and_features(real_data, "features.num_mel_bins=20"),
        source_and_features(real_data, "clip_ms=900"),
    ):
        list(cached_evaluation_batches(kept[0], VALIDATION, kept[1], feature_identity(kept[2]), threads=1))
    assert len(entries()) == 4

    normalising, layer, chosen = source_and_features(real_data, "features.normalise=true")
    for scale in (1.0, 2.0):
        layer.set_weights([np.full_like(weight, scale) for weight in layer.get_weights()])
        list(cached_evaluation_batches(normalising, VALIDATION, layer, feature_identity(chosen), threads=1))
    assert len(entries()) == 6
    assert feature_identity(config)["processor"]["cores"] >= 1
    assert features.num_bins == 40
    assert source.seed == 0


def test_clips_of_one_length_are_kept_apart_from_the_same_ones_that_keep_their_lengths(real_data: Path) -> None:
    """The batches hold the same samples, but for the latter the frames of each clip too."""
    for clip_ms in ("1000", "null"):
        source, features, config = source_and_features(real_data, f"clip_ms={clip_ms}")
        if clip_ms == "null":
            source.lengths[:] = 16000  # the few shorter ones too
        cached = cached_evaluation_batches(source, VALIDATION, features, feature_identity(config), threads=1)
        computed = evaluation_batches(source, VALIDATION, features, threads=1)
        assert all(np.array_equal(one, other) for one, other in zip(arrays(computed), arrays(cached), strict=True))
    assert len(entries()) == 2


def test_where_nothing_can_be_kept_they_are_computed_and_it_is_said(
    real_data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, features, config = source_and_features(real_data)
    computed = arrays(evaluation_batches(source, VALIDATION, features, threads=1))

    def no_room(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("kws_data.feature_cache.replace_dir", no_room)
    with caplog.at_level(logging.WARNING):
        cached = cached_evaluation_batches(source, VALIDATION, features, feature_identity(config), threads=1)

    assert all(np.array_equal(one, other) for one, other in zip(computed, arrays(cached), strict=True))
    assert "No space left on device" in caplog.text
    assert not entries()


def test_leaving_stops_the_computation_and_keeps_nothing(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, features, config = source_and_features(real_data)
    begun, go_on = threading.Event(), threading.Event()
    intact = feature_cache.is_intact

    def slow(folder: Path) -> bool:
        begun.set()
        go_on.wait()
        return intact(folder)

    monkeypatch.setattr(feature_cache, "is_intact", slow)
    with CachedBatches(source, VALIDATION, features, feature_identity(config), threads=1):
        begun.wait()
        threading.Timer(0.1, go_on.set).start()
    assert not [path for path in features_dir().iterdir() if path.is_dir()]


def test_one_that_waits_for_another_run_can_be_left(real_data: Path) -> None:
    source, features, config = source_and_features(real_data)
    cached_evaluation_batches(source, VALIDATION, features, feature_identity(config), threads=1)
    (folder,) = entries()
    with lock_for(folder), CachedBatches(source, VALIDATION, features, feature_identity(config), threads=1):
        pass  # returns
    assert folder.is_dir()


def test_what_goes_wrong_in_the_background_is_raised_by_the_first_use(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, features, config = source_and_features(real_data)

    def fail() -> Path:
        raise KwsError("no folder for features")

    monkeypatch.setattr(feature_cache, "features_dir", fail)
    with (
        CachedBatches(source, VALIDATION, features, feature_identity(config), threads=1) as batches,
        pytest.raises(KwsError, match="no folder for features"),
    ):
        next(iter(batches))
