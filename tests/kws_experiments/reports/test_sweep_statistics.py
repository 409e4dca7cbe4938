"""What a sweep's runs say together, against plain calculations and against chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_experiments.reports import sweep_statistics as statistics


def runs_table(**accuracies: list[float]) -> pd.DataFrame:
    """Runs `model-features` with one accuracy a seed."""
    rows = []
    for setting, values in accuracies.items():
        model, features = setting.split("_")
        rows += [
            {"setting": setting, "model": model, "features": features, "seed": seed, "accuracy": value,
             "validation_accuracy": value + 0.01}
            for seed, value in enumerate(values)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def test_settings_are_summed_up_over_their_seeds_the_best_on_validation_first() -> None:
    table = statistics.settings_table(runs_table(a_x=[0.8, 0.9], b_x=[0.95, 0.85], c_x=[0.5]), ["model", "features"])

    assert table.index.tolist() == ["b_x", "a_x", "c_x"]
    assert table.loc["a_x", ["model", "features", "runs", "min", "max"]].tolist() == ["a", "x", 2, 0.8, 0.9]
    assert table.loc["a_x", "mean"] == pytest.approx(0.85)
    assert table.loc["a_x", "std"] == pytest.approx(np.std([0.8, 0.9], ddof=1))
    assert np.isnan(table.loc["c_x", "std"])


def predictions(correct: np.ndarray, speakers: np.ndarray) -> pd.DataFrame:
    names = [f"yes/{speaker}_{place}.wav" for place, speaker in enumerate(speakers)]
    predicted = np.where(correct, "yes", "no")
    return pd.DataFrame(
        {"clip": names, "offset": 0, "speaker": speakers.astype(str), "label": "yes", "predicted": predicted}
    )


def rows_of(settings: dict[str, list[np.ndarray]], speakers: np.ndarray) -> statistics.TestRows:
    tables = {f"{name}{n}": predictions(run, speakers) for name, runs in settings.items() for n, run in enumerate(runs)}
    rows = statistics.same_test_rows(tables, {run: run[:-1] for run in tables})
    assert rows is not None
    return rows


def test_a_clear_difference_is_found_and_a_tiny_one_is_not() -> None:
    generator = np.random.default_rng(0)
    speakers = np.repeat(np.arange(50), 10)
    good, same = generator.random(500) < 0.95, generator.random(500)
    rows = rows_of(
        {"good": [good], "poor": [same < 0.6], "alike": [np.where(np.arange(500) == 7, ~good, good)]}, speakers
    )

    table = statistics.compare(rows, [("poor", "good"), ("good", "alike")])

    clear, tiny = table.iloc[0], table.iloc[1]
    assert (clear["better"], clear["worse"], clear["distinguishable"]) == ("good", "poor", True)
    assert clear["low"] < clear["difference"] < clear["high"]
    assert clear["mcnemar_p"] < 1e-6
    assert not tiny["distinguishable"]
    assert tiny["difference"] == pytest.approx(1 / 500)
    assert tiny["mcnemar_p"] == 1.0


def test_seeds_that_scatter_widen_the_interval() -> None:
    """Two settings of the same mean over clips: one interval knows the clips only, the other the seeds as well."""
    speakers = np.arange(400)
    place = np.arange(400) / 400

    def run(accuracy: float) -> np.ndarray:
        return place < accuracy

    steady = rows_of({"a": [run(0.9)] * 3, "b": [run(0.85)] * 3}, speakers)
    scattered = rows_of({"a": [run(0.8), run(0.9), run(1.0)], "b": [run(0.75), run(0.85), run(0.95)]}, speakers)

    (known,), (wide,) = (statistics.compare(rows, [("a", "b")]).to_dict("records") for rows in (steady, scattered))

    assert known["difference"] == pytest.approx(wide["difference"]) == pytest.approx(0.05)
    assert known["distinguishable"]
    assert not wide["distinguishable"]
    assert np.isnan(wide["mcnemar_p"])


def test_alike_settings_are_told_apart_no_oftener_than_the_level_says() -> None:
    generator = np.random.default_rng(1)
    speakers = np.repeat(np.arange(40), 5)
    found = 0
    for _ in range(100):
        easy = generator.random(40)[speakers]  # a speaker's clips are easy or hard together
        one, other = (generator.random(200) < 0.5 + 0.5 * easy for _ in range(2))
        found += int(
            statistics.compare(rows_of({"a": [one], "b": [other]}, speakers), [("a", "b")])["distinguishable"].sum()
        )

    assert found <= 12  # of 100; 5 expected, 13 or more would come by chance once in 700 times


def test_runs_tested_on_other_clips_are_not_compared() -> None:
    speakers = np.arange(10)
    one = predictions(np.ones(10, bool), speakers)
    other = one.assign(clip=one["clip"].str.replace("yes", "no"))

    assert statistics.same_test_rows({"a": one, "b": other}, {"a": "a", "b": "b"}) is None
    assert statistics.same_test_rows({"a": one, "b": one.iloc[::-1]}, {"a": "a", "b": "b"}) is not None


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 10))
def test_mcnemar_is_the_binomial_test_of_the_clips_on_which_two_differ(
    only_one: int, only_other: int, both: int
) -> None:
    one = np.array([True] * only_one + [False] * only_other + [True] * both)
    other = np.array([False] * only_one + [True] * only_other + [True] * both)

    p = statistics.mcnemar(one, other)

    assert p == statistics.mcnemar(other, one)
    assert 0 < p <= 1
    assert (p == 1.0) or only_one != only_other


def test_an_effect_is_what_a_value_changes_all_else_equal() -> None:
    # features=x is the easier; `b` was tried with it alone more often, which must not count for `b`
    table = runs_table(a_x=[0.9], b_x=[0.92], a_y=[0.7], b_y=[0.72], c_x=[0.99])

    effects = statistics.key_effects(table[table["model"] != "c"], ["model", "features", "seed"]).set_index(
        ["key", "value"]
    )

    assert effects.loc[("model", "b"), "effect"] == pytest.approx(0.01)
    assert effects.loc[("features", "y"), "effect"] == pytest.approx(-0.1)
    assert effects.loc[("model", "b"), "blocks"] == 2
    assert "seed" not in effects.index.get_level_values("key")
    # with c, which has no run with features=y, that block doesn't count
    assert (
        statistics.key_effects(table, ["model", "features"]).set_index(["key", "value"]).loc[("model", "b"), "blocks"]
        == 1
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_pareto_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    costs, accuracies = zip(*points, strict=True)

    front = statistics.pareto_front(costs, accuracies)

    def beaten(point: tuple[int, int]) -> bool:
        return any(c <= point[0] and a >= point[1] and (c, a) != point for c, a in points)

    assert front.tolist() == [not beaten(point) for point in points]
    assert front.any()
