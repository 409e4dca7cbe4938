"""What is typed on a command line: words as typed, and advice for what Hydra can't read."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from kws_data.errors import KwsError
from kws_experiments.config.compose import compose, overrides_fingerprint
from kws_experiments.config.overrides import as_typed, corrected, with_home

FOLDER = ["dataset=folder", "task=custom"]


def value_of(config: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("dataset.path=~/clips", "~/clips"),
        ("dataset.path=/data/été", "/data/été"),
        ("dataset.path=/a=b", "/a=b"),
        ("dataset.path=/a (old), new", "/a (old), new"),
        ("dataset.path=/it's", "/it's"),
        ('dataset.path=/a"b', '/a"b'),
        ("dataset.path=/a'b\"c\\", "/a'b\"c\\"),
        ("dataset.path=[old]takes", "[old]takes"),
        ("dataset.path=/a&b;c#d!e{f}`g`<h>", "/a&b;c#d!e{f}`g`<h>"),
        ("dataset.path=(${x})", "(${x})"),
        ("++dataset.path=/été", "/été"),
        ("task.words=[école]", ["école"]),
        ("task.words=[yes, l'eau,はい]", ["yes", "l'eau", "はい"]),
        ('task.words=["a,b",é,1]', ["a,b", "é", "1"]),
        ("task.words=[yes,no", ["yes", "no"]),
        ("noise.dirs=[~/x,/y]", ["~/x", "/y"]),
    ],
)
def test_what_cannot_be_read_comes_with_the_argument_that_can(argument: str, meant: Any) -> None:
    with pytest.raises(KwsError) as caught:
        compose([*FOLDER, argument])
    line = str(caught.value)
    assert "\n" not in line

    typed = shlex.split(line.partition("can't be read without quotes; write ")[2])

    assert len(typed) == 1
    key = argument.lstrip("+").partition("=")[0]
    assert value_of(compose(["dataset.path=/x", *FOLDER, *typed]), key) == meant


@given(st.text(st.sampled_from("ab/ ~()[]{},=:$#'\"\\é語.1"), min_size=1).map(str.strip).filter(bool))
@example("\\${")
def test_any_path_can_be_given(path: str) -> None:
    assume(not path.startswith("["))
    better = corrected(f"dataset.path={path}")
    assert better is not None
    (typed,) = shlex.split(better[1])
    value = OverridesParser.create().parse_override(typed).value()
    assert OmegaConf.create({"path": value}).path == path


def test_a_comma_may_mean_a_text_a_list_or_a_sweep() -> None:
    with pytest.raises(KwsError) as caught:
        compose([*FOLDER, "dataset.path=/a,b"])
    text, as_list = re.findall(r"'(dataset\.path=[^']*)'", str(caught.value))
    assert compose([*FOLDER, text])["dataset"]["path"] == "/a,b"
    assert compose([*FOLDER, as_list])["dataset"]["path"] == ["/a", "b"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("[0,1]", ["0", "1"]),
        ("[yes,no,on,off,null,1e5]", ["yes", "no", "on", "off", "null", "1e5"]),
        ("[True,-3.5,01, nan ]", ["True", "-3.5", "01", "nan"]),
        ('["0",\'1\',"a,1,b",1 2]', ["0", "1", "a,1,b", "1 2"]),
        ("null", None),
        ("[]", []),
    ],
)  # fmt: skip
def test_words_are_taken_as_typed(typed: str, words: list[str] | None) -> None:
    assert compose([*FOLDER, "dataset.path=/x", f"task.words={typed}"])["task"]["words"] == words


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("--dataset=~/clips", "--dataset=/home/me/clips"), ("~/clips", "/home/me/clips"), ("~", "/home/me"),
        ("--config-dir=~", "--config-dir=/home/me"), ("hydra.run.dir=~/a b", "hydra.run.dir=/home/me/a b"),
        ("+hydra.sweeper.storage='~/x'", "+hydra.sweeper.storage='/home/me/x'"),
    ],
)  # fmt: skip
def test_paths_at_home_are_taken_in_full(typed: str, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert with_home([typed]) == [taken]


@pytest.mark.parametrize("typed", ["~loggers.mlflow", "dataset.path=~/clips", "--x", "a~/b", "--label=~word", "x=~"])
def test_what_is_no_path_at_home_stays(typed: str) -> None:
    assert with_home([typed]) == [typed]


def test_what_needs_no_quotes_stays_so_that_sweeps_keep_their_names() -> None:
    arguments = ["-m", "task.words=[yes,no]", "seed=0,1", "model=conv,cnn4", "trainer.epochs=null", "--config-dir=/1"]
    assert as_typed(arguments) == arguments
    assert overrides_fingerprint(arguments) == overrides_fingerprint(as_typed(arguments))


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("trianer=quick", "trianer: there is no such key; did you mean trainer?"),
        ("trainer=qick", "trainer=qick: trainer has no such choice; did you mean quick?"),
        ("optimizer.lerning_rate=1", "there is no such key; did you mean optimizer.learning_rate?"),
        ("optimzer.learning_rate=1", "there is no such key; did you mean optimizer.learning_rate?"),
        ("optimizer.momentun=1", "there is no such key; did you mean optimizer.momentum?"),  # of another choice
        ("~trainer.epoch", "trainer.epoch: there is no such key; did you mean trainer.epochs?"),
        ("threads.xyz=1", "threads.xyz: there is no such key; threads has inter_op, intra_op"),
        ("zebra=3", "zebra: there is no such key; to add one, write +zebra=…"),
        ("trainer=", "trainer=: trainer has no such choice; there are default, quick"),
        ("logger=null", "logger=null: logger has no such choice; there are mlflow"),
        ("=3", "'=3' names no key: write KEY=VALUE"),
        ("trainer", "trainer: this can't be read; write KEY=VALUE, with double quotes around texts in the value"),
    ],
)
def test_a_misspelled_name_is_one_line_with_the_nearest(argument: str, line: str) -> None:
    with pytest.raises(KwsError) as caught:
        compose([argument])
    assert str(caught.value).endswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["task.words=[yes,", "no]"], "'task.words=[yes,no]'"),
        (["task.words=[yes,", "no,", "up]", "seed=1"], "'task.words=[yes,no,up]'"),
        (["task.words=[left", "hand,", "right]"], "'task.words=[left hand,right]'"),
        (["task.synthetic_unknown={words:", "60,", "talk:", "3}"], "'task.synthetic_unknown={words:60,talk:3}'"),
        (["task.words=[日本,", "中国]"], """'task.words=["日本","中国"]'"""),
    ],
)
def test_a_list_that_the_shell_divided_is_put_together(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], advice: str
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", *arguments])
    with pytest.raises(KwsError) as info:
        compose(arguments)
    assert str(info.value).endswith(f"the shell split this at its spaces; write {advice}")


def test_a_list_of_which_more_than_the_end_is_missing_gets_no_correction() -> None:
    with pytest.raises(KwsError, match=r"this can't be read") as info:
        compose(["task.words=[yes,"])
    assert "'task.words=[yes" not in str(info.value)
