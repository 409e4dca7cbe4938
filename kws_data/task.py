"""A task: the words that a model detects, and the classes of silence and of unknown words.

Labels are `_silence_` (0), `_unknown_` (1) and the wanted words in the order given, as in the original example; either
of the first two can be left out.
"""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.checks import check_choice, check_flag, check_list, check_number, check_path, check_range, check_whole
from kws_data.corpus import Corpus, UnknownFolder
from kws_data.draws import text_order
from kws_data.errors import KwsError
from kws_data.folders import nfc
from kws_data.sources.datasets import Dataset, Folder
from kws_data.sources.synthetic_unknown import SyntheticUnknown
from kws_data.splits import SPLITS, TRAINING
from kws_data.text import printable
from kws_data.word_folders import WordFolder

log = logging.getLogger(__name__)

_SHARE_ROUNDING = 1e-9  # 0.6 + 0.3 + 0.1 is a little less than 1
_COLUMNS = ["split", "label", "source", "path", "word", "speaker", "folder", "offset", "length", "start", "content"]
NO_SOURCE = -1  # `source` of a silence row, which has no file


@dataclass(frozen=True)
class WordTargets:
    """What each example is where training tells all words apart.

    Attributes:
        of_examples: [examples] int32; the label, but for training clips of other words: each such word has a target of
            its own, after the labels, in alphabetical order.
        labels: [targets] int32, the label that each target belongs to.
    """

    of_examples: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, examples: pd.DataFrame, unknown: int | None) -> WordTargets | None:
        """Those of a task's examples; `unknown` is the label of the unknown class. None: there are no other words."""
        labels = examples["label"].to_numpy(np.int32)
        other = (labels == unknown) & (examples["split"] == TRAINING) & (examples["word"] != UNKNOWN).to_numpy()
        words = sorted(set(examples["word"][other]))
        if not words:
            return None
        first = int(labels.max()) + 1
        numbers = examples["word"].map({word: first + number for number, word in enumerate(words)})
        of_examples = np.where(other, numbers.fillna(0), labels).astype(np.int32)
        return cls(of_examples, np.append(np.arange(first), np.full(len(words), unknown)).astype(np.int32))


