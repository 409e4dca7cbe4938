"""Weights, head and normalisation from another run."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from kws_data.errors import KwsError
from kws_experiments.config.compose import compose
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.runs import checkpoint
from kws_experiments.runs.folder import UNFINISHED, RunFolder, write_text
from kws_experiments.runs.saved_model import save_model
from kws_experiments.training.initial_weights import distillation, set_initial_weights
from kws_experiments.training.start_from import find_origin
from tests.conftest import MakeFolder
from tests.kws_experiments.test_train import SMALL, only_run, train

SMALL_NET = ["model.filters=4", "model.num_blocks=1"]
LABELS = ["_silence_", "_unknown_", "yes", "no"]


@dataclass
class Network:
    """A network as a run builds it, with random weights, and with recognisable statistics if it has any."""

    experiment: Experiment
    model: keras.Model
    labels: list[str]

    def logits(self, waveform: np.ndarray) -> np.ndarray:
        return self.model(self.experiment.features(waveform), training=False).numpy()

    def weights(self) -> list[np.ndarray]:
        return [np.array(weight) for weight in [*self.model.weights, *self.experiment.features.weights]]


def network(*overrides: str, labels: list[str] = LABELS, seed: int = 0, statistics: float | None = None) -> Network:
    config = compose(["dataset=folder", "dataset.path=/nowhere", "features=log_mel_20ms", *overrides])
    experiment = Experiment(config)
    keras.utils.set_random_seed(seed)
    model = experiment.build_network(len(labels))
    generator = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(generator.normal(0, 0.3, weight.shape))
    if statistics is not None:
        for layer in model.layers:
            if isinstance(layer, keras.layers.Normalization):
                layer.adapt_mean.assign(np.full(layer.adapt_mean.shape, statistics))
                layer.adapt_variance.assign(np.full(layer.adapt_variance.shape, 4 * statistics))
                layer.count.assign(7)
                layer.finalize_state()
    if experiment.features.normalise:
        experiment.features.build()
        if statistics is not None:
            experiment.features.mean.assign(np.full(experiment.features.mean.shape, statistics))
            experiment.features.variance.assign(np.full(experiment.features.variance.shape, 4 * statistics))
    return Network(experiment, model, labels)


def make_run(path: Path, of: Network, *, finished: bool = True) -> Path:
    folder = RunFolder(path)
    path.mkdir()
    folder.write_config(of.experiment.config)
    write_text(folder.labels, "\n".join(of.labels) + "\n")
    if finished:
        save_model(folder.model, of.experiment.features, of.model, of.experiment.clip_samples)
    else:
        checkpoint.save_weights(folder.training.best, of.model.weights)
        checkpoint.save_weights(folder.training.initial, [*of.model.weights, *of.experiment.features.weights])
    return path


def started(tmp_path: Path, value: str | Path, of: Network) -> Network:
    """`of` with its initial weights set; nothing may be adapted, as there are no clips."""
    experiment = replace(of.experiment, config=of.experiment.config | {"start_from": str(value)})
    vars(experiment)["features"] = of.experiment.features
    start(tmp_path / "run", replace(of, experiment=experiment))
    return of


def start(path: Path, of: Network) -> list[str]:
    folder = RunFolder(path)
    folder.write_record(status=UNFINISHED)
    return set_initial_weights(folder, of.experiment, None, of.model, of.labels)  # type: ignore[arg-type]


def assert_equal(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(our, their)


@pytest.fixture
def waveform() -> np.ndarray:
    return np.random.default_rng(5).normal(0, 0.1, (3, 16000)).astype(np.float32)


@pytest.mark.parametrize("finished", [True, False])
def test_the_same_labels_use_all_weights(tmp_path: Path, waveform: np.ndarray, finished: bool) -> None:
    before = network(*SMALL_NET, seed=1)
    other = make_run(tmp_path / "other", before, finished=finished)

    after = started(tmp_path, other, network(*SMALL_NET, seed=2))

    assert_equal(after.weights(), before.weights())
    np.testing.assert_array_equal(after.logits(waveform), before.logits(waveform))
    file = RunFolder(other).model if finished else RunFolder(other).training.best
    record = json.loads(RunFolder(tmp_path / "run").record.read_text())
    assert len(record["started_from_sha256"]) == 64
    again = started(tmp_path / "again", file, network(*SMALL_NET, seed=3))  # the file by itself
    np.testing.assert_array_equal(again.logits(waveform), before.logits(waveform))


def test_labels_in_another_order_reorder_the_head(tmp_path: Path, waveform: np.ndarray) -> None:
    before = network(*SMALL_NET, seed=1)
    other = make_run(tmp_path / "other", before)
    order = [3, 0, 2, 1]

    after = started(tmp_path, other, network(*SMALL_NET, seed=2, labels=[LABELS[index] for index in order]))

    np.testing.assert_allclose(after.logits(waveform), before.logits(waveform)[:, order], rtol=1e-6)


def test_labels_in_another_unicode_form_are_the_same(tmp_path: Path, waveform: np.ndarray) -> None:
    decomposed = unicodedata.normalize("NFD", "été")  # as a version before wrote it where the folder was of a Mac
    before = network(*SMALL_NET, seed=1, labels=["oui", decomposed])
    other = make_run(tmp_path / "other", before)

    after = started(tmp_path, other, network(*SMALL_NET, seed=2, labels=["oui", "été"]))

    np.testing.assert_array_equal(after.logits(waveform), before.logits(waveform))


@pytest.mark.parametrize("labels", [["_silence_", "_unknown_", "yes", "up"], ["on", "off"]])
def test_other_labels_get_a_new_head_on_the_same_body(tmp_path: Path, labels: list[str]) -> None:
    before = network(*SMALL_NET, seed=1)
    other = make_run(tmp_path / "other", before)

    after = started(tmp_path, other, network(*SMALL_NET, seed=2, labels=labels))

    fresh = network(*SMALL_NET, seed=2, labels=labels)
    assert_equal(after.weights(), [*before.weights()[:-2], *fresh.weights()[-2:]])


def test_with_folders_of_words_the_labels_of_both_runs_keep_their_outputs(tmp_path: Path, waveform: np.ndarray) -> None:
    before = network(*SMALL_NET, seed=1)
    other = make_run(tmp_path / "other", before)
    labels, overrides = ["_silence_", "_unknown_", "marvin", "no", "yes"], [*SMALL_NET, "task.word_dirs=[mine]"]

    after = started(tmp_path, other, network(*overrides, seed=2, labels=labels))

    kept = [0, 1, 4, 3]
    np.testing.assert_allclose(after.logits(waveform)[:, kept], before.logits(waveform), rtol=1e-5)
    fresh = network(*overrides, seed=2, labels=labels)
    assert_equal([after.weights()[-2][:, 2]], [fresh.weights()[-2][:, 2]])


def test_the_outputs_that_a_training_starts_with_can_be_kept(tmp_path: Path, waveform: np.ndarray) -> None:
    """Also in a run that is resumed where the other is gone, and whose labels stand in another order."""
    before = network("model=simple_audio", "features=stft", seed=1, statistics=0.7)
    other = make_run(tmp_path / "other", before)
    labels = ["_silence_", "marvin", "_unknown_", "no", "yes"]
    overrides = ["model=simple_audio", "features=stft", f"start_from={other}", "trainer.distillation=0.5"]
    kept: list[list[str]] = []
    for seed in (2, 3):
        after = network(*overrides, seed=seed, labels=labels)
        kept.append(start(tmp_path / "run", after))
        shutil.rmtree(other, ignore_errors=True)
    assert kept == [["_silence_", "_unknown_", "no", "yes"]] * 2
    inputs = after.experiment.features(waveform)
    batch = {
        "inputs": inputs, "labels": keras.ops.array([0, 3, 1]), "second_labels": keras.ops.array([0, 3, 1]),
        "label_weights": keras.ops.ones(3),
    }  # fmt: skip
    made = distillation(after.experiment, after.model, labels, kept[1])
    assert made is not None
    after.model.set_weights([weight + 1 for weight in after.model.get_weights()])  # as training does; not what it keeps
    flat = np.zeros((3, len(labels)), np.float32)

    losses = made.losses(np.full(3, 9, np.float32), flat, batch).numpy()

    np.testing.assert_allclose(losses, [4.5 + 0.5 * np.log(5), 4.5 + 0.5 * np.log(5), 9], rtol=1e-5)
    steep = np.zeros((3, len(labels)), np.float32)
    steep[:, 0] = 5
    want = log_softmax(steep, axis=1)[:, [0, 2, 4, 3]]
    target = softmax(before.logits(waveform), axis=1)  # in the order _silence_, _unknown_, yes, no
    losses = made.losses(np.zeros(3, np.float32), steep, batch).numpy()
    np.testing.assert_allclose(losses[:2], -0.5 * (target * want).sum(axis=1)[:2], rtol=1e-4)


def test_outputs_can_only_be_kept_where_there_are_some(tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", network(*SMALL_NET, labels=["yes", "no"]))
    after = network(*SMALL_NET, f"start_from={other}", "trainer.distillation=1", labels=["on", "off"])
    kept = start(tmp_path / "run", after)
    assert kept == []
    with pytest.raises(KwsError, match=r"^trainer\.distillation: there is nothing to keep: .* labels on, off; give"):
        distillation(after.experiment, after.model, after.labels, kept)


NORMALISING = {
    "simple_audio": ["model=simple_audio", "features=stft"],
    "features": [*SMALL_NET, "features.normalise=true"],
}


@pytest.mark.parametrize("kind", NORMALISING)
@pytest.mark.parametrize("finished", [True, False])
def test_normalisation_is_used_too(tmp_path: Path, waveform: np.ndarray, kind: str, finished: bool) -> None:
    before = network(*NORMALISING[kind], seed=1, statistics=0.7)
    plain = network(*NORMALISING[kind], seed=1)
    assert np.abs(before.logits(waveform) - plain.logits(waveform)).max() > 1e-3
    other = make_run(tmp_path / "other", before, finished=finished)

    after = started(tmp_path, other, network(*NORMALISING[kind], seed=2))

    np.testing.assert_allclose(after.logits(waveform), before.logits(waveform), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", NORMALISING)
def test_a_resumed_run_needs_neither_the_other_run_nor_the_clips(
    tmp_path: Path, waveform: np.ndarray, kind: str
) -> None:
    other = make_run(tmp_path / "other", network(*NORMALISING[kind], seed=1, statistics=0.7))
    first = started(tmp_path, other, network(*NORMALISING[kind], seed=2))
    shutil.rmtree(other)

    resumed = started(tmp_path, other, network(*NORMALISING[kind], seed=3))

    np.testing.assert_array_equal(resumed.logits(waveform), first.logits(waveform))


@pytest.mark.parametrize("finished", [True, False])
def test_statistics_of_other_features_are_refused(tmp_path: Path, finished: bool) -> None:
    before = network(*NORMALISING["features"], "features.num_mel_bins=20", statistics=0.7)
    other = make_run(tmp_path / "other", before, finished=finished)

    assert_refused(tmp_path, other, network(*NORMALISING["features"]), "has statistics of other features")


def assert_refused(tmp_path: Path, value: str | Path, of: Network, message: str) -> None:
    with pytest.raises(KwsError, match=one_line(message)):
        started(tmp_path, value, of)


def one_line(message: str) -> str:
    return rf"^start_from[^\n]*{re.escape(message)}[^\n]*$"


@pytest.mark.parametrize("overrides", [["model.filters=8", "model.num_blocks=1"], ["model.filters=4"]])
def test_another_architecture_is_refused(tmp_path: Path, overrides: list[str]) -> None:
    other = make_run(tmp_path / "other", network(*SMALL_NET))

    assert_refused(tmp_path, other, network(*overrides), "holds another network")


def test_a_network_without_a_clear_head_is_refused(tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", network(*SMALL_NET))
    of = network(*SMALL_NET, labels=["on", "off"])
    scaled = keras.layers.Conv1D(1, 1, name="last")(of.model.output[..., None])
    of.model = keras.Model(of.model.input, keras.layers.Flatten()(scaled))

    assert_refused(tmp_path, other, of, "can't replace the head of this network: 'last'")


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("damage", ["cut", "nonsense", "empty"])
def test_damaged_files_are_refused(tmp_path: Path, finished: bool, damage: str) -> None:
    other = RunFolder(make_run(tmp_path / "other", network(*SMALL_NET), finished=finished))
    file = other.model if finished else other.training.best
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "nonsense": b"nonsense" * 100, "empty": b""}[damage])

    assert_refused(tmp_path, other.path, network(*SMALL_NET), str(file))


def test_other_files_and_folders_are_refused_before_any_data_is_read(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", network(*SMALL_NET))
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("…")
    state = RunFolder(tmp_path / "begun").training.state
    state.parent.mkdir(parents=True)
    state.write_bytes(b"weights of step 3")
    for name in ("labels.txt", "config.yaml"):
        shutil.copytree(whole, tmp_path / f"no_{name}")
        (tmp_path / f"no_{name}" / name).unlink()
    shutil.copytree(whole, tmp_path / "other_config")
    (tmp_path / "other_config" / "config.yaml").write_text("a: 1\n")
    for value, message in {
        3: " must be the folder of a run",
        str(tmp_path / "nowhere"): "holds no run: give the folder of a run",
        str(tmp_path / "empty"): "holds no run: give the folder of a run",
        str(tmp_path / "begun"): "was stopped before its first evaluation",
        str(tmp_path / "notes.txt"): "is neither a run's folder",
        str(tmp_path / "no_labels.txt"): "labels.txt' is missing",
        str(tmp_path / "no_config.yaml"): "holds no run",
        str(tmp_path / "other_config"): "is not a run's configuration",
    }.items():
        with pytest.raises(KwsError, match=one_line(message)):
            find_origin(value)


def test_initial_weights_are_saved(tmp_path: Path) -> None:
    before = network(*SMALL_NET, seed=1)
    after = started(tmp_path, make_run(tmp_path / "other", before), network(*SMALL_NET, seed=2))
    assert_equal(checkpoint.read_arrays(RunFolder(tmp_path / "run").training.initial), after.weights())


@pytest.mark.slow
def test_fine_tuning_from_the_command_line(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(words=("yes", "no", "bed", "up"))
    quick = ["dataset=folder", f"dataset.path={root}", *SMALL, "trainer=quick", "features.normalise=true"]
    train(tmp_path, *quick, "task.words=[yes,no]", "name=words")
    other = only_run(tmp_path)

    output = train(tmp_path, *quick, "task.words=[up,bed]", f"start_from={other}", "name=tuned")
    refused = train(tmp_path, *quick, "task.words=[up,bed]", "start_from=runs/nowhere", "name=lost", status=1)

    assert "with a new head" in output
    (record,) = tmp_path.glob("runs/tuned/*/run.json")
    assert json.loads(record.read_text())["started_from_sha256"]
    ours, theirs = (
        checkpoint.read_arrays(RunFolder(run).training.initial)[-1]  # the variance of its features
        for run in (record.parent, other)
    )
    np.testing.assert_array_equal(ours, theirs)
    assert "start_from: 'runs/nowhere' holds no run" in refused
    assert "data:" not in refused
