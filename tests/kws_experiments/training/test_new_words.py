"""Fitting a word's output to few clips, beside outputs that stay."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.special import softmax

from kws_experiments.training.new_words import Head, Material, RowFit, expected
from tests.conftest import MakeFolder
from tests.kws_experiments.test_train import SMALL, train

INPUTS, LABELS = 8, 4


def head(*, use_bias: bool = True) -> Head:
    network = keras.Sequential([keras.Input((INPUTS,)), keras.layers.Dense(LABELS, use_bias=use_bias)])
    return Head(keras.Model(network.inputs, network.outputs))


def around(direction: int, clips: int, seed: int) -> np.ndarray:
    """Clips of one class: positive inputs, one of which stands out."""
    inputs = np.abs(np.random.default_rng(seed).normal(0, 0.5, (clips, INPUTS)))
    inputs[:, direction] += 4
    return inputs


def material(*, clips: int = 6, direction: int = 7, speakers: int = 2) -> Material:
    plain = around(direction, clips, 1)
    variants = np.stack([plain, plain * 1.1, plain * 0.9], axis=1)
    others = np.concatenate([around(other, 50, other) for other in range(3)])
    names = np.array([f"s{clip % speakers}" for clip in range(clips)])
    return Material(plain, variants, names, others, np.zeros(len(others), bool), around(4, 30, 5))


@pytest.mark.parametrize("use_bias", [True, False])
def test_the_word_is_told_from_others_and_no_other_output_changes(use_bias: bool) -> None:
    layer = head(use_bias=use_bias)
    some, found = around(0, 20, 9), material()
    before = layer.logits(some)
    fit = RowFit(layer, 3, found)
    row = fit.row(np.ones(6, bool))
    assert row is not None
    layer.set_row(3, row)
    np.testing.assert_allclose(layer.logits(some)[:, :3], before[:, :3], rtol=1e-5)
    np.testing.assert_allclose(layer._layer(some.astype(np.float32)), layer.logits(some), rtol=1e-4, atol=1e-4)
    unheard = layer.scores(around(7, 50, 30))[:, 3]
    assert unheard.min() > layer.scores(some)[:, 3].max()
    assert unheard.min() > layer.scores(found.windows)[:, 3].max()
    np.testing.assert_allclose(layer.scores(some), softmax(layer.logits(some), axis=1))
    np.testing.assert_allclose(layer.scores_with(3, row, some), layer.scores(some)[:, 3])


def test_a_clip_left_out_does_not_take_part() -> None:
    """An outlier among the clips is missed when left out, though the output fitted to it finds it."""
    found = material(clips=5)
    found.plain[4] = around(0, 1, 40)[0]  # it sounds like another word
    found.variants[4] = found.plain[4]
    others = np.concatenate([around(other, 100, 20 + other) for other in range(3)])
    promised = expected(RowFit(head(), 3, found), found, others, 0.01)
    assert promised["by_clip"]["clips"] == 5
    assert promised["by_clip"]["missed"] == 1
    low, high = promised["by_clip"]["miss_rate_95"]
    assert 0 < low < 0.2 < high < 1


@pytest.mark.parametrize(("speakers", "known"), [(1, False), (2, True), (6, False)])
def test_speakers_are_left_out_where_several_have_several_clips(speakers: int, known: bool) -> None:
    found = material(speakers=speakers)
    promised = expected(RowFit(head(), 3, found), found, found.others, 0.01)
    assert (promised["by_speaker"] is not None) == known


def test_of_a_single_clip_and_nothing_else_nothing_is_known() -> None:
    found = material(clips=1)
    assert expected(RowFit(head(), 3, found), found, found.others, 0.01)["by_clip"] is None


@pytest.mark.slow
def test_a_pretraining_and_other_words_add_no_word(make_folder: MakeFolder, tmp_path: Path) -> None:
    """A pre-training has neither this run's words nor `_unknown_`; a run of the same words lacks `_unknown_` alone."""
    root, beside = make_folder(words=("yes", "no", "bed", "up")), make_folder("beside", words=("yes",))
    data = ["dataset=folder", f"dataset.path={root}", *SMALL, "trainer=quick", "task.words=[yes,no]"]
    mine = [*data, f"task.word_dirs=[{beside}]"]
    before = "+pretrain={name: before, task: {words: [bed, up], unknown: false, word_dirs: []}}"
    train(tmp_path, *mine, before, "name=pretrained", "report=true")
    train(tmp_path, *data, "task.unknown=false", "name=words")
    (words,) = tmp_path.glob("runs/words/*/")

    train(tmp_path, *mine, f"start_from={words}", "name=tuned")

    (pretrained,) = tmp_path.glob("runs/pretrained/*/")
    (tuned,) = tmp_path.glob("runs/tuned/*/")
    assert list(tmp_path.glob("runs/before/*/model.keras"))
    assert not list(pretrained.glob("new_words.json"))
    assert not list(tuned.glob("new_words.json"))
    assert "New words" not in (pretrained / "report.md").read_text()
