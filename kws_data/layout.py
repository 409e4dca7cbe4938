"""A data set's catalog with its splits: by a policy, or by folders `training/`, `testing/`, … above the words."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kws_data.audio import AUDIO_SUFFIXES
from kws_data.catalog import BACKGROUND_NOISE, SPECIAL_FOLDERS, scan, without_unprintable
from kws_data.checks import check_choice
from kws_data.errors import KwsError, shortened
from kws_data.folders import find_data_set, nfc
from kws_data.splits import TESTING, TRAINING, VALIDATION, HashSplit, SplitPolicy

log = logging.getLogger(__name__)

LAYOUTS = ("auto", "words", "splits")
_SPLIT_OF = {
    "training": TRAINING, "train": TRAINING,
    "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION,
    "testing": TESTING, "test": TESTING, "eval": TESTING, "evaluation": TESTING,
}  # fmt: skip
_OF_A_SPLIT = re.compile(r"[ _-]?(set|data|split|clips)$")  # after a split's name: test_set, training-data
_LIKE_A_SPLIT = re.compile(
    r"(?<![a-z])(train(ing)?|tests?|testing|valid(ation)?|val|dev|eval(uation)?|hold.?out)s?(?![a-z])", re.IGNORECASE
)
_EDGE_IMPULSE = "info.labels"


@dataclass(frozen=True)
class Naming:
    """What the names of a data set's files and folders say.

    Attributes:
        speaker_pattern: see `catalog.scan`.
        layout: 'words': folders are words; 'splits': folders such as training/ and testing/ hold the words' folders;
            'auto': splits where all folders have such names, and words otherwise.
    """

    speaker_pattern: str | None = None
    layout: str = "auto"

    def __post_init__(self) -> None:
        check_choice("layout", self.layout, LAYOUTS)


AUTOMATIC = Naming()


def split_catalog(root: Path, policy: SplitPolicy, naming: Naming = AUTOMATIC, *, renew: bool = False) -> pd.DataFrame:
    """The catalog of a data set (see `catalog.scan`) with `split`: that of a clip's folder, or else by the policy.

    Raises:
        KwsError: see `scan` and the policies; or `layout` is 'splits', and there is no folder of a split.
    """
    catalog = scan(root, speaker_pattern=naming.speaker_pattern, renew=renew)
    return with_splits(catalog, find_data_set(root), policy, naming.layout)


def with_splits(catalog: pd.DataFrame, root: Path, policy: SplitPolicy, layout: str) -> pd.DataFrame:
    """A catalog whose words are the first folders, with `split`, and with the words below folders of splits.

    Raises:
        KwsError: see the policies; or `layout` is 'splits', and there is no folder of a split.
    """
    found = _splits_of_folders(catalog, root, layout)
    if found is None:
        _warn_of_splits_below(catalog["path"], root)
        if layout == "auto":
            _warn_of_same_folders(catalog["path"], root)
        _warn_of_twins(catalog["path"])
        return catalog.assign(split=policy.assign(catalog, root))
    catalog = without_unprintable(_with_words_below(catalog, found != "", root))
    _warn_of_twins(catalog["path"])
    split = policy.assign(catalog, None)
    if policy.testing_percentage < 100:  # else all of it is a test set, whatever its folders
        split = _by_folder(catalog, found, split, policy, root)
    return catalog.assign(split=split)


def folder_splits(paths: pd.Series, layout: str) -> pd.Series:
    """The split that the first folder of each path names, below a folder beside the data set; '' where none does.

    A single such folder may be called so by chance; two of them are splits, unless `layout` is 'words'.
    """
    folders = paths.str.extract(r"^([^/]+)/", expand=False).fillna("")
    split = folders.map(_split_of)
    several = split[_is_audio(paths) & (split != "")].nunique() > 1
    return split if several and layout != "words" else split.where(split == "", "")


def split_beside(catalog: pd.DataFrame, root: Path, policy: SplitPolicy, naming: Naming) -> pd.Series:
    """The split of each clip of a folder beside the data set: by its own folders of splits, or else by the policy."""
    split, found = policy.assign(catalog, None), folder_splits(catalog["path"], naming.layout)
    if not found.any() or policy.testing_percentage == 100:
        return split
    hashed = HashSplit(policy.validation_percentage, policy.testing_percentage)  # lists say nothing of this folder
    return _by_folder(catalog, found, split, hashed, root)


def _splits_of_folders(catalog: pd.DataFrame, root: Path, layout: str) -> pd.Series | None:
    """The split of each row's first folder ('' for others), or None where folders are words."""
    if layout == "words":
        return None
    split = catalog["word"].map({word: _split_of(word) for word in catalog["word"].unique()})
    if layout == "auto" and not split.any():
        return None
    clips = _is_audio(catalog["path"])
    inside = catalog[clips & (split != "")]
    if layout == "splits":
        if inside.empty:
            raise KwsError(
                f"dataset.layout=splits: '{root}' has no folder of clips named training, validation or testing"
            )
        return split
    others = sorted(set(catalog.loc[clips & (split == ""), "word"]) - set(SPECIAL_FOLDERS))
    several = split[inside.index].nunique() > 1
    unlabelled = inside["path"].str.count("/") == 1
    if inside.empty or (unlabelled.any() and not several and not (root / _EDGE_IMPULSE).is_file()):
        return None
    if others:
        if several and not unlabelled.any():
            log.warning(
                "'%s': %s are taken for words, since there is also %s; if they are splits, give dataset.layout=splits",
                root, ", ".join(sorted(set(inside["word"]))), shortened(others, 3),
            )  # fmt: skip
        return None
    return split


