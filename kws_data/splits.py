"""Split policies: which clips are for training, validation and testing.

A policy computes the `split` column of a catalog. `conf/split/` has one YAML file for each policy.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from kws_data.catalog import BACKGROUND_NOISE
from kws_data.checks import check_number, check_path
from kws_data.draws import text_order
from kws_data.errors import KwsError, shortened
from kws_data.split_lists import read_list

log = logging.getLogger(__name__)

TRAINING, VALIDATION, TESTING = "training", "validation", "testing"
SPLITS = (TRAINING, VALIDATION, TESTING)

# input_data.py of TensorFlow's speech_commands example: "~134M", the number of different hash values
MAX_CLIPS_PER_CLASS = 2**27 - 1


class SplitPolicy(Protocol):
    """What `conf/split/` instantiates.

    Attributes:
        whole_speakers: whether all clips of a speaker are in one split, including those in unknown folders.
    """

    validation_percentage: float
    testing_percentage: float
    whole_speakers: bool

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """One of SPLITS for each row of `catalog`.

        `root` is the data set's folder; None for clips from elsewhere, which are not in the data set's own lists.
        """


def hash_split(speaker: str, validation_percentage: float, testing_percentage: float) -> str:
    """The release's own rule (`which_set` in input_data.py), on the part of the file name before `_nohash_`."""
    value = int(hashlib.sha1(speaker.encode()).hexdigest(), 16)
    percentage = (value % (MAX_CLIPS_PER_CLASS + 1)) * (100.0 / MAX_CLIPS_PER_CLASS)
    if percentage < validation_percentage:
        return VALIDATION
    if percentage < validation_percentage + testing_percentage:
        return TESTING
    return TRAINING


class _Percentages:
    """The shares of validation and testing; the rest is for training."""

    def __init__(self, validation_percentage: float = 10.0, testing_percentage: float = 10.0) -> None:
        self.validation_percentage = check_number("validation_percentage", validation_percentage, 0, 99.9)
        self.testing_percentage = check_number("testing_percentage", testing_percentage, 0, 99.9)
        if validation_percentage + testing_percentage >= 100:
            raise ValueError(
                "validation_percentage and testing_percentage must leave clips for training, got"
                f" {validation_percentage} and {testing_percentage}"
            )


class HashSplit(_Percentages):
    """By the SHA-1 of the speaker: adding files moves no other, and all clips of a speaker are in one split."""

    whole_speakers = True

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """One of SPLITS for each row."""
        del root
        table = {
            speaker: hash_split(speaker, self.validation_percentage, self.testing_percentage)
            for speaker in catalog["speaker"].unique()
        }
        return catalog["speaker"].map(table)


