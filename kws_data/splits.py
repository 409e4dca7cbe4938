"""Split policies: which clips are for training, validation and testing.

A policy is called with a catalog and gives its `split` column. `conf/split/` holds one YAML a policy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from kws_data.catalog import BACKGROUND_NOISE
from kws_data.checks import check_number
from kws_data.draws import text_order
from kws_data.errors import KwsError

TRAINING, VALIDATION, TESTING = "training", "validation", "testing"
SPLITS = (TRAINING, VALIDATION, TESTING)

# input_data.py of TensorFlow's speech_commands example: "~134M", the number of hash values that it tells apart
MAX_CLIPS_PER_CLASS = 2**27 - 1


class SplitPolicy(Protocol):
    """What `conf/split/` instantiates.

    Attributes:
        whole_speakers: whether all of a speaker's clips stand in one split, unknown folders' clips among them.
    """

    validation_percentage: float
    testing_percentage: float
    whole_speakers: bool

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """One of SPLITS for each row of `catalog`.

        `root` is the data set's folder; None for clips from elsewhere, which the data set's own lists can't know.
        """


def hash_split(speaker: str, validation_percentage: float, testing_percentage: float) -> str:
    """The release's own rule (`which_set` in input_data.py), on what stands before `_nohash_` in the file name."""
    value = int(hashlib.sha1(speaker.encode()).hexdigest(), 16)
    percentage = (value % (MAX_CLIPS_PER_CLASS + 1)) * (100.0 / MAX_CLIPS_PER_CLASS)
    if percentage < validation_percentage:
        return VALIDATION
    if percentage < validation_percentage + testing_percentage:
        return TESTING
    return TRAINING


class HashSplit:
    """By the SHA-1 of the speaker: stable however many files are added, and never one speaker in two splits."""

    whole_speakers = True

    def __init__(self, validation_percentage: float = 10.0, testing_percentage: float = 10.0) -> None:
        _check_percentages(validation_percentage, testing_percentage)
        self.validation_percentage = validation_percentage
        self.testing_percentage = testing_percentage

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """One of SPLITS for each row."""
        del root
        table = {
            speaker: hash_split(speaker, self.validation_percentage, self.testing_percentage)
            for speaker in catalog["speaker"].unique()
        }
        return catalog["speaker"].map(table)


class ListSplit:
    """By `validation_list.txt` and `testing_list.txt` in the data set's folder; what they don't name is for training.

    Folders that the lists can't know (`task.unknown_dirs`) fall back to the hash rule at the given percentages.
    """

    whole_speakers = False

    def __init__(
        self,
        validation_list: str = "validation_list.txt",
        testing_list: str = "testing_list.txt",
        validation_percentage: float = 10.0,
        testing_percentage: float = 10.0,
    ) -> None:
        self.validation_list = validation_list
        self.testing_list = testing_list
        self.fallback = HashSplit(validation_percentage, testing_percentage)
        self.validation_percentage = validation_percentage
        self.testing_percentage = testing_percentage

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """One of SPLITS for each row.

        Raises:
            KwsError: a list is missing from `root`.
        """
        if root is None:
            return self.fallback.assign(catalog, root)
        split = pd.Series(TRAINING, index=catalog.index)
        for name, file in ((VALIDATION, self.validation_list), (TESTING, self.testing_list)):
            if not (root / file).is_file():
                raise KwsError(f"split=lists: '{root}' holds no {file}; write one or choose split=hash")
            lines = (root / file).read_text(encoding="utf-8-sig", errors="replace").splitlines()
            split[catalog["path"].isin({line.strip() for line in lines})] = name
        return split


class SpeakerSplit:
    """Whole speakers, drawn with a seed, until each split has its share of the clips."""

    whole_speakers = True

    def __init__(self, data_seed: int, validation_percentage: float = 10.0, testing_percentage: float = 10.0) -> None:
        _check_percentages(validation_percentage, testing_percentage)
        self.data_seed = data_seed
        self.validation_percentage = validation_percentage
        self.testing_percentage = testing_percentage

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """One of SPLITS for each row."""
        del root
        clips = _counted(catalog).groupby(catalog["speaker"]).sum().sort_index()
        order = text_order(clips.index.tolist(), self.data_seed, "speaker split")
        # A speaker belongs where the middle of their clips falls, so that shares are met as closely as speakers allow.
        table = dict(zip(clips.index[order], _cut(_places(clips.to_numpy()[order]), self), strict=True))
        return catalog["speaker"].map(table)


class RandomSplit:
    """Single clips, drawn with a seed: the tutorials' 80/10/10 and 70/30. Speakers stand in several splits."""

    whole_speakers = False

    def __init__(self, data_seed: int, validation_percentage: float = 10.0, testing_percentage: float = 10.0) -> None:
        _check_percentages(validation_percentage, testing_percentage)
        self.data_seed = data_seed
        self.validation_percentage = validation_percentage
        self.testing_percentage = testing_percentage

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """One of SPLITS for each row."""
        del root
        order = text_order(catalog["path"].tolist(), self.data_seed, "random split")
        places = np.empty(len(order))
        places[order] = _places(_counted(catalog).to_numpy()[order])
        return pd.Series(_cut(places, self), index=catalog.index)


def time_split(num_windows: int, policy: SplitPolicy) -> list[str]:
    """Splits of a recording's consecutive windows: training first, then validation, then testing."""
    return _cut(100.0 - _places(np.ones(num_windows)), policy).tolist()


def _counted(catalog: pd.DataFrame) -> pd.Series:
    """1 for each clip, 0 for what is none: files set aside and background noise take no part in the shares."""
    return (catalog["error"].eq("") & catalog["word"].ne(BACKGROUND_NOISE)).astype("int64")


def _places(sizes: np.ndarray) -> np.ndarray:
    """Where the middle of each of these falls, in percent of them all together."""
    return (np.cumsum(sizes) - sizes / 2) * 100.0 / max(1, sizes.sum())


def _cut(percent: np.ndarray, policy: SplitPolicy) -> np.ndarray:
    """Places from 0 to 100 to splits, in the order of the release's rule: testing is next to validation."""
    validation, testing = policy.validation_percentage, policy.testing_percentage
    return np.where(percent < testing, TESTING, np.where(percent < testing + validation, VALIDATION, TRAINING))


def _check_percentages(validation_percentage: float, testing_percentage: float) -> None:
    for name, value in (("validation_percentage", validation_percentage), ("testing_percentage", testing_percentage)):
        check_number(name, value, 0, 99.9)
    if validation_percentage + testing_percentage >= 100:
        raise ValueError(
            f"validation_percentage and testing_percentage must leave clips for training, got {validation_percentage}"
            f" and {testing_percentage}"
        )