def _with_words_below(catalog: pd.DataFrame, inside: pd.Series, root: Path) -> pd.DataFrame:
    """The word of each row in a split's folder: the next folder, or Edge Impulse's label (`training/yes.1a2b.wav`)."""
    below = catalog.loc[inside, "path"].str.split("/", n=1).str[1].str.normalize("NFC")
    direct = ~below.str.contains("/", na=True)
    words = below.str.split("/", n=1).str[0].mask(direct)
    labels = _edge_impulse_labels(root) if direct.any() else {}
    named = below[direct].str.extract(r"^([^.]+)\..+\.", expand=False)
    words[direct] = [labels.get(nfc(catalog.at[row, "path"]), word) for row, word in named.items()]
    deeper = below.str.split("/").str[1:-1].str[0].dropna().unique()
    if words.nunique() == 1 and len(deeper) > 1:
        log.warning(
            "'%s': the splits have one folder each, '%s', which is taken for the only word; words' folders stand"
            " directly below splits, but %s stand below that",
            root, words.dropna().iloc[0], shortened(sorted(deeper), 3),
        )  # fmt: skip
    catalog = catalog.copy()
    catalog.loc[inside, "word"] = words.fillna("")
    nameless = words.index[words.isna() & catalog.loc[inside, "error"].eq("")]
    catalog.loc[nameless, "error"] = "nothing says its word: it is in the folder of a split, but in no folder of a word"
    prefixed = words.index[direct & words.notna() & (catalog.loc[inside, "utterance"] >= 0)]  # yes.0a1b_nohash_0.wav
    catalog.loc[prefixed, "speaker"] = [
        speaker.removeprefix(f"{word}.")
        for speaker, word in catalog.loc[prefixed, ["speaker", "word"]].itertuples(index=False)
    ]
    return catalog


def _edge_impulse_labels(root: Path) -> dict[str, str | None]:
    """The label of each path in the files `info.labels` of a data set; None for a clip that has none."""
    labels: dict[str, str | None] = {}
    for file in (root / _EDGE_IMPULSE, *sorted(root.glob(f"*/{_EDGE_IMPULSE}"))):
        if not file.is_file():
            continue
        try:
            for entry in json.loads(file.read_bytes())["files"]:
                path = file.parent / entry["path"].replace("\\", "/")
                word = entry["label"] if isinstance(entry["label"], str) else entry["label"].get("label")
                labels[nfc(os.path.relpath(path, root))] = nfc(word) if word and word.isprintable() else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise KwsError(f"'{file}' holds no labels of Edge Impulse; export it again, or remove it") from error
    return labels


def _by_folder(
    catalog: pd.DataFrame, found: pd.Series, by_policy: pd.Series, policy: SplitPolicy, root: Path
) -> pd.Series:
    """The folders' splits, the policy's for clips elsewhere, and validation taken from training if it has no folder."""
    split = found.where(found != "", by_policy)
    folders = ", ".join(sorted(set(catalog.loc[found != "", "path"].str.split("/", n=1).str[0])))
    line = f"'{root}': its folders {folders} are the splits, not split= (if they are words: dataset.layout=words)"
    if VALIDATION not in set(found):
        percentage = policy.validation_percentage
        # Not by the hash of the speaker alone: the release's training clips are those of whom it says so.
        salted = catalog.assign(speaker="validation of " + catalog["speaker"])
        held_out = HashSplit(percentage, 0).assign(salted, None) == VALIDATION
        split[(found == TRAINING) & held_out & (catalog["word"] != BACKGROUND_NOISE)] = VALIDATION
        line += f"; validation is {percentage:g} % of training's speakers, by their hash"
    if isinstance(policy, HashSplit):
        log.info("%s", line)
    else:
        log.warning("%s; %s does nothing here", line, type(policy).__name__)
    return split


def _split_of(folder: str) -> str:
    return _SPLIT_OF.get(_OF_A_SPLIT.sub("", folder.casefold()), "")


def _warn_of_splits_below(paths: pd.Series, root: Path) -> None:
    """Name folders of splits inside words' folders, which are not read."""
    folders = paths[_is_audio(paths)].str.extract(r"^([^/]+/[^/]+)/", expand=False).dropna().unique()
    splits = {folder: split for folder in folders if (split := _split_of(folder.rpartition("/")[2]))}
    if len(set(splits.values())) > 1:
        log.warning(
            "'%s': folders of splits inside those of words, such as %s, are not read: splits are folders above the"
            " words, or list files (split=lists)",
            root,
            shortened(sorted(splits), 2),
        )


def _warn_of_same_folders(paths: pd.Series, root: Path) -> None:
    """Name folders that are taken for words, but look like splits: by their names, and by the same folders in them."""
    audio = paths[_is_audio(paths)].str.extract(r"^([^/]+)/([^/]+)/").dropna().drop_duplicates()
    shared = audio[audio.duplicated(1, keep=False)]
    if any(_LIKE_A_SPLIT.search(folder) for folder in shared[0].unique()):
        log.warning(
            "'%s': %s are taken for words, but the same folders (%s) are in several of them; if they are splits, name"
            " them training, validation and testing",
            root, shortened(sorted(shared[0].unique()), 3), shortened(sorted(shared[1].unique()), 3),
        )  # fmt: skip


def _warn_of_twins(paths: pd.Series) -> None:
    """Name folders that differ in the Unicode form of their names alone."""
    forms = Counter(nfc(folder) for folder in {path.rpartition("/")[0] for path in paths})
    for name, count in forms.items():
        if count > 1:
            log.warning("there are %d folders '%s' (in NFC and NFD): they count as one", count, name)


def _is_audio(paths: pd.Series) -> pd.Series:
    return paths.str.lower().str.endswith(tuple(AUDIO_SUFFIXES))
