from __future__ import annotations

import logging
import math
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.corpus import Corpus
from kws_data.errors import KwsError
from kws_data.noise import NoiseBank
from kws_data.splits import SPLITS, TESTING, TRAINING, VALIDATION
from kws_data.task import NO_SOURCE, Task, WordTargets


def corpus_of(counts: dict[tuple[str, str, str], int]) -> Corpus:
    """Clips by (word, split, unknown folder)."""
    rows = [
        {
            "source": 1 if folder else 0, "path": f"{word}/{split}{number:05d}.wav",
            "word": word, "speaker": str(number),
            "utterance": 0, "folder": folder, "split": split,
            "offset": 100 * number, "length": 16000, "start": 0, "content": "x",
        }
        for (word, split, folder), count in counts.items()
        for number in range(count)
    ]  # fmt: skip
    return Corpus(pd.DataFrame(rows), pd.DataFrame(), [], [Path("data")], NoiseBank([np.zeros(99, np.int16)]), 16000)


def plain(training: int = 40, held_out: int = 11, words: str = "yes no bed cat") -> Corpus:
    counts = {TRAINING: training, VALIDATION: held_out, TESTING: held_out + 2}
    return corpus_of({(word, split, ""): count for word in words.split() for split, count in counts.items()})


def of_class(examples: pd.DataFrame, task: Task, corpus: Corpus, label: str, split: str | None = None) -> pd.DataFrame:
    rows = examples[examples["label"] == task.labels(corpus).index(label)]
    return rows if split is None else rows[rows["split"] == split]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [SILENCE, UNKNOWN, "no", "yes"]),
        ({"silence": False}, [UNKNOWN, "no", "yes"]),
        ({"unknown": False}, [SILENCE, "no", "yes"]),
        ({"silence": False, "unknown": False}, ["no", "yes"]),
    ],
)
def test_labels_are_silence_unknown_and_the_words_as_given(options: dict[str, Any], expected: list[str]) -> None:
    task, corpus = Task(["no", "yes"], **options), plain()
    assert task.labels(corpus) == expected
    examples = task.examples(corpus, 0)
    words = examples[examples["word"].isin(["no", "yes"])]
    assert [expected[label] for label in words["label"]] == words["word"].tolist()
    assert set(examples["label"]) == set(range(len(expected)))
    assert examples.index.tolist() == list(range(len(examples)))


def test_words_are_found_in_either_unicode_form() -> None:
    task = Task([unicodedata.normalize("NFD", "été")], silence=False, unknown=False)
    assert task.labels(plain(words="été no")) == ["été"]


def test_null_takes_every_word() -> None:
    task, corpus = Task(None, silence=False, unknown=False), plain(words="yes no bed _silence_ _unknown_")
    assert task.labels(corpus) == ["bed", "no", "yes"]
    assert set(task.examples(corpus, 0)["word"]) == {"bed", "no", "yes"}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.floats(0, 150), st.floats(0, 150))
def test_quotas_are_rounded_up_in_each_split(training: int, held_out: int, silence: float, unknown: float) -> None:
    corpus = corpus_of(
        {("yes", TRAINING, ""): training + 1, ("no", VALIDATION, ""): held_out, ("bed", TRAINING, ""): 70}
        | {("bed", VALIDATION, ""): 100, ("bed", TESTING, ""): 10}
    )
    if not held_out:
        corpus = corpus_of({("yes", TRAINING, ""): training + 1, ("no", TRAINING, ""): 1, ("bed", TRAINING, ""): 200})
    task = Task(["yes", "no"], silence_percentage=silence, unknown_percentage=unknown)
    examples = task.examples(corpus, 0)
    for split in SPLITS:
        clips = corpus.clips[corpus.clips["split"] == split]
        wanted = clips["word"].isin(["yes", "no"]).sum()
        others = len(clips) - wanted
        assert len(of_class(examples, task, corpus, SILENCE, split)) == math.ceil(wanted * silence / 100)
        assert len(of_class(examples, task, corpus, UNKNOWN, split)) == min(others, math.ceil(wanted * unknown / 100))
    assert not examples.drop(columns="label").duplicated().any()


