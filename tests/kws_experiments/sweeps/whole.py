"""What tests of whole sweeps share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.kws_experiments.test_train import SMALL


def data(place: Path) -> list[str]:
    return ["dataset=folder", f"dataset.path={place / 'clips'}", *SMALL, "task.words=[yes,no]"]


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def histories(folder: Path) -> list[Path]:
    return list(folder.glob("runs/train/*/history.csv"))