class Task:
    """What `conf/task/` chooses.

    Args:
        words: the wanted words; null takes every word of the data set.
        silence: whether there is a silence class, made of `silence_percentage` rows of noise.
        unknown: whether there is an unknown class, drawn from all other words.
        silence_percentage: silence rows in each split, in percent of its wanted clips, rounded up.
        unknown_percentage: unknown clips in each split, in percent of its wanted clips, rounded up.
        training_unknown_percentage: unknown clips of the training split; null takes `unknown_percentage`.
        training_unknown_repeats: how often these clips, and those of a folder `_unknown_`, stand in the training split,
            each time another example: another augmentation. For a data set with few of them; clips of folders beside it
            stand once.
        silence_kind: 'noise' (as the original) or 'zeros', for validation and testing; training uses noise.
        silence_level_db: [low, high], the level of silence rows in training, uniform in dB of full scale (RMS); null
            takes the original's volume, uniform(0, 1) of the recordings' own level, so never louder than those.
        unknown_dirs: folders whose clips all join the unknown class: a path, or `{path: …, share: 0.3}` for a folder
            that makes up this part of the class.
        word_dirs: folders of more clips, each in the folder of its word: a path, `{path: …, few: true}`, or what
            `conf/dataset/` holds. Clips of other words than the task's join the unknown class of training.
        synthetic_unknown: synthetic speech for training, the arguments of SyntheticUnknown; null: none.
    """

    def __init__(
        self,
        words: Sequence[str] | None,
        *,
        silence: bool = True,
        unknown: bool = True,
        silence_percentage: float = 10.0,
        unknown_percentage: float = 10.0,
        training_unknown_percentage: float | None = None,
        training_unknown_repeats: int = 1,
        silence_kind: str = "noise",
        silence_level_db: tuple[float, float] | None = None,
        unknown_dirs: Sequence[Any] = (),
        word_dirs: Sequence[Any] = (),
        synthetic_unknown: Mapping[str, Any] | None = None,
    ) -> None:
        self.words = None if words is None else _checked_words(check_list("words", words))
        self.silence, self.unknown = check_flag("silence", silence), check_flag("unknown", unknown)
        self.silence_percentage = check_number("silence_percentage", silence_percentage, 0, 1000)
        self.unknown_percentage = check_number("unknown_percentage", unknown_percentage, 0, 1000)
        self.training_unknown_percentage = (
            self.unknown_percentage
            if training_unknown_percentage is None
            else check_number("training_unknown_percentage", training_unknown_percentage, 0, 1000)
        )
        self.training_unknown_repeats = check_whole("training_unknown_repeats", training_unknown_repeats, 1)
        self.silence_kind = check_choice("silence_kind", silence_kind, ("noise", "zeros"))
        self.silence_level_db = (
            None if silence_level_db is None else check_range("silence_level_db", silence_level_db, -120, 0)
        )
        self.unknown_folders = [_unknown_folder(entry) for entry in check_list("unknown_dirs", unknown_dirs)]
        if self.unknown_folders and not unknown:
            raise ValueError("unknown_dirs need the unknown class: set task.unknown=true")
        self.word_folders = [_word_folder(entry) for entry in check_list("word_dirs", word_dirs)]
        if synthetic_unknown is not None:
            self.word_folders += [WordFolder(made, training_alone=True) for made in self._synthetic(synthetic_unknown)]
        of_words = [folder.name for folder in self.word_folders if folder.name is not None]
        names = [*(folder.name for folder in self.unknown_folders), *of_words]
        if len(set(names)) < len(names):
            raise ValueError(f"unknown_dirs and word_dirs must have different names, got {names}")
        shares = sum(folder.share or 0 for folder in self.unknown_folders)
        if shares > 1 + _SHARE_ROUNDING:
            raise ValueError("unknown_dirs must have shares that sum to at most 1")
        if shares > 1 - _SHARE_ROUNDING and any(folder.share is None for folder in self.unknown_folders):
            raise ValueError("unknown_dirs have shares that sum to 1: nothing is left for the folders without a share")
        if shares and not (self.unknown_percentage and self.training_unknown_percentage):
            raise ValueError("unknown_dirs: shares are parts of a class that task.unknown_percentage=0 leaves empty")

    def _synthetic(self, arguments: Mapping[str, Any]) -> list[Dataset]:
        known = [field.name for field in fields(SyntheticUnknown)]
        if not isinstance(arguments, Mapping) or not arguments.keys() <= {*known}:
            raise ValueError(f"synthetic_unknown must be null or have keys of {', '.join(known)}, got {arguments!r}")
        if self.words is None or not self.unknown:
            raise ValueError("synthetic_unknown needs task.words, and the unknown class (task.unknown=true)")
        if odd := [word for word in self.words if " " in word]:
            raise ValueError(f"synthetic_unknown: words must have _ in the place of spaces, got '{odd[0]}'")
        try:
            return SyntheticUnknown(**arguments).data_sets(self.words)
        except ValueError as error:
            raise ValueError(f"synthetic_unknown: {error}") from error

    @property
    def few_folders(self) -> list[str]:
        """The names of the folders whose clips the network is not trained on; see WordFolder."""
        return [folder.name for folder in self.word_folders if folder.few and folder.name is not None]

    @property
    def unknown_label(self) -> int | None:
        """The index of the unknown class among `labels`; None without one."""
        return int(self.silence) if self.unknown else None

    def labels(self, corpus: Corpus) -> list[str]:
        """The class names, in the order of the model's outputs.

        Raises:
            KwsError: a wanted word has no folder.
        """
        clips = corpus.clips
        made = [nfc(folder.dataset.locate().name) for folder in self.word_folders if folder.training_alone]
        present = sorted(set(clips["word"][~clips["folder"].isin(made)]) - {SILENCE, UNKNOWN})
        words = present if self.words is None else self.words
        for word in words:
            if word not in present:
                near = difflib.get_close_matches(word, present, n=3, cutoff=0.0)
                raise KwsError(
                    f"task.words: no folder '{word}' with usable clips in '{corpus.roots[0]}';"
                    f" nearest: {', '.join(near)}"
                )
        return [SILENCE] * self.silence + [UNKNOWN] * self.unknown + words

    def examples(self, corpus: Corpus, data_seed: int) -> pd.DataFrame:
        """The examples of all splits; the same for the same seed.

        Returns:
            a row per example: `split`, `label` (index into `labels()`), `source` (NO_SOURCE for silence), `path`,
            `word`, `speaker`, `folder`, `offset`, `length` and `start` (samples), `content`, as of the corpus's clips;
            the index is the example's id.
        """
        labels = self.labels(corpus)
        parts = [self._split_examples(corpus, split, labels, data_seed) for split in SPLITS]
        return pd.concat(parts, ignore_index=True)

    def _split_examples(self, corpus: Corpus, split: str, labels: list[str], data_seed: int) -> pd.DataFrame:
        clips = corpus.clips[corpus.clips["split"] == split]
        label_of = {word: index for index, word in enumerate(labels)}
        wanted = clips[clips["word"].isin(set(labels) - {SILENCE, UNKNOWN})]
        parts = [wanted.assign(label=wanted["word"].map(label_of).astype("int64"))]
        if self.unknown:
            unknown = self._unknown_clips(clips, labels, len(wanted), data_seed, split)
            parts.append(unknown.assign(label=label_of[UNKNOWN]))
        if self.silence:
            recorded = clips[clips["word"] == SILENCE]
            parts.append(recorded.assign(label=label_of[SILENCE]))
            quota = math.ceil(len(wanted) * self.silence_percentage / 100)
            parts.append(_silence_rows(max(0, quota - len(recorded)), split).assign(label=label_of[SILENCE]))
        return pd.concat([part[_COLUMNS] for part in parts if len(part)] or [parts[0][_COLUMNS]], ignore_index=True)

    def _unknown_clips(
        self, clips: pd.DataFrame, labels: list[str], num_wanted: int, data_seed: int, split: str
    ) -> pd.DataFrame:
        """Recorded `_unknown_` clips, other words drawn up to the percentage, and the clips of unknown folders."""
        in_dataset = clips[clips["folder"] == ""]
        recorded = in_dataset[in_dataset["word"] == UNKNOWN]
        others = in_dataset[~in_dataset["word"].isin({*labels, SILENCE, UNKNOWN})]
        percentage = self.training_unknown_percentage if split == "training" else self.unknown_percentage
        quota = math.ceil(num_wanted * percentage / 100)
        drawn = _draw(others, max(0, quota - len(recorded)), data_seed)
        parts = [recorded, drawn] * (self.training_unknown_repeats if split == "training" else 1)
        whole = {folder.name for folder in self.unknown_folders if folder.share is None}
        parts.append(clips[clips["folder"].isin(whole)])
        if split == "training":
            beside = ~clips["folder"].isin({"", *(folder.name for folder in self.unknown_folders)})
            parts.append(clips[beside & ~clips["word"].isin({*labels} - {UNKNOWN})])
        shared = [folder for folder in self.unknown_folders if folder.share is not None]
        rest = sum(map(len, parts))
        shares = sum(folder.share or 0.0 for folder in shared)
        # The rest is what the shares don't cover. Where they cover everything, they divide the quota.
        total = 0.0
        if shared and rest and shares < 1 - _SHARE_ROUNDING:
            total = rest / (1 - shares)
        elif shared:
            if len(recorded):
                log.warning(
                    "the shares sum to 1: %d recorded %s clips of %s are left out", len(recorded), UNKNOWN, split
                )
            total, parts = quota / shares, []
        for folder in shared:
            available = clips[clips["folder"] == folder.name]
            asked = round(total * (folder.share or 0.0))
            if asked > len(available):
                log.warning(
                    "unknown folder '%s' has %d clips for %s, its share asks for %d: all are used",
                    folder.name, len(available), split, asked,
                )  # fmt: skip
            parts.append(_draw(available, asked, data_seed))
        return pd.concat(parts)


