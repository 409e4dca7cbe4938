from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from kws_data.errors import KwsError
from kws_data.layout import Naming, split_catalog
from kws_data.splits import TESTING, TRAINING, VALIDATION, HashSplit, ListSplit, RandomSplit, SplitPolicy
from tests.kws_data.test_catalog import write_clip

HASH = HashSplit()


@pytest.fixture
def real_splits(real_data: Path, tmp_path: Path) -> Path:
    """A data set of real clips in training/, validation/ and testing/, two words each."""
    root = tmp_path / "splits"
    for split, first, last in (("training", 0, 60), ("validation", 60, 70), ("testing", 70, 80)):
        for word in ("yes", "no"):
            (root / split / word).mkdir(parents=True)
            for path in sorted((real_data / word).iterdir())[first:last]:
                shutil.copy(path, root / split / word / path.name)
    return root


def made(root: Path, *names: str) -> Path:
    for name in names:
        write_clip(root / name)
    return root


def rows(root: Path, layout: str = "auto", policy: SplitPolicy = HASH) -> list[tuple[str, str]]:
    """(word, split) of each good clip, sorted."""
    catalog = split_catalog(root, policy, Naming(layout=layout))
    return sorted(catalog.loc[catalog["error"] == "", ["word", "split"]].itertuples(index=False, name=None))


def counts(catalog: pd.DataFrame) -> dict[tuple[str, str], int]:
    return catalog.groupby(["word", "split"]).size().to_dict()


def test_folders_of_splits_hold_the_words(real_splits: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    expected = {(word, split): number for word in ("no", "yes")
                for split, number in ((TRAINING, 60), (VALIDATION, 10), (TESTING, 10))}  # fmt: skip
    assert counts(split_catalog(real_splits, HashSplit())) == expected
    assert [(record.levelname, "testing, training, validation" in record.message) for record in caplog.records] == [
        ("INFO", True)
    ]


def test_without_a_validation_folder_whole_speakers_of_training_are_taken(real_splits: Path) -> None:
    shutil.rmtree(real_splits / "validation")
    catalog = split_catalog(real_splits, HashSplit(30))
    training = catalog[catalog["path"].str.startswith("training/")]
    assert set(training["split"]) == {TRAINING, VALIDATION}
    assert training.groupby("speaker")["split"].nunique().max() == 1
    assert set(catalog.loc[~catalog.index.isin(training.index), "split"]) == {TESTING}


@pytest.mark.parametrize("policy", [ListSplit(), RandomSplit(0)])
def test_a_policy_that_the_folders_contradict_is_said(
    real_splits: Path, policy: SplitPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    assert set(split_catalog(real_splits, policy)["split"]) == {TRAINING, VALIDATION, TESTING}
    assert len(caplog.messages) == 1
    assert f"{type(policy).__name__} does nothing" in caplog.messages[0]


@pytest.mark.parametrize(
    ("training", "validation", "testing"),
    [
        ("Train", "valid", "TEST"),
        ("train", "dev", "test"),
        ("train", "val", "Testing"),
        ("train_set", "dev-Set", "test data"),
    ],
)
def test_splits_go_by_many_names(tmp_path: Path, training: str, validation: str, testing: str) -> None:
    made(tmp_path, f"{training}/yes/a.wav", f"{validation}/yes/b.wav", f"{testing}/yes/deep/c.wav")
    assert rows(tmp_path) == [("yes", TESTING), ("yes", TRAINING), ("yes", VALIDATION)]


@pytest.mark.parametrize(
    "names",
    [
        ("test/a.wav", "yes/b.wav"),
        ("test/anna/a.wav", "yes/anna/b.wav"),  # a folder per speaker
        ("train/a.wav", "train/b.wav"),
        ("train/a.b.wav", "bus/a.b.wav"),
    ],
)
def test_a_word_that_is_called_like_a_split_stays_a_word(tmp_path: Path, names: Sequence[str]) -> None:
    made(tmp_path, *names)
    assert {word for word, _ in rows(tmp_path)} == {name.split("/")[0] for name in names}


def test_the_layout_can_be_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "train/yes/a.wav", "test/yes/b.wav", "noise/c.wav")
    assert {word for word, _ in rows(tmp_path)} == {"noise", "test", "train"}
    assert "dataset.layout=splits" in caplog.text
    assert [row for row in rows(tmp_path, "splits") if row[0] != "noise"] == [("yes", TESTING), ("yes", TRAINING)]
    shutil.rmtree(tmp_path / "noise")
    assert {word for word, _ in rows(tmp_path, "words")} == {"test", "train"}
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "train").rename(tmp_path / "yes")
    with pytest.raises(KwsError, match=r"^dataset\.layout=splits: .* no folder"):
        split_catalog(tmp_path, HashSplit(), Naming(layout="splits"))
    with pytest.raises(ValueError, match=r"^layout must be one of auto, words, splits"):
        Naming(layout="folders")


