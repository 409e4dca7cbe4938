from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kws_data.draws import Draws, permutation, text_key, text_order

MASK = 2**64 - 1
COUNT = 40_000
int64s = st.integers(-(2**63), 2**63 - 1)


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def absorb(state: int, value: int) -> int:
    gamma = 0x9E3779B97F4A7C15
    return mix((((state + gamma) & MASK) ^ mix((value + gamma) & MASK)) & MASK)


def expected_bits(seed: int, epoch: int, example: int, stage: str, place: int) -> int:
    """The generator as its docstring tells, in Python's own integers."""
    state = 0
    stage_key = int.from_bytes(hashlib.blake2b(stage.encode(), digest_size=8).digest(), "little")
    for value in (seed & MASK, epoch & MASK, example & MASK, stage_key):
        state = absorb(state, value)
    return mix((state + (place + 1) * 0x9E3779B97F4A7C15) & MASK)


@given(int64s, int64s, int64s, st.text(max_size=10), st.integers(1, 4))
def test_bits_are_splitmix_of_the_key(seed: int, epoch: int, example: int, stage: str, count: int) -> None:
    bits = Draws(seed, epoch, np.array([example])).bits(stage, count)
    assert bits.shape == (1, count)
    assert bits[0].tolist() == [expected_bits(seed, epoch, example, stage, place) for place in range(count)]


def test_results_are_pinned() -> None:
    # A change here changes every run ever made: it must be intended, and announced.
    assert Draws(0, 0, np.arange(2)).bits("a")[:, 0].tolist() == [0x7E456AFE5E183641, 0xC2A6AAC9994852DD]
    assert Draws(1, 2, np.array([5])).bits("time shift", 2)[0].tolist() == [0x63841A3B5608A0DD, 0x43B602577D871A03]
    assert Draws(0, 0, np.arange(2)).of("x").bits("a")[:, 0].tolist() == [0x61BBFA86AD86B852, 0x0D1E3E2D9FC2E2CC]
    uniform = Draws(7, 3, np.array([0, 1, 10**12])).uniform("b")[:, 0]
    assert uniform.tolist() == [0.5593547333138489, 0.5184632587508509, 0.8586934582357678]
    assert Draws(7, 3, np.arange(6)).integers("b", 100).tolist() == [55, 51, 84, 46, 68, 64]
    assert permutation(0, 0, 10).tolist() == [1, 3, 2, 8, 6, 4, 5, 0, 7, 9]
    assert permutation(0, 1, 10).tolist() == [5, 9, 2, 1, 4, 0, 8, 7, 3, 6]
    assert text_key("yes") == 0x927A186D5C80B1D1


