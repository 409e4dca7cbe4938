"""All clips that a task may draw on: catalogued, split, decoded, and free of leaks between the splits."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kws_data.catalog import BACKGROUND_NOISE, UNKNOWN, scan, scan_below, set_aside, usable
from kws_data.errors import KwsError
from kws_data.noise import NoiseBank
from kws_data.splits import TRAINING, SplitPolicy, time_split
from kws_data.store import open_store

log = logging.getLogger(__name__)

# Below this many windows a tenth of a recording is no window: such a file goes to one split as a whole.
LONG_RECORDING_WINDOWS = 10


@dataclass(frozen=True)
class UnknownFolder:
    """A folder of clips that are none of the wanted words.

    Attributes:
        path: every audio file below it counts, at any depth.
        share: the fraction of the unknown class that its clips make up; None adds all of them.
    """

    path: Path
    share: float | None = None

    @property
    def name(self) -> str:
        """What metrics call it."""
        return self.folder.name

    @property
    def folder(self) -> Path:
        """The path in full, so that `.` has a name too; links keep theirs."""
        return Path(os.path.abspath(self.path.expanduser()))  # noqa: PTH100 - `absolute` would keep `..`


@dataclass(frozen=True)
class Corpus:
    """Clips and noise, ready for a task to draw on.

    Attributes:
        clips: a row per clip: `source` (index into `pcm`), `path`, `word`, `speaker`, `utterance`, `folder` (name of
            the unknown folder, '' for the data set), `split`, `offset` and `length` (samples in `pcm[source]`),
            `content` (hash of the samples).
        set_aside: the files and clips left out, with `source`, `path` and the reason in `error`.
        pcm: per source, [samples] int16, memory-mapped.
        roots: per source, its folder.
        noise: the background noise.
        sample_rate: Hz.
    """

    clips: pd.DataFrame
    set_aside: pd.DataFrame
    pcm: list[np.ndarray]
    roots: list[Path]
    noise: NoiseBank
    sample_rate: int


def build_corpus(
    root: Path,
    split: SplitPolicy,
    *,
    sample_rate: int,
    clip_samples: int,
    data_seed: int,
    unknown_folders: Sequence[UnknownFolder] = (),
    speaker_pattern: str | None = None,
) -> Corpus:
    """Catalog, split and decode a data set and the unknown folders beside it.

    Args:
        root: the data set's folder.
        split: the policy for the data set and for every unknown folder.
        sample_rate: Hz; files at other rates are resampled.
        clip_samples: files of unknown folders longer than this are cut into clips of this length.
        data_seed: seeds noise that has to be generated.
        unknown_folders: see UnknownFolder.
        speaker_pattern: see `catalog.scan`.

    Raises:
        KwsError: a folder is missing or holds no usable clip, or the store cannot be written.
    """
    catalog = scan(root, speaker_pattern=speaker_pattern)
    root = root.expanduser().resolve()
    is_noise = catalog["word"] == BACKGROUND_NOISE
    catalog["split"] = split.assign(catalog, root)
    parts, pcm, roots = [_decoded(root, catalog, sample_rate, source=0)], [], [root]
    pcm.append(parts[0][1])
    if parts[0][0].loc[~is_noise, "error"].ne("").all():
        raise KwsError(f"dataset.path: '{root}' holds no usable clip in any word's folder{_first_reason(parts[0][0])}")
    tables = [parts[0][0].assign(folder="")]
    known_speakers = catalog[["speaker", "split"]]
    for source, folder in enumerate(unknown_folders, start=1):
        extra = scan_below(folder.path, speaker_pattern=speaker_pattern)
        extra["split"] = split.assign(extra, None)
        if split.whole_speakers:  # a speaker whom the data set has too stays where they are there
            extra["split"] = _splits_by_speaker(extra, known_speakers).fillna(extra["split"])
            known_speakers = pd.concat([known_speakers, extra[["speaker", "split"]]])
        table, samples = _decoded(folder.folder.resolve(), extra, sample_rate, source)
        if table["error"].ne("").all():
            raise KwsError(f"task.unknown_dirs: '{folder.path}' holds no usable clip{_first_reason(table)}")
        tables.append(_cut_long_recordings(table, clip_samples, split).assign(folder=folder.name, word=UNKNOWN))
        pcm.append(samples)
        roots.append(folder.folder.resolve())
    everything = pd.concat(tables, ignore_index=True)
    everything = _without_leaks(everything)
    good = usable(everything)
    noise_rows = good[(good["word"] == BACKGROUND_NOISE) & (good["length"] >= 10)]
    noise = (
        NoiseBank([pcm[0][row.offset : row.offset + row.length] for row in noise_rows.itertuples()])
        if len(noise_rows)
        else NoiseBank.low_level(sample_rate, data_seed)
    )
    if noise.generated:
        log.warning(
            "'%s' has no %s: silence is made of low-level generated noise, and no noise is mixed into words",
            root,
            BACKGROUND_NOISE,
        )
    left_out = set_aside(everything)[["source", "path", "word", "speaker", "split", "error"]]
    clips = good[good["word"] != BACKGROUND_NOISE].drop(columns="error").reset_index(drop=True)
    return Corpus(clips, left_out.reset_index(drop=True), pcm, roots, noise, sample_rate)


def _decoded(root: Path, catalog: pd.DataFrame, sample_rate: int, source: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The catalog with each clip's place in the store, and the store's samples."""
    store = open_store(root, usable(catalog), sample_rate)
    packed = store.clips.rename(columns={"error": "decode_error"})
    table = catalog.merge(packed, on="path", how="left", validate="one_to_one")
    table["error"] = table["error"].where(table["error"] != "", table["decode_error"].fillna(""))
    table[["offset", "length"]] = table[["offset", "length"]].fillna(0).astype("int64")
    return table.drop(columns="decode_error").assign(source=source), store.pcm


