"""All clips that a task may use: catalogued, split, decoded, and without leaks between the splits."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from kws_data.catalog import BACKGROUND_NOISE, SILENCE, UNKNOWN, scan_below, set_aside, usable
from kws_data.clip_format import AudioRules, ClipFormat
from kws_data.errors import KwsError
from kws_data.folders import find_data_set, find_folder, nfc
from kws_data.layout import AUTOMATIC, Naming, folder_splits, split_beside, split_catalog
from kws_data.noise import NoiseBank
from kws_data.splits import TESTING, TRAINING, ListSplit, SplitPolicy, time_split
from kws_data.storage.cache import datasets_dir
from kws_data.store import content_hash, open_store
from kws_data.word_folders import WordFolder

log = logging.getLogger(__name__)

# A file of fewer windows goes to one split as a whole, since a tenth of it is less than a window.
LONG_RECORDING_WINDOWS = 10
# Noise recordings shorter than this belong to one split as a whole, where there are enough of them.
SHORT_NOISE_S = 10
MUTED = "muted: all its samples have one value"


@dataclass(frozen=True)
class UnknownFolder:
    """A folder of clips of other than the wanted words.

    Attributes:
        path: all audio files below it are used, at any depth.
        share: the fraction of the unknown class that its clips make up; None adds all of them.
    """

    path: Path
    share: float | None = None

    @property
    def name(self) -> str:
        """Its name in metrics."""
        return nfc(self.folder.name)

    @property
    def folder(self) -> Path:
        """The full path, so that `.` has a name too; links are not resolved."""
        return Path(os.path.abspath(self.path.expanduser()))  # noqa: PTH100 - `absolute` would keep `..`


@dataclass(frozen=True)
class NoiseFolder:
    """A folder of noise recordings besides the data set's own, at any depth, of any length and format.

    Attributes:
        path: the folder.
        weight: how often its noise is used, relative to the other folders' weights; its files are used equally often.
    """

    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class NoiseFolders:
    """All folders of background noise.

    Attributes:
        extra: folders besides the data set's own.
        own_weight: weight of the data set's own `_background_noise_`.
    """

    extra: Sequence[NoiseFolder] = ()
    own_weight: float = 1.0


@dataclass(frozen=True)
class Corpus:
    """Clips and noise, ready for a task.

    Attributes:
        clips: a row per clip: `source` (index into `pcm`), `path`, `word`, `speaker`, `utterance`, `folder` (name of
            the folder beside the data set, '' for the data set), `split`, `offset` and `length` (samples in
            `pcm[source]`), `start` (of the clip in its file, in samples at `sample_rate`), `content` (hash of the
            samples).
        set_aside: the files and clips left out, with `source`, `path` and the reason in `error`.
        pcm: per source, [samples] int16, memory-mapped.
        roots: per source, its folder.
        noise: the background noise.
        sample_rate: Hz.
        recordings: a row per noise recording in use, with the columns of `clips`.
    """

    clips: pd.DataFrame
    set_aside: pd.DataFrame
    pcm: list[np.ndarray]
    roots: list[Path]
    noise: NoiseBank
    sample_rate: int
    recordings: pd.DataFrame = field(default_factory=pd.DataFrame)


def build_corpus(
    root: Path,
    split: SplitPolicy,
    form: ClipFormat,
    *,
    data_seed: int,
    folders: Sequence[UnknownFolder | WordFolder] = (),
    noise_folders: NoiseFolders = NoiseFolders(),
    naming: Naming = AUTOMATIC,
    renew: bool = False,
) -> Corpus:
    """Catalog, split and decode a data set and the folders that go with it.

    Args:
        root: the data set's folder.
        split: the policy for the data set and for every unknown folder.
        form: of all clips. Files of unknown folders longer than a clip are cut into clips of this length; of other
            files that are longer, the part that `form.clip_from` says is used.
        data_seed: seed of the noise that is generated if there is none.
        folders: see UnknownFolder and WordFolder. Clips of a WordFolder for validation or testing are used only of
            words of which the data set has none for that.
        noise_folders: see NoiseFolder.
        naming: what the names of files and folders say.
        renew: decode every file of the data set again, whatever was packed before.

    Raises:
        KwsError: a folder is missing or holds nothing usable, or the store cannot be written.
    """
    catalog = split_catalog(root, split, naming, renew=renew)
    root = find_data_set(root)
    first = _decoded(root, catalog, form, source=0, renew=renew)
    _without_muted(first.table, form.rules, keep_testing=_is_published(root, split))
    words = first.table[first.table["word"] != BACKGROUND_NOISE]
    if words["error"].ne("").all():
        raise KwsError(f"dataset.path: '{root}' holds no usable clip in any word's folder{_first_reason(words)}")
    sources = [_Source(_cut_clips(first.table.assign(folder=""), first.pcm, form), first.pcm, root)]

    unknown_folders = [folder for folder in folders if isinstance(folder, UnknownFolder)]
    unknown_roots = [find_folder(folder.folder, "task.unknown_dirs") for folder in unknown_folders]
    unmatched = split.unmatched_percentage if isinstance(split, ListSplit) else ListSplit().unmatched_percentage
    word_roots = [
        folder.scan(naming.speaker_pattern, unmatched) for folder in folders if isinstance(folder, WordFolder)
    ]
    noise_roots = [find_folder(folder.path, "noise.dirs") for folder in noise_folders.extra]
    require_apart([root, *unknown_roots, *(word_root for word_root, _ in word_roots)], noise_roots)
    known_speakers = catalog[["speaker", "split"]]
    for folder, unknown_root in zip(unknown_folders, unknown_roots, strict=True):
        extra = scan_below(unknown_root, "task.unknown_dirs", speaker_pattern=naming.speaker_pattern)
        extra["split"] = split_beside(extra, unknown_root, split, naming)
        if split.whole_speakers:  # a speaker of the data set stays in the same split
            known = _splits_by_speaker(extra, known_speakers).fillna(extra["split"])
            extra["split"] = known.where(folder_splits(extra["path"], naming.layout) == "", extra["split"])
            known_speakers = pd.concat([known_speakers, extra[["speaker", "split"]]])
        source = _decoded(unknown_root, extra, form, len(sources))
        _require_usable(source, "task.unknown_dirs")
        fixed = folder_splits(source.table["path"], naming.layout) != ""
        table = _cut_long_recordings(source.table, source.pcm, form.window, split, fixed).assign(
            folder=folder.name, word=UNKNOWN
        )
        _without_muted(table, form.rules)
        table = _cut_clips(table, source.pcm, form)
        sources.append(_Source(table, source.pcm, source.root))

    own = usable(sources[0].table)
    judged = set(own.loc[own["split"] != TRAINING, ["split", "word"]].itertuples(index=False, name=None))
    for word_root, extra in word_roots:
        source = _decoded(word_root, extra, form, len(sources))
        _require_usable(source, "task.word_dirs")
        table = source.table.assign(folder=nfc(word_root.name))
        _without_muted(table, form.rules)
        better = [pair in judged for pair in table[["split", "word"]].itertuples(index=False, name=None)]
        table = _cut_clips(table[~np.array(better)].reset_index(drop=True), source.pcm, form)
        sources.append(_Source(table, source.pcm, source.root))

    weights = {0: noise_folders.own_weight}  # by source
    for noise_folder, noise_root in zip(noise_folders.extra, noise_roots, strict=True):
        extra = scan_below(noise_root, "noise.dirs").assign(word=BACKGROUND_NOISE, folder="")
        extra["split"] = folder_splits(extra["path"], naming.layout)
        source = _decoded(noise_root, extra, form, len(sources))
        _without_silent(source)
        _require_usable(source, "noise.dirs")
        weights[len(sources)] = noise_folder.weight
        sources.append(source)

    _without_silent(sources[0])
    noise = _noise_bank([sources[number] for number in weights], list(weights.values()), form.sample_rate, data_seed)
    everything = _without_leaks(pd.concat([source.table for source in sources], ignore_index=True))
    left_out = set_aside(everything)[["source", "path", "word", "speaker", "split", "error"]]
    good = usable(everything)
    is_noise = good["word"] == BACKGROUND_NOISE
    clips = good[~is_noise].drop(columns="error").reset_index(drop=True)
    used = [number for number, weight in weights.items() if weight > 0]
    recordings = good[is_noise & good["source"].isin(used)].drop(columns="error").reset_index(drop=True)
    pcm, roots = [source.pcm for source in sources], [source.root for source in sources]
    return Corpus(clips, left_out.reset_index(drop=True), pcm, roots, noise, form.sample_rate, recordings)


@dataclass(frozen=True)
class _Source:
    """The files of one folder: the catalog, with offset and length in `pcm`."""

    table: pd.DataFrame
    pcm: np.ndarray
    root: Path


def require_apart(clips: Sequence[Path], noise: Sequence[Path]) -> None:
    """Refuse a folder of clips inside another one, and a folder of noise likewise.

    Args:
        clips: the data set's and those beside it.
        noise: of `noise.dirs`.

    Raises:
        KwsError: what is in the inner folder would be used twice, clips with two labels.
    """
    for keys, folders in (("task.unknown_dirs, task.word_dirs", clips), ("noise.dirs", noise)):
        for first, second in combinations(folders, 2):
            inner, outer = sorted((first, second), key=lambda path: len(path.parts), reverse=True)
            if inner.is_relative_to(outer):
                raise KwsError(f"{keys}: '{inner}' is inside '{outer}': each file can be in one of them only")


def _require_usable(source: _Source, key: str) -> None:
    if source.table["error"].ne("").all():
        raise KwsError(f"{key}: '{source.root}' holds no usable clip{_first_reason(source.table)}")


def _without_silent(source: _Source) -> None:
    """Set aside noise recordings that are silent, or too short to be cut into parts."""
    table = source.table
    for row in table[(table["word"] == BACKGROUND_NOISE) & (table["error"] == "")].itertuples():
        if row.length < 10:
            table.loc[row.Index, "error"] = "noise of less than 10 samples"
        elif not source.pcm[row.offset : row.offset + row.length].any():
            table.loc[row.Index, "error"] = "noise without a sound"


def _noise_bank(sources: Sequence[_Source], weights: Sequence[float], sample_rate: int, data_seed: int) -> NoiseBank:
    """The noise of the data set and of the noise folders; generated if there is none."""
    recordings, chances, names, splits = [], [], [], []
    for source, weight in zip(sources, weights, strict=True):
        rows = usable(source.table[source.table["word"] == BACKGROUND_NOISE])
        if weight <= 0:
            continue
        for row in rows.itertuples():
            recordings.append(source.pcm[row.offset : row.offset + row.length])
            chances.append(weight / len(rows))
            names.append(row.path)  # below its folder, so that splits don't depend on where the folder is
            splits.append("" if row.path.startswith(f"{BACKGROUND_NOISE}/") else row.split)  # of the folder above
    if not recordings:
        log.warning(
            "'%s' has no %s: silence is made of low-level generated noise, and no noise is mixed into words",
            sources[0].root, BACKGROUND_NOISE,
        )  # fmt: skip
        return NoiseBank.low_level(sample_rate, data_seed)
    return NoiseBank(recordings, chances=chances, whole_below=SHORT_NOISE_S * sample_rate, names=names, splits=splits)


def _decoded(root: Path, catalog: pd.DataFrame, form: ClipFormat, source: int, *, renew: bool = False) -> _Source:
    store = open_store(root, usable(catalog), form.sample_rate, form.rules, renew=renew)
    packed = store.clips.drop(columns=["inode", "ctime_ns"]).rename(columns={"error": "decode_error"})
    table = catalog.merge(packed, on="path", how="left", validate="one_to_one")
    table["error"] = table["error"].where(table["error"] != "", table["decode_error"].fillna(""))
    table[["offset", "length"]] = table[["offset", "length"]].fillna(0).astype("int64")
    table["muted"] = table["muted"].eq(True)
    scaled = table[table["full_scale"] > 1]
    if len(scaled):
        log.warning(
            "%d float files of '%s' are far beyond full scale and are scaled, such as '%s' by 1/%g (audio.levels=%s)",
            len(scaled), root, scaled["path"].iloc[0], scaled["full_scale"].iloc[0], form.rules.levels,
        )  # fmt: skip
    return _Source(table.drop(columns=["decode_error", "full_scale"]).assign(source=source, start=0), store.pcm, root)


def _without_muted(table: pd.DataFrame, rules: AudioRules, *, keep_testing: bool = False) -> None:
    """Set aside clips without a sound; those of silence, and of a published test set, are what they should be."""
    muted = table["muted"] & table["error"].eq("") & ~table["word"].isin([BACKGROUND_NOISE, SILENCE])
    if rules.muted == "keep":
        return
    kept = muted & table["split"].eq(TESTING) & keep_testing
    if kept.any():
        log.warning(
            "%d muted clips of the published test set are kept: %s", kept.sum(), _names(table.loc[kept, "path"])
        )
    table.loc[muted & ~kept, "error"] = f"{MUTED} (audio.muted=keep uses it)"


def _is_published(root: Path, split: SplitPolicy) -> bool:
    """Whether its test clips are what others test on too."""
    in_cache = root.is_relative_to(datasets_dir().resolve())
    return in_cache or (isinstance(split, ListSplit) and (root / "testing_list.txt").is_file())


def _names(paths: pd.Series) -> str:
    return ", ".join(paths.iloc[:3]) + (", …" if len(paths) > 3 else "")


def _cut_clips(table: pd.DataFrame, pcm: np.ndarray, form: ClipFormat) -> pd.DataFrame:
    """Of each file that is longer than a clip, the part to use."""
    longer = (table["length"] > form.longest) & table["error"].eq("")
    longer &= ~table["word"].isin([BACKGROUND_NOISE, SILENCE])
    moved = 0
    for row in table[longer].itertuples():
        samples = pcm[row.offset : row.offset + row.length]
        start = form.start_in(samples)
        if start:
            moved += 1
            samples = samples[start : start + form.longest]
            values = [row.offset + start, start, form.longest, content_hash(samples)]
            table.loc[row.Index, ["offset", "start", "length", "content"]] = values
    if longer.any():
        log.info(
            "%d files are longer than a clip (%g s) and are cut, %d of them to another part than their start"
            " (clip_from=%s)",
            longer.sum(), form.longest / form.sample_rate, moved, form.clip_from,
        )  # fmt: skip
    return table


def _splits_by_speaker(catalog: pd.DataFrame, known: pd.DataFrame) -> pd.Series:
    """The known split of each row's speaker; missing for new speakers."""
    return catalog["speaker"].map(known.drop_duplicates("speaker").set_index("speaker")["split"])