def test_special_folders_keep_their_meaning_above_and_below(tmp_path: Path) -> None:
    made(tmp_path, "train/yes/a.wav", "test/yes/b.wav", "_unknown_/c.wav", "train/_silence_/d.wav")
    made(tmp_path, "_background_noise_/e.wav", "test/_background_noise_/f.wav", "train/_background_noise_/g.wav")
    catalog = split_catalog(tmp_path, HashSplit(0, 0)).set_index("path")
    assert catalog.loc["_unknown_/c.wav", ["word", "split"]].tolist() == ["_unknown_", TRAINING]
    assert catalog.loc["train/_silence_/d.wav", ["word", "split"]].tolist() == ["_silence_", TRAINING]
    noise = catalog[catalog["word"] == "_background_noise_"]
    assert noise["split"].tolist()[1:] == [TESTING, TRAINING]


@pytest.mark.parametrize("with_labels", [True, False])
def test_edge_impulse_says_words_in_files_and_their_names(tmp_path: Path, with_labels: bool) -> None:
    names = ("training/yes.0a1b_nohash_0.wav.1x.wav", "training/no.0a1b_nohash_0.wav", "testing/yes.2c3d.wav")
    made(tmp_path, *names, "training/unsure.wav", "training/unsure.1.wav" if with_labels else "training/unsure_2.wav")
    labels = [name.split("/")[1].split(".")[0].title() if with_labels else None for name in names]
    if with_labels:
        files = [
            {"path": name, "category": name.split("/")[0], "label": {"type": "label", "label": label}}
            for name, label in zip(names, labels, strict=True)
        ]
        files.append({"path": "training/unsure.1.wav", "label": {"type": "unlabeled"}})
        (tmp_path / "info.labels").write_text(json.dumps({"version": 1, "files": files}))
    catalog = split_catalog(tmp_path, HashSplit(0, 0)).set_index("path")
    expected = labels if with_labels else ["yes", "no", "yes"]
    assert catalog.loc[list(names), "word"].tolist() == expected
    assert catalog.loc[list(names), "split"].tolist() == [TRAINING, TRAINING, TESTING]
    unsure = catalog[catalog.index.str.contains("unsure")]
    assert len(unsure) == 2
    assert unsure["error"].str.startswith("nothing says its word").all()
    if not with_labels:  # one speaker, whatever the word
        assert catalog.loc[list(names[:2]), "speaker"].tolist() == ["0a1b", "0a1b"]


@pytest.mark.parametrize(
    "content", ["", "[]", "[" * 100_000, '{"files": [{"path": "a"}]}', '{"files": 3}', '{"files": ["a"]}']
)
def test_damaged_labels_of_edge_impulse_are_one_line(tmp_path: Path, content: str) -> None:
    made(tmp_path, "training/yes.1.wav", "testing/yes.2.wav")
    (tmp_path / "info.labels").write_text(content)
    with pytest.raises(KwsError, match=r"info\.labels' holds no labels"):
        split_catalog(tmp_path, HashSplit())


def test_one_word_in_two_unicode_forms_is_one_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    decomposed = unicodedata.normalize("NFD", "é")
    made(tmp_path, "é/a.wav", f"{decomposed}/b.wav")
    assert {word for word, _ in rows(tmp_path)} == {"é"}
    assert len(caplog.messages) == 1
    assert "2 folders 'é'" in caplog.messages[0]
    caplog.clear()
    made(tmp_path / "splits", "train/é/a.wav", f"test/{decomposed}/b.wav")
    assert rows(tmp_path / "splits") == [("é", TESTING), ("é", TRAINING)]
    assert not caplog.messages


@pytest.mark.parametrize(
    "splits", [("train", "holdout"), ("1_train", "2_val", "3_test"), ("train (1)", "test (1)"), ("my_train", "my_test")]
)
def test_folders_that_look_like_splits_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, splits: Sequence[str]
) -> None:
    made(tmp_path, *(f"{split}/{word}/{number}.wav" for number, split in enumerate(splits) for word in ("yes", "no")))
    assert {word for word, _ in rows(tmp_path)} == {*splits}
    (record,) = caplog.records
    assert "are taken for words, but the same folders (no, yes) are in several of them" in record.message
    caplog.clear()
    rows(tmp_path, layout="words")
    assert not caplog.records


def test_speakers_folders_below_words_are_no_reason_for_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path, "yes/anna/a.wav", "latest/ben/b.wav", "latest/anna/c.wav", "yes/ben/d.wav")
    assert {word for word, _ in rows(tmp_path)} == {"yes", "latest"}
    assert not caplog.records


def test_a_folder_between_splits_and_words_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, *(f"{split}/audio/{word}/{split}.wav" for split in ("train", "test") for word in ("yes", "no")))
    assert {word for word, _ in rows(tmp_path)} == {"audio"}
    assert "one folder each, 'audio', which is taken for the only word" in caplog.messages[0]


def test_folders_of_splits_inside_those_of_words_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split_catalog(made(tmp_path, "yes/train/a.wav", "yes/test/b.wav", "no/train/c.wav"), HASH)
    (record,) = caplog.records
    assert (
        "folders of splits inside those of words, such as no/train, yes/test and 1 more, are not read" in record.message
    )
    caplog.clear()
    split_catalog(made(tmp_path / "other", "yes/test/b.wav", "no/anna/c.wav"), HASH)
    assert not caplog.records