@pytest.mark.parametrize("percentage", [0, 25, 100])
def test_training_may_hear_another_share_of_unknown_clips(percentage: float) -> None:
    corpus = plain(training=100)
    usual, other = (
        Task(["yes"], unknown_percentage=50, training_unknown_percentage=value) for value in (None, percentage)
    )
    wanted = corpus.clips.query("word == 'yes' and split == 'training'")
    trained_on = of_class(other.examples(corpus, 0), other, corpus, UNKNOWN, TRAINING)
    assert len(trained_on) == len(wanted) * percentage / 100
    for split in (VALIDATION, TESTING):
        same = [
            set(of_class(task.examples(corpus, 0), task, corpus, UNKNOWN, split)["path"]) for task in (usual, other)
        ]
        assert same[0] == same[1] != set()


def test_training_may_hear_clips_of_other_words_several_times() -> None:
    corpus = plain(training=100)
    once, thrice = (Task(["yes"], training_unknown_repeats=times) for times in (1, 3))
    unknown = [of_class(task.examples(corpus, 0), task, corpus, UNKNOWN, TRAINING) for task in (once, thrice)]
    assert unknown[1]["path"].value_counts().to_dict() == dict.fromkeys(unknown[0]["path"], 3)
    assert unknown[1].index.is_unique  # examples of their own, which are augmented in other ways
    rest = [
        task.examples(corpus, 0).drop(repeated.index).reset_index(drop=True)
        for task, repeated in zip((once, thrice), unknown, strict=True)
    ]
    pd.testing.assert_frame_equal(*rest)
    recorded = plain(words="yes _unknown_")
    examples = once.examples(recorded, 0), thrice.examples(recorded, 0)
    numbers = [len(of_class(one, once, recorded, UNKNOWN, TRAINING)) for one in examples]
    assert numbers[1] == 3 * numbers[0] > 0
    with pytest.raises(ValueError, match="training_unknown_repeats"):
        Task(["yes"], training_unknown_repeats=0)


def test_every_wanted_clip_stands_once_with_its_place() -> None:
    corpus = plain()
    examples = Task(["yes", "no"]).examples(corpus, 0)
    wanted = corpus.clips[corpus.clips["word"].isin(["yes", "no"])]
    columns = ["path", "split", "source", "offset", "length", "word"]
    got = examples.loc[examples["word"].isin(["yes", "no"]), columns].sort_values("path", ignore_index=True)
    pd.testing.assert_frame_equal(got, wanted[columns].sort_values("path", ignore_index=True), check_dtype=False)


def test_silence_rows_have_no_source() -> None:
    examples = Task(["yes"]).examples(plain(), 0)
    silence = examples[examples["label"] == 0]
    assert silence["source"].eq(NO_SOURCE).all()
    assert silence["path"].is_unique
    assert (examples.loc[examples["label"] != 0, "source"] >= 0).all()


def test_types_hold_with_an_empty_split() -> None:
    corpus = corpus_of({("yes", TRAINING, ""): 7, ("yes", VALIDATION, ""): 3})
    examples = Task(["yes"]).examples(corpus, 0)
    for column in ("label", "source", "offset", "length"):
        assert pd.api.types.is_integer_dtype(examples[column]), column
    assert set(examples["split"]) == {TRAINING, VALIDATION}


def drawn(corpus: Corpus, seed: int, split: str = TRAINING) -> set[str]:
    task = Task(["yes"], unknown_percentage=50)
    return set(of_class(task.examples(corpus, seed), task, corpus, UNKNOWN, split)["path"])


def test_draws_are_stable_for_a_seed_and_differ_between_seeds() -> None:
    assert drawn(plain(), 7) == drawn(plain(), 7)
    assert drawn(plain(), 7) != drawn(plain(), 8)
    first = Task(["yes"]).examples(plain(), 7)
    pd.testing.assert_frame_equal(first, Task(["yes"]).examples(plain(), 7))


def test_draws_are_stable_under_reordered_and_added_files() -> None:
    corpus = plain(training=100)
    clips = corpus.clips.sample(frac=1, random_state=1, ignore_index=True)
    assert drawn(corpus, 3) == drawn(Corpus(clips, corpus.set_aside, [], corpus.roots, corpus.noise, 16000), 3)
    more = pd.concat([clips, corpus.clips.assign(path="cow/" + corpus.clips["path"], word="cow").iloc[:4]])
    added = Corpus(more, corpus.set_aside, [], corpus.roots, corpus.noise, 16000)
    assert len(drawn(corpus, 3) & drawn(added, 3)) >= 50 - 4


