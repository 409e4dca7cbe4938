"""From Hydra's overrides to what Optuna draws from."""

from __future__ import annotations

from typing import Any

import pytest

from kws_data.errors import KwsError
from kws_experiments.sweeps.search_space import by_key, distribution

distributions = pytest.importorskip("optuna.distributions")
Choices, Numbers, Whole = (getattr(distributions, f"{kind}Distribution") for kind in ("Categorical", "Float", "Int"))


def only(text: str) -> Any:
    (override,) = by_key({}, [text]).values()
    return override


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=interval(0,200)", Numbers(0.0, 200.0)),
        ("a=int(interval(2,9))", Whole(2, 9)),
        ("a=tag(log,interval(0.001,0.1))", Numbers(0.001, 0.1, log=True)),
        ("a=tag(log,int(interval(1,64)))", Whole(1, 64, log=True)),
        ("a=range(1,8,2)", Whole(1, 7, step=2)),  # as Hydra has it, without the end
        ("a=range(8,1,-3)", Whole(2, 8, step=3)),
        ("a=shuffle(range(0,3))", Whole(0, 2)),
        ("a=range(0,1,0.25)", Numbers(0.0, 0.75, step=0.25)),
        ("model=conv,res8", Choices(["conv", "res8"])),
        ("+a=null,true,0.5,'it, too',[1,2]", Choices(["null", "True", "0.5", "'it, too'", "[1,2]"])),
    ],
)
def test_what_a_search_draws_from(text: str, expected: Any) -> None:
    assert distribution(only(text)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a=tag(log,interval(0,1))", "log"),
        ("a=interval(2,1)", "low"),
        ("a=range(3,3)", "the range is empty"),
        ("model=glob(*)", "choices, range(…) and interval(…) only"),
    ],
)
def test_what_it_cannot_draw_from_is_one_line(text: str, words: str) -> None:
    with pytest.raises(KwsError) as caught:
        distribution(only(text))
    assert str(caught.value).startswith(f"{text}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_last_of_a_key_counts() -> None:
    chosen = by_key({"rate": "interval(0,1)", "shift": "interval(0,9)"}, ["shift=5", "rate=interval(2,3)", "seed=1"])
    assert [chosen[key].input_line for key in ("rate", "shift", "seed")] == ["rate=interval(2,3)", "shift=5", "seed=1"]
