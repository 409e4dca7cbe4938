"""What the figures of a training on these data will not mean: classes without clips, or with too few."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kws_data.catalog import SILENCE, UNKNOWN
from kws_data.errors import shortened
from kws_data.splits import SPLITS, TESTING, TRAINING, VALIDATION, ListSplit, SplitPolicy

# Of a word, in a split; an untrained word or an untested one is worse than a nearly untrained one.
_FEW_CLIPS = {TRAINING: 10, VALIDATION: 3, TESTING: 3}
_NEARLY_ALL = {TRAINING: 0.97, VALIDATION: 0.9, TESTING: 0.9}  # of all clips, in one split
_NOT_MEASURED = {  # how often that happens, and what would help
    SILENCE: ("silence is taken for a word", "raise task.silence_percentage, or set task.silence=false"),
    UNKNOWN: (
        "other words are taken for one of the task's",
        "add clips of other words or task.unknown_dirs, or set task.unknown=false",
    ),
}


def cautions(examples: pd.DataFrame, labels: Sequence[str], policy: SplitPolicy) -> list[str]:
    """A line for each defect of the data that makes figures mean less than they seem to; none for good data.

    Args:
        examples: as `Task.examples` returns them.
        labels: class names.
        policy: the split policy.
    """
    counts = clips_by_split(examples["label"].map(dict(enumerate(labels))), examples["split"], labels)
    lines = []
    if len(labels) == 1:
        lines.append(f"'{labels[0]}' is the only class: any model gets every clip right, so accuracy means nothing")
    for label, (mistake, advice) in _NOT_MEASURED.items():
        empty = [split for split in SPLITS if label in labels and counts[split].any() and not counts.loc[label, split]]
        if empty:
            lines.append(f"no clip of {label} is for {shortened(empty)}: how often {mistake} is not known; {advice}")
    return lines + cautions_of_words(counts, policy)


def cautions_of_words(counts: pd.DataFrame, policy: SplitPolicy) -> list[str]:
    """Those of `cautions` that depend on the words' clips alone, whatever the task is.

    Args:
        counts: as `clips_by_split` returns them.
        policy: the split policy.
    """
    words = counts.drop(index=[SILENCE, UNKNOWN], errors="ignore")
    used = [split for split in SPLITS if counts[split].any()]
    if lacking := [split for split in (TRAINING, VALIDATION) if split not in used]:  # a training refuses such data
        return [f"no clip is for {shortened(lacking)}: nothing can be trained; choose another split= or percentages"]
    lines = []
    if TESTING not in used and policy.testing_percentage > 0:
        lines.append("no clip is for testing: the result is that of validation, which also chose the best weights")
    for split in used:
        if missing := words.index[words[split] == 0].tolist():
            means = "the model can't learn it" if split == TRAINING else f"the {split} figures leave it out"
            lines.append(f"no {split} clip of {shortened(missing)}: {means}")
    few = [
        f"{word} ({words.loc[word, split]} {split})"
        for split in used
        for word in words.index[words[split].between(1, _FEW_CLIPS[split] - 1)]
    ]
    if few:
        lines.append(f"very few clips: {shortened(few)}; what is measured on them may be chance")
    return lines + _uneven(words.sum(), policy)


def clips_by_split(labels: pd.Series, splits: pd.Series, names: Sequence[str]) -> pd.DataFrame:
    """The number of clips of each name (rows) in each of SPLITS (columns).

    Args:
        labels: the name of each clip.
        splits: the split of each clip.
        names: all names, also those without a clip.
    """
    return pd.crosstab(labels, splits).reindex(index=list(names), columns=list(SPLITS), fill_value=0)


def unread_lists(root: Path, policy: SplitPolicy) -> str | None:
    """A line that names the list files of a folder, if the policy does not read them."""
    lists = [] if isinstance(policy, ListSplit) else sorted(path.name for path in root.glob("*_list.txt"))
    return f"{' and '.join(lists)} of the data set are not read; split=lists does" if lists else None


def _uneven(clips: pd.Series, policy: SplitPolicy) -> list[str]:
    """A line if nearly all clips of the words are in one split, and the policy was not asked for that."""
    split = clips.idxmax()
    held_out = {VALIDATION: policy.validation_percentage, TESTING: policy.testing_percentage}
    asked = (held_out | {TRAINING: 100 - sum(held_out.values())})[split] / 100
    share = clips[split] / max(1, clips.sum())
    if share < _NEARLY_ALL[split] or asked >= _NEARLY_ALL[split]:
        return []
    so = "the figures rest on very few clips" if split == TRAINING else "the model has little to learn from"
    return [f"{int(share * 100)}% of the words' clips are for {split}: {so}; choose another split="]