def test_unknown_clips_are_of_all_other_words() -> None:
    corpus = plain(training=300)
    task = Task(["yes"], unknown_percentage=100)
    words = Counter(of_class(task.examples(corpus, 0), task, corpus, UNKNOWN, TRAINING)["word"])
    assert set(words) == {"no", "bed", "cat"}
    assert min(words.values()) > 60


def test_recorded_silence_and_unknown_folders_are_those_classes() -> None:
    corpus = corpus_of(
        {
            ("yes", TESTING, ""): 100,
            ("bed", TESTING, ""): 100,
            ("_silence_", TESTING, ""): 4,
            ("_unknown_", TESTING, ""): 7,
        }
    )
    task = Task(["yes"])
    examples = task.examples(corpus, 0)
    silence, unknown = (of_class(examples, task, corpus, name, TESTING) for name in (SILENCE, UNKNOWN))
    assert len(silence) == 10
    assert (silence["source"] == NO_SOURCE).sum() == 6
    assert Counter(unknown["word"]) == {"_unknown_": 7, "bed": 3}
    task = Task(["yes"], silence_percentage=0, unknown_percentage=0)
    assert Counter(task.examples(corpus, 0)["word"]) == {"yes": 100, "_silence_": 4, "_unknown_": 7}
    task = Task(["yes"], silence=False, unknown=False)
    assert Counter(task.examples(corpus, 0)["word"]) == {"yes": 100}


@pytest.mark.parametrize(("wrong", "near"), [("yess", "yes"), ("marvn", "marvin"), ("Bed", "bed"), ("zzz", "")])
def test_a_word_that_no_folder_has_is_named_with_its_neighbours(wrong: str, near: str) -> None:
    corpus = plain(words="yes no bed marvin")
    with pytest.raises(KwsError, match=f"task.words.*'{wrong}'.*nearest: .*{near}") as info:
        Task(["no", wrong]).examples(corpus, 0)
    if near:
        assert str(info.value).split("nearest: ")[1].startswith(near)


@pytest.mark.parametrize("word", ["a\nb", "a\x1b[2J", "\x85", "a\u2028b", "\u202eb", ""])
def test_words_that_would_not_be_one_line_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"^words must not be empty or hold control characters"):
        Task(["yes", word])


