"""Data whose figures mean less than they seem to are named; good data are not."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pandas as pd
import pytest

from kws_data.splits import SPLITS, HashSplit
from kws_experiments.config.compose import compose
from kws_experiments.experiment.cautions import cautions
from kws_experiments.experiment.data import prepare_data
from kws_experiments.experiment.experiment import Experiment

EIGHTY_TEN_TEN = HashSplit()
GOOD = {"_silence_": (8, 1, 1), "_unknown_": (8, 1, 1), "yes": (80, 10, 10), "no": (40, 5, 5)}
WITHOUT_TESTING = {label: (training, validation, 0) for label, (training, validation, _) in GOOD.items()}


def lines(counts: dict[str, tuple[int, int, int]], policy: HashSplit = EIGHTY_TEN_TEN) -> list[str]:
    """The cautions about data with these numbers of (training, validation, testing) clips."""
    labels = list(counts)
    examples = chain.from_iterable(
        [(label, split)] * number
        for label, name in enumerate(labels)
        for split, number in zip(SPLITS, counts[name], strict=True)
    )
    return cautions(pd.DataFrame(examples, columns=["label", "split"]), labels, policy)


def test_good_data_need_no_caution() -> None:
    assert lines(GOOD) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"_unknown_": (0, 0, 0)}, "no clip of _unknown_ is for training, validation, testing: how often other"),
        ({"_unknown_": (8, 0, 1)}, "no clip of _unknown_ is for validation: how often other words are taken"),
        ({"_silence_": (0, 1, 1)}, "no clip of _silence_ is for training: how often silence is taken"),
        ({"yes": (80, 0, 10)}, "no validation clip of yes: the validation figures leave it out"),
        ({"yes": (80, 10, 0), "no": (40, 5, 0)}, "no testing clip of yes, no: the testing figures leave it out"),
        ({"yes": (0, 10, 10)}, "no training clip of yes: the model can't learn it"),
        ({"yes": (9, 10, 2)}, "very few clips: yes (9 training), yes (2 testing); what is measured on them may be"),
        ({"yes": (10, 900, 10)}, "93% of the words' clips are for validation: the model has little to learn from"),
        ({"yes": (10, 3, 900)}, "93% of the words' clips are for testing: the model has little to learn from"),
        ({"yes": (9000, 10, 10)}, "99% of the words' clips are for training: the figures rest on very few clips"),
        (WITHOUT_TESTING, "no clip is for testing: the result is that of validation"),
    ],
)
def test_what_figures_do_not_mean_is_one_line(change: dict[str, tuple[int, int, int]], expected: str) -> None:
    (line,) = lines(GOOD | change)
    assert line.startswith(expected)
    assert "\n" not in line


def test_a_single_class_is_named() -> None:
    assert lines({"yes": (80, 10, 10)}) == [
        "'yes' is the only class: any model gets every clip right, so accuracy means nothing"
    ]


def test_what_was_asked_for_is_no_defect() -> None:
    assert lines(WITHOUT_TESTING, HashSplit(10, 0)) == []
    assert lines({"yes": (50, 3, 960), "no": (50, 3, 960)}, HashSplit(3, 95)) == []


def messages(caplog: pytest.LogCaptureFixture, *overrides: str) -> list[str]:
    caplog.clear()
    prepare_data(Experiment(compose(["dataset=folder", *overrides])))
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_the_real_clips_need_caution_only_with_the_releases_own_rule(
    real_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"dataset.path={real_data}"
    assert messages(caplog, path, "split=lists") == []
    assert messages(caplog, path, "split=speaker") == []
    assert any("98% of the words' clips are for testing" in line for line in messages(caplog, path, "split=hash"))
