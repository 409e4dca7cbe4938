"""Folders of more clips beside the data set, each clip in the folder of its word: `folder/<word>/<clip>`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kws_data.catalog import scan_below
from kws_data.errors import KwsError
from kws_data.folders import find_folder, nfc
from kws_data.layout import with_splits
from kws_data.sources.datasets import Dataset, Folder
from kws_data.splits import TRAINING, HashSplit, ListSplit, SplitPolicy


@dataclass(frozen=True)
class WordFolder:
    """Clips of the task's words, which join those of the data set, and of other words, which join the unknown class.

    Attributes:
        dataset: where the folder is.
        few: whether the network is not trained on these clips: only the outputs of their words are fitted to them, at
            the end (see `training.new_words`).
        training_alone: whether only its clips for training are used.
    """

    dataset: Dataset
    few: bool = False
    training_alone: bool = False

    @property
    def name(self) -> str | None:
        """Its name in the column `folder` of clips; None for a data set that may have to be made first."""
        return nfc(self.dataset.path.resolve().name) if isinstance(self.dataset, Folder) else None

    def scan(self, speaker_pattern: str | None, unmatched_percentage: float) -> tuple[Path, pd.DataFrame]:
        """The folder, and its catalog with splits: those of its folders or lists, else all for training.

        Args:
            speaker_pattern: see `catalog.scan`.
            unmatched_percentage: see ListSplit.

        Raises:
            KwsError: there is no such folder, it can't be made, or one of its two lists is missing.
        """
        root = find_folder(self.dataset.locate(), "task.word_dirs")
        catalog = scan_below(root, "task.word_dirs", speaker_pattern=speaker_pattern)
        catalog = catalog[catalog["path"].str.contains("/")].reset_index(drop=True)
        catalog["word"] = catalog["path"].str.split("/", n=1).str[0].map(nfc)
        policy: SplitPolicy = HashSplit(validation_percentage=0, testing_percentage=0)
        lists = ListSplit(unmatched_percentage=unmatched_percentage)
        there = [(root / file).is_file() for file in (lists.validation_list, lists.testing_list)]
        if any(there):
            if not all(there):
                raise KwsError(
                    f"task.word_dirs: '{root}' has only one of {lists.validation_list} and {lists.testing_list}: add"
                    " the other (it may be empty), or remove the one"
                )
            policy = lists
        catalog = with_splits(catalog, root, policy, self.dataset.layout)
        if self.training_alone:
            catalog = catalog[catalog["split"] == TRAINING].reset_index(drop=True)
        return root, catalog