@pytest.mark.parametrize("words", [[True, False], ["yes", True], [1], [None], [["yes"]]])
def test_words_that_yaml_read_as_something_else_are_refused(words: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"^words must be text.*quote"):
        Task(words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"words": []}, "^words"), ({"words": "yes"}, "^words must be a list"),
        ({"words": True}, "^words must be a list"),
        ({"words": ["a", "a"]}, "^words must differ"), ({"words": [SILENCE, "a"]}, "^words"),
        ({"words": ["a", UNKNOWN]}, "^words"), ({"silence_percentage": -1}, "^silence_percentage"),
        ({"unknown_percentage": float("nan")}, "^unknown_percentage"), ({"silence_kind": "music"}, "^silence_kind"),
        ({"unknown_dirs": "boo"}, "^unknown_dirs must be a list"), ({"unknown_dirs": [3]}, "^unknown_dirs"),
        ({"unknown_dirs": ["boo"], "unknown": False}, "^unknown_dirs"),
        ({"unknown_dirs": ["a/boo", "b/boo"]}, "^unknown_dirs"), ({"unknown_dirs": [{"share": 0.1}]}, "^unknown_dirs"),
        ({"unknown_dirs": [{"path": "boo", "share": 0}]}, "^unknown_dirs.*share.*boo"),
        ({"unknown_dirs": [{"path": "boo", "share": "much"}]}, "^unknown_dirs.*share.*boo"),
        ({"unknown_dirs": [{"path": "boo", "part": 0.1}]}, "^unknown_dirs.*part"),
        ({"unknown_dirs": [{"path": "a", "share": 0.6}, {"path": "b", "share": 0.5}]}, "^unknown_dirs"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task(**{"words": ["a"], **arguments})


def with_folders(boo: int = 50, meow: int = 30, others: int = 100) -> Corpus:
    counts = {("yes", TRAINING, ""): 200, ("bed", TRAINING, ""): others}
    folders = {(UNKNOWN, TRAINING, "boo"): boo, (UNKNOWN, TRAINING, "meow"): meow}
    return corpus_of({key: count for key, count in (counts | folders).items() if count})


def unknown_counts(corpus: Corpus, dirs: list[Any], percentage: float = 20) -> dict[str, int]:
    task = Task(["yes"], unknown_percentage=percentage, unknown_dirs=dirs)
    rows = of_class(task.examples(corpus, 0), task, corpus, UNKNOWN)
    assert not rows.duplicated(["folder", "path"]).any()
    return dict(Counter(rows["folder"]))


def test_unknown_folders_join_whole_beside_the_quota() -> None:
    assert unknown_counts(with_folders(), ["x/boo", "x/meow"]) == {"": 40, "boo": 50, "meow": 30}


@pytest.mark.parametrize(
    ("dirs", "expected"),
    [
        ([{"path": "boo", "share": 0.2}, "meow"], {"": 40, "boo": 18, "meow": 30}),  # 18 / 88
        ([{"path": "boo", "share": 0.2}, {"path": "meow", "share": 0.3}], {"": 40, "boo": 16, "meow": 24}),
        ([{"path": "boo", "share": 1}], {"boo": 40}),
        ([{"path": "boo", "share": 0.6}, {"path": "meow", "share": 0.4}], {"boo": 24, "meow": 16}),
        ([{"path": "boo", "share": 0.7}, {"path": "meow", "share": 0.2 + 0.1}], {"boo": 28, "meow": 12}),
    ],
)
def test_shares_are_parts_of_the_unknown_class(dirs: list[Any], expected: dict[str, int]) -> None:
    corpus = with_folders()
    if {entry["path"] for entry in dirs if isinstance(entry, dict)} == {"boo"} and "meow" not in dirs:
        corpus = with_folders(meow=0)
    assert unknown_counts(corpus, dirs) == expected


def test_shares_divide_the_quota_where_there_are_no_other_words() -> None:
    dirs = [{"path": "boo", "share": 0.2}, {"path": "meow", "share": 0.2}]
    assert unknown_counts(with_folders(others=0), dirs) == {"boo": 20, "meow": 20}


def test_a_share_that_a_folder_cannot_fill_takes_all_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert unknown_counts(with_folders(meow=0), [{"path": "boo", "share": 0.9}]) == {"": 40, "boo": 50}
    assert "boo" in caplog.text


def test_draws_of_a_share_differ_between_windows_of_one_recording() -> None:
    corpus = with_folders(meow=0)
    corpus.clips.loc[corpus.clips["folder"] == "boo", "path"] = "talk.wav"
    task = Task(["yes"], unknown_percentage=20, unknown_dirs=[{"path": "boo", "share": 0.2}])
    rows = of_class(task.examples(corpus, 0), task, corpus, UNKNOWN)
    windows = rows.loc[rows["folder"] == "boo", "offset"] // 100
    assert windows.is_unique
    assert len(windows) == 10
    assert windows.tolist() != list(range(10))


def test_where_words_are_told_apart_each_other_word_of_training_has_a_target() -> None:
    task, corpus = Task(["no", "yes"], unknown_percentage=100), plain(words="yes no bed cat")
    examples = task.examples(corpus, 0)
    targets = WordTargets.of(examples, task.unknown_label)
    assert targets is not None
    assert targets.labels.tolist() == [0, 1, 2, 3, 1, 1]
    np.testing.assert_array_equal(targets.labels[targets.of_examples], examples["label"])
    training = examples["split"] == TRAINING
    by_word = pd.Series(targets.of_examples).groupby([examples["word"], training]).unique()
    assert {key: value.tolist() for key, value in by_word.items()} == {
        (SILENCE, True): [0], (SILENCE, False): [0], ("no", True): [2], ("no", False): [2], ("yes", True): [3],
        ("yes", False): [3], ("bed", True): [4], ("bed", False): [1], ("cat", True): [5], ("cat", False): [1],
    }  # fmt: skip


@pytest.mark.parametrize("task", [Task(["no", "yes"], unknown=False), Task(["no", "yes"], unknown_percentage=0)])
def test_without_other_words_there_is_nothing_to_tell_apart(task: Task) -> None:
    assert WordTargets.of(task.examples(plain(), 0), task.unknown_label) is None