class ListSplit(_Percentages):
    """By `validation_list.txt` and `testing_list.txt` in the data set's folder; all other clips are for training.

    For clips from other folders (`task.unknown_dirs`), the hash rule at the given percentages is used.

    Args:
        validation_list: the file's name, below the data set's folder.
        testing_list: likewise.
        validation_percentage: for clips from other folders.
        testing_percentage: likewise.
        unmatched_percentage: how many of a list's lines may name no clip. Clips that were meant would be trained on.
    """

    whole_speakers = False

    def __init__(
        self,
        validation_list: str = "validation_list.txt",
        testing_list: str = "testing_list.txt",
        validation_percentage: float = 10.0,
        testing_percentage: float = 10.0,
        unmatched_percentage: float = 1.0,
    ) -> None:
        super().__init__(validation_percentage, testing_percentage)
        self.validation_list = check_path("validation_list", validation_list)
        self.testing_list = check_path("testing_list", testing_list)
        self.unmatched_percentage = check_number("unmatched_percentage", unmatched_percentage, 0, 100)
        self.fallback = HashSplit(validation_percentage, testing_percentage)

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """One of SPLITS for each row.

        Raises:
            KwsError: a list is missing from `root`, or too many of its lines name no clip.
        """
        if root is None:
            return self.fallback.assign(catalog, root)
        paths = catalog["path"].tolist()
        validation, testing = (self._listed(root, file, paths) for file in (self.validation_list, self.testing_list))
        if both := sorted(validation & testing):
            log.warning(
                "%d of the clips are in both lists, and are used for testing: %s", len(both), shortened(both, 3)
            )
        split = pd.Series(TRAINING, index=catalog.index)
        for name, listed in ((VALIDATION, validation), (TESTING, testing)):
            split[catalog["path"].isin(listed)] = name
        return split

    def _listed(self, root: Path, file: Path, paths: Sequence[str]) -> set[str]:
        """The clips that a list names; what it names besides is counted and named in one line."""
        if not (root / file).is_file():
            raise KwsError(f"split=lists: '{root}' holds no {file}; write one or choose split=hash")
        try:
            listed = read_list(root / file, paths)
        except OSError as error:
            raise KwsError(f"split=lists: '{root / file}' cannot be read: {error.strerror}") from error
        problems = []
        for lines, problem in ((listed.unmatched, "name no file"), (listed.ambiguous, "could name several files")):
            if lines:
                problems.append(f"{len(lines)} of {listed.lines} lines {problem}: {shortened(lines, 3)}")
        if not problems:
            return listed.paths
        message = f"'{root / file}': {'; '.join(problems)}"
        if len(listed.unmatched) + len(listed.ambiguous) > listed.lines * self.unmatched_percentage / 100:
            raise KwsError(
                f"split=lists: {message}; clips that they mean would be used for training: correct the list, or, if the"
                " folder holds only a part of the data set, give split.unmatched_percentage=100"
            )
        log.warning("%s", message)
        return listed.paths


class _Seeded(_Percentages):
    """Shares that are drawn with a seed."""

    def __init__(self, data_seed: int, validation_percentage: float = 10.0, testing_percentage: float = 10.0) -> None:
        super().__init__(validation_percentage, testing_percentage)
        self.data_seed = data_seed


class SpeakerSplit(_Seeded):
    """Whole speakers, drawn with a seed, until each split has its share of the clips."""

    whole_speakers = True

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """One of SPLITS for each row."""
        del root
        clips = _counted(catalog).groupby(catalog["speaker"]).sum().sort_index()
        order = text_order(clips.index.tolist(), self.data_seed, "speaker split")
        # A speaker is assigned by the middle of their clips, so that shares are met as closely as speakers allow.
        table = dict(zip(clips.index[order], _cut(_middles(clips.to_numpy()[order]), self), strict=True))
        return catalog["speaker"].map(table)


class RandomSplit(_Seeded):
    """Single clips, drawn with a seed: the tutorials' 80/10/10 and 70/30. A speaker may be in several splits."""

    whole_speakers = False

    def assign(self, catalog: pd.DataFrame, root: Path | None) -> pd.Series:
        """One of SPLITS for each row."""
        del root
        order = text_order(catalog["path"].tolist(), self.data_seed, "random split")
        middles = np.empty(len(order))
        middles[order] = _middles(_counted(catalog).to_numpy()[order])
        return pd.Series(_cut(middles, self), index=catalog.index)


def time_split(num_windows: int, policy: SplitPolicy) -> list[str]:
    """Splits of the consecutive windows of a recording: training first, then validation, then testing."""
    return _cut(100.0 - _middles(np.ones(num_windows)), policy).tolist()


def _counted(catalog: pd.DataFrame) -> pd.Series:
    """1 for each clip, 0 for files set aside and background noise, which don't count in the shares."""
    return (catalog["error"].eq("") & catalog["word"].ne(BACKGROUND_NOISE)).astype("int64")


def _middles(sizes: np.ndarray) -> np.ndarray:
    """The middle of each item of these sizes, in percent of the sum of all sizes."""
    return (np.cumsum(sizes) - sizes / 2) * 100.0 / max(1, sizes.sum())


def _cut(percent: np.ndarray, policy: SplitPolicy) -> np.ndarray:
    """From percent (0 to 100) to splits, in the order testing, validation, training."""
    validation, testing = policy.validation_percentage, policy.testing_percentage
    return np.where(percent < testing, TESTING, np.where(percent < testing + validation, VALIDATION, TRAINING))
