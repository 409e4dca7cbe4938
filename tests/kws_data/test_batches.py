from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_data.batches import BatchPlan


def epoch(plan: BatchPlan, number: int) -> list[np.ndarray]:
    steps = plan.steps_per_epoch
    return [plan.batch_ids(step) for step in range(number * steps, (number + 1) * steps)]


ids_of = st.lists(st.integers(0, 10**6), min_size=1, max_size=80, unique=True)


@given(ids_of, st.integers(1, 30), st.none() | st.integers(0, 99), st.booleans())
def test_every_epoch_holds_each_example_once(ids: list[int], batch_size: int, seed: int | None, bucketed: bool) -> None:
    lengths = np.array(ids) % 7 if bucketed else None
    plan = BatchPlan(np.array(ids), batch_size, seed=seed, lengths=lengths)
    for number in (0, 3):
        batches = epoch(plan, number)
        assert sorted(np.concatenate(batches)) == sorted(ids)
        sizes = sorted(len(batch) for batch in batches)
        assert all(size == batch_size for size in sizes[1:])
        assert sizes[0] == (len(ids) % batch_size or batch_size)
        assert {plan.epoch_of(step) for step in range(number * len(batches), (number + 1) * len(batches))} == {number}


@given(ids_of, st.integers(1, 30), st.booleans(), st.randoms())
def test_any_step_can_be_computed_alone_and_in_any_order(
    ids: list[int], batch_size: int, bucketed: bool, random: object
) -> None:
    lengths = np.array(ids) % 7 if bucketed else None
    plan = BatchPlan(np.array(ids), batch_size, seed=3, lengths=lengths)
    steps = list(range(4 * plan.steps_per_epoch))
    in_order = [plan.batch_ids(step).tolist() for step in steps]
    random.shuffle(steps)  # type: ignore[attr-defined]
    for step in steps:
        assert plan.batch_ids(step).tolist() == in_order[step]
    alone = BatchPlan(np.array(ids), batch_size, seed=3, lengths=lengths).batch_ids(steps[0])
    assert alone.tolist() == in_order[steps[0]]


def test_epochs_and_seeds_shuffle_differently() -> None:
    ids = np.arange(1000)
    orders = [
        np.concatenate(epoch(BatchPlan(ids, 100, seed=seed), number)).tolist() for seed in (0, 1) for number in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert ids.tolist() not in orders
    for order in orders:
        assert abs(np.corrcoef(order, ids)[0, 1]) < 0.15


def test_without_a_seed_the_order_stays() -> None:
    plan = BatchPlan(np.array([5, 3, 9, 1]), 3, seed=None)
    assert [batch.tolist() for batch in epoch(plan, 0) + epoch(plan, 1)] == [[5, 3, 9], [1]] * 2
    by_length = BatchPlan(np.array([5, 3, 9, 1]), 3, seed=None, lengths=np.array([40, 10, 30, 20]))
    assert [batch.tolist() for batch in epoch(by_length, 2)] == [[3, 1, 9], [5]]


def test_batches_of_clips_of_similar_length_are_shuffled_too() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(3000, 16000, 10_000)
    plan = BatchPlan(np.arange(10_000), 50, seed=0, lengths=lengths)
    batches = epoch(plan, 0)
    spread = [np.ptp(lengths[batch]) for batch in batches]
    assert np.mean(spread) < 0.05 * 13_000
    longest = np.array([lengths[batch].max() for batch in batches])
    # neither from short to long within an epoch nor the same batches in every epoch
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3
    assert 0.35 < np.mean(np.diff(longest) > 0) < 0.65
    first = {tuple(sorted(batch)) for batch in batches}
    assert not first & {tuple(sorted(batch)) for batch in epoch(plan, 1)}


def test_an_empty_split_has_no_steps() -> None:
    assert BatchPlan(np.zeros(0, np.int64), 10, seed=0).steps_per_epoch == 0


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_wrong_batch_size_is_refused_by_name(batch_size: int) -> None:
    with pytest.raises(ValueError, match=r"^batch_size"):
        BatchPlan(np.arange(3), batch_size, seed=0)


labels_of = st.lists(st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 5]), min_size=1, max_size=80)


@given(labels_of, st.integers(1, 30), st.booleans())
def test_balanced_epochs_hold_every_label_equally_often(labels: list[int], batch_size: int, bucketed: bool) -> None:
    ids, of = np.arange(100, 100 + len(labels)), dict(enumerate(labels, 100))
    lengths = ids % 7 if bucketed else None
    plan = BatchPlan(ids, batch_size, seed=2, lengths=lengths, labels=np.array(labels))
    totals = dict.fromkeys(of, 0)
    for number in range(len(set(labels))):
        batches = epoch(plan, number)
        assert [len(batch) for batch in batches].count(batch_size) >= len(batches) - 1
        drawn = np.concatenate(batches)
        assert len(drawn) == len(ids)
        counts = [sum(of[i] == label for i in drawn) for label in set(labels)]
        assert max(counts) - min(counts) <= 1
        for i in drawn:
            totals[i] += 1
        # within a label, too, no example comes twice before all have come
        for label in set(labels):
            times = [list(drawn).count(i) for i in ids if of[i] == label]
            assert max(times) - min(times) <= 1
    per_label = {label: sum(totals[i] for i in ids if of[i] == label) for label in set(labels)}
    assert len(set(per_label.values())) == 1  # after as many epochs as there are labels


def test_balanced_epochs_are_shuffled_and_choose_anew() -> None:
    labels = np.repeat([0, 1], [900, 100])
    plan = BatchPlan(np.arange(1000), 100, seed=0, labels=labels)
    epochs = [np.concatenate(epoch(plan, number)) for number in (0, 1)]
    for drawn in epochs:
        assert abs(np.corrcoef(labels[drawn], np.arange(1000))[0, 1]) < 0.15
    chosen = [set(drawn[labels[drawn] == 0]) for drawn in epochs]
    assert 0.45 < len(chosen[0] & chosen[1]) / 500 < 0.66  # 500 of 900 at random: 5 of 9
    again = BatchPlan(np.arange(1000), 100, seed=0, labels=labels)
    assert [batch.tolist() for batch in epoch(again, 1)] == [batch.tolist() for batch in epoch(plan, 1)]


@pytest.mark.parametrize("bucketed", [False, True])
def test_an_example_that_comes_again_draws_anew(bucketed: bool) -> None:
    ids, labels = np.arange(40), np.repeat([0, 1], [35, 5])
    plan = BatchPlan(ids, 7, seed=0, labels=labels, lengths=ids % 3 if bucketed else None)
    steps = range(3 * plan.steps_per_epoch, 4 * plan.steps_per_epoch)
    drawn = np.concatenate([plan.draw_ids(step) for step in steps])
    held = np.concatenate([plan.batch_ids(step) for step in steps])
    assert len(set(held)) == 25
    assert len(set(drawn)) == 40
    np.testing.assert_array_equal(np.isin(drawn, ids).sum(), 25)  # the first time draws as without balance
    np.testing.assert_array_equal(drawn % 2**40, held)