def streams() -> dict[str, np.ndarray]:
    """Long runs of draws in which one part of the key counts up."""
    many, one = np.arange(COUNT), np.zeros(1, np.int64)
    return {
        "ids": Draws(0, 0, many).uniform("a")[:, 0],
        "large ids": Draws(0, 0, many + 10**15).uniform("a")[:, 0],
        "stage": Draws(0, 0, many).uniform("b")[:, 0],
        "seed": Draws(1, 0, many).uniform("a")[:, 0],
        "epoch": Draws(0, 1, many).uniform("a")[:, 0],
        "seed and epoch exchanged": Draws(2, 1, many).uniform("a")[:, 0],
        "of a name": Draws(0, 0, many).of("a").uniform("a")[:, 0],
        "next place": Draws(0, 0, many).uniform("a", 2)[:, 1],
        "places": Draws(0, 0, one).uniform("a", COUNT)[0],
        "seeds": np.concatenate([Draws(seed, 0, one).uniform("a")[0] for seed in range(COUNT // 10)]),
        "epochs": np.concatenate([Draws(0, epoch, one).uniform("a")[0] for epoch in range(COUNT // 10)]),
        "stages": np.concatenate([Draws(0, 0, one).uniform(f"stage {n}")[0] for n in range(COUNT // 10)]),
    }


@pytest.fixture(scope="module", name="streams")
def streams_fixture() -> dict[str, np.ndarray]:
    return streams()


def test_draws_are_uniform(streams: dict[str, np.ndarray]) -> None:
    for name, values in streams.items():
        assert values.min() >= 0, name
        assert values.max() < 1, name
        assert stats.kstest(values, "uniform").pvalue > 1e-3, name
        # low bits too: the fractions of 1024ths
        assert stats.kstest(values * 1024 % 1, "uniform").pvalue > 1e-3, name


def test_draws_are_independent_of_each_other(streams: dict[str, np.ndarray]) -> None:
    def dependence(a: np.ndarray, b: np.ndarray) -> float:
        cells, _, _ = np.histogram2d(a, b, bins=16, range=[[0, 1], [0, 1]])
        return float(stats.chisquare(cells.ravel()).pvalue)

    full = {name: values for name, values in streams.items() if len(values) == COUNT}
    names = list(full)
    pairs = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
    for a, b in pairs:
        assert dependence(full[a], full[b]) > 1e-4, (a, b)
    for name, values in streams.items():  # neighbours in one stream
        assert dependence(values[:-1], values[1:]) > 1e-4, name


def test_no_two_keys_give_the_same_draw() -> None:
    bits = [
        Draws(seed, epoch, np.arange(100)).bits(stage, 2)
        for seed in range(-3, 12) for epoch in range(12) for stage in ("a", "b", "time shift")
    ]  # fmt: skip
    values = np.concatenate(bits).ravel()
    assert len(np.unique(values)) == len(values)


@given(st.lists(int64s, min_size=1, max_size=20), st.integers(0, 99), st.randoms())
def test_a_draw_does_not_depend_on_its_batch(ids: list[int], seed: int, random: object) -> None:
    alone = [Draws(seed, 4, np.array([example])).uniform("a", 3)[0].tolist() for example in ids]
    assert Draws(seed, 4, np.array(ids)).uniform("a", 3).tolist() == alone
    # the first of three is the only one of one
    assert Draws(seed, 4, np.array(ids)).uniform("a")[:, 0].tolist() == [row[0] for row in alone]


@given(st.integers(1, 2**53), int64s)
def test_integers_stay_below(high: int, seed: int) -> None:
    values = Draws(seed, 0, np.arange(200)).integers("a", high)
    assert values.dtype == np.int64
    assert values.min() >= 0
    assert values.max() < high


def test_integers_are_uniform_for_every_bound() -> None:
    bounds = np.tile([1, 2, 7, 3], COUNT // 4)
    values = Draws(0, 0, np.arange(COUNT)).integers("a", bounds)
    for bound in (1, 2, 7, 3):
        counts = np.bincount(values[bounds == bound], minlength=bound)
        assert len(counts) == bound
        assert bound == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_permutations_are_uniform_and_differ_between_epochs_and_seeds() -> None:
    orders = np.array([permutation(seed, epoch, 5) for seed in range(40) for epoch in range(40)])
    assert (np.sort(orders, axis=1) == np.arange(5)).all()
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 120
    assert stats.chisquare(counts).pvalue > 1e-3
    assert permutation(0, 0, 0).tolist() == []


@given(st.lists(st.text(max_size=8), unique=True, max_size=30), st.text(max_size=8), int64s)
def test_adding_a_text_moves_no_others(texts: list[str], added: str, seed: int) -> None:
    before = [texts[place] for place in text_order(texts, seed, "s")]
    more = [*texts, added]
    after = [more[place] for place in text_order(more, seed, "s")]
    assert [text for text in after if text != added] == [text for text in before if text != added]
    assert sorted(after) == sorted(more)


def test_text_orders_differ_between_seeds_and_stages() -> None:
    texts = [f"yes/{number}.wav" for number in range(50)]
    orders = {tuple(text_order(texts, seed, stage)) for seed in range(3) for stage in ("unknown", "random split")}
    assert len(orders) == 6