def _splits_by_speaker(catalog: pd.DataFrame, known: pd.DataFrame) -> pd.Series:
    """Each row's split by what is known of its speaker; missing where nothing is."""
    return catalog["speaker"].map(known.drop_duplicates("speaker").set_index("speaker")["split"])


def _cut_long_recordings(table: pd.DataFrame, clip_samples: int, policy: SplitPolicy) -> pd.DataFrame:
    """One row per whole window of each file: consecutive, without overlap; the rest at the end is left."""
    windows = np.maximum(1, table["length"].to_numpy() // clip_samples)
    cut = table.loc[table.index.repeat(windows)].reset_index(drop=True)
    window = np.concatenate([np.arange(count) for count in windows])
    cut["offset"] += window * clip_samples
    cut["length"] = np.where(np.repeat(windows, windows) > 1, clip_samples, cut["length"])
    cut["utterance"] = np.where(np.repeat(windows, windows) > 1, window, cut["utterance"])
    by_time = np.concatenate([np.array(time_split(int(count), policy), dtype=object) for count in windows])
    long = np.repeat(windows >= LONG_RECORDING_WINDOWS, windows)
    cut["split"] = np.where(long, by_time, cut["split"])
    return cut


def _without_leaks(table: pd.DataFrame) -> pd.DataFrame:
    """Set aside training clips whose very audio also stands in validation or testing.

    The published test sets stay as they are: it is the training side that gives way.
    """
    good = table["error"].eq("") & table["word"].ne(BACKGROUND_NOISE)
    held_out = table[good & table["split"].ne(TRAINING)].drop_duplicates("content")
    twin = table["content"].map(held_out.set_index("content")["path"])
    # The windows of one recording share its content hash and are apart in time already.
    own = table["source"].astype(str) + "/" + table["path"]
    twin_own = table["content"].map(
        (held_out["source"].astype(str) + "/" + held_out["path"]).set_axis(held_out["content"])
    )
    leaked = good & table["split"].eq(TRAINING) & twin.notna() & own.ne(twin_own.fillna(""))
    table.loc[leaked, "error"] = "same audio as the held-out clip " + twin[leaked].astype(str)
    return table


def _first_reason(table: pd.DataFrame) -> str:
    errors = table.loc[table["error"].ne(""), ["path", "error"]]
    return (
        ""
        if errors.empty
        else f" (first of {len(errors)} set aside: {errors.iloc[0]['path']}: {errors.iloc[0]['error']})"
    )
