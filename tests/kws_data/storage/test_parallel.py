from __future__ import annotations

from collections.abc import Sequence

import pytest

from kws_data.storage import parallel


class Doubled:
    def __call__(self, items: Sequence[int]) -> list[int]:
        return [2 * item for item in items]


@pytest.mark.parametrize("small_job", [0, 1000])
def test_chunks_come_in_order_from_workers_as_from_this_process(
    small_job: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "SMALL_JOB", small_job)
    monkeypatch.setattr(parallel, "available_cpus", lambda: 2)
    results = list(parallel.map_chunks(Doubled(), list(range(20)), "doubling", chunk=3))
    assert [len(result) for result in results] == [3, 3, 3, 3, 3, 3, 2]
    assert [value for result in results for value in result] == list(range(0, 40, 2))