def _cut_long_recordings(
    table: pd.DataFrame, pcm: np.ndarray, clip_samples: int, policy: SplitPolicy, fixed: pd.Series
) -> pd.DataFrame:
    """One row per whole window of each file: consecutive, without overlap; the rest at the end is not used.

    Windows of a long file are split by time, unless its split is fixed. Each window has its own content hash, so that
    a copy of it elsewhere is found.
    """
    windows = np.maximum(1, table["length"].to_numpy() // clip_samples)
    cut = table.loc[table.index.repeat(windows)].reset_index(drop=True)
    window = np.concatenate([np.arange(count) for count in windows])
    of_file = np.repeat(windows, windows)
    cut["offset"] += window * clip_samples
    cut["start"] = window * clip_samples
    cut["length"] = np.where(of_file > 1, clip_samples, cut["length"])
    cut["utterance"] = np.where(of_file > 1, window, cut["utterance"])
    for row in cut[of_file > 1].itertuples():
        samples = pcm[row.offset : row.offset + row.length]
        cut.loc[row.Index, ["content", "muted"]] = [content_hash(samples), bool(np.ptp(samples) == 0)]
    by_time = np.concatenate([np.array(time_split(int(count), policy), dtype=object) for count in windows])
    by_time_where = (of_file >= LONG_RECORDING_WINDOWS) & ~np.repeat(fixed.to_numpy(), windows)
    cut["split"] = np.where(by_time_where, by_time, cut["split"])
    return cut


def _without_leaks(table: pd.DataFrame) -> pd.DataFrame:
    """Set aside training clips whose audio is also in validation or testing; the published test sets stay whole."""
    good = table["error"].eq("") & table["word"].ne(BACKGROUND_NOISE)
    held_out = table[good & table["split"].ne(TRAINING)].drop_duplicates("content")
    twin = table["content"].map(held_out.set_index("content")["path"])
    leaked = good & table["split"].eq(TRAINING) & twin.notna()
    table.loc[leaked, "error"] = "same audio as the held-out clip " + twin[leaked].astype(str)
    return table


def _first_reason(table: pd.DataFrame) -> str:
    errors = set_aside(table)
    if errors.empty:
        return ""
    return f" (first of {len(errors)} set aside: {errors['path'].iloc[0]}: {errors['error'].iloc[0]})"