def _draw(clips: pd.DataFrame, count: int, data_seed: int) -> pd.DataFrame:
    """`count` of the clips, drawn with the seed."""
    names = (clips["path"] + "@" + clips["offset"].astype(str)).tolist() if len(clips) else []
    return clips.iloc[text_order(names, data_seed, "unknown")[:count]] if names else clips


def _silence_rows(count: int, split: str) -> pd.DataFrame:
    names = [f"{SILENCE}/{split}_{number}" for number in range(count)]
    return pd.DataFrame(
        {
            "split": split, "source": NO_SOURCE, "path": np.array(names, dtype=object), "word": SILENCE,
            "speaker": "", "folder": "", "offset": 0, "length": 0, "start": 0, "content": "",
        }
    )  # fmt: skip


def _checked_words(words: Sequence[str]) -> list[str]:
    checked = []
    for word in words:
        if not isinstance(word, str):
            raise ValueError(
                f"words must be text, got {word!r}; quote what YAML takes for a number, or for true, false or null"
                " (as it does with yes, no, on and off)"
            )
        if not word or printable(word) != word:
            raise ValueError(f"words must not be empty or hold control characters such as line breaks, got {word!r}")
        if word in (SILENCE, UNKNOWN):
            raise ValueError(f"words must not name {word}: it is a class of its own (task.silence, task.unknown)")
        checked.append(nfc(word))
    if not checked:
        raise ValueError("words must name at least one word, got none; null takes all the data set's words")
    if len(set(checked)) < len(checked):
        raise ValueError(f"words must differ, got {checked}")
    return checked


def _unknown_folder(entry: Any) -> UnknownFolder:
    if isinstance(entry, str | Path):
        return UnknownFolder(check_path("unknown_dirs", entry))
    given = dict(entry) if isinstance(entry, Mapping) else {}
    path, share = given.pop("path", None), given.pop("share", None)
    if not isinstance(path, str | Path) or given:
        raise ValueError(f"unknown_dirs must list paths or {{path: …, share: …}}, got {entry!r}")
    if share is not None:
        check_number(f"unknown_dirs: share of '{path}'", share, high=1, above=0)
    return UnknownFolder(check_path("unknown_dirs: path", path), share)


def _word_folder(entry: Any) -> WordFolder:
    if hasattr(entry, "locate"):
        return WordFolder(entry)
    given = dict(entry) if isinstance(entry, Mapping) else {"path": entry}
    path, few = given.pop("path", None), given.pop("few", False)
    if not isinstance(path, str | Path) or given:
        raise ValueError(f"word_dirs must list paths, {{path: …, few: true}}, or data sets, got {entry!r}")
    check_path("word_dirs: path", path)
    return WordFolder(Folder(str(path)), check_flag(f"word_dirs: few of '{path}'", few))
