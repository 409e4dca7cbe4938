"""Label any audio files with a trained model (`kws label`)."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from kws_data.audio import ReadClip, UnreadableAudioError, read_clip
from kws_data.clip_format import ClipFormat
from kws_data.errors import KwsError
from kws_data.storage.parallel import show_progress
from kws_data.text import printable, to_csv
from kws_experiments.export.scorer import fitted
from kws_experiments.inference.feature_files import find_files
from kws_experiments.runs.folder import write_text

if TYPE_CHECKING:
    from kws_experiments.export.scorer import Scorer

log = logging.getLogger(__name__)

BATCH = 100


class Labelled(NamedTuple):
    """A file with its best classes, best first."""

    path: Path
    top: list[tuple[str, float]]


def label(
    model: Path, paths: Sequence[Path], *, top: int, figures: Path | None = None
) -> tuple[list[Labelled], list[Path]]:
    """Score every file below `paths`, sorted by path.

    Args:
        model: the folder of a finished run, or an export.
        paths: audio files, or folders of them.
        top: how many classes to keep per file.
        figures: a folder for a picture of each file, `<path>.png`, with its scores and spectrogram.

    Returns:
        the labelled files, and those that could not be read; each of these is logged with its reason.

    Raises:
        KwsError: the model is missing, or there are no readable files.
    """
    files = find_files(paths)
    from kws_experiments.export.load import load_scorer

    scorer = load_scorer(model)
    form = scorer.facts.clip_form
    root = Path(os.path.commonpath([file.absolute().parent for file in files]))
    labelled: list[Labelled] = []
    failed: list[Path] = []
    longer = scaled = 0
    with tqdm(total=len(files), desc="labelling", unit="file", disable=not show_progress(len(files))) as bar:
        for start in range(0, len(files), BATCH):
            read = list(_readable(files[start : start + BATCH], form, failed))
            longer += sum(clip.longer for _, clip in read)
            scaled += sum((clip.full_scale or 1) > 1 for _, clip in read)
            scores = _scores(scorer, [clip.samples for _, clip in read])
            for (path, clip), row in zip(read, scores, strict=True):
                best = [(scorer.labels[index], float(row[index])) for index in np.argsort(-row, kind="stable")]
                labelled.append(Labelled(path, best[:top]))
                if figures is not None:
                    picture = figures / f"{path.absolute().relative_to(root)}.png"
                    try:
                        _draw(picture, path, clip.samples, best, scorer.sample_rate)
                    except OSError as error:
                        if error.errno != errno.ENAMETOOLONG:
                            raise
                        log.warning("%s: no picture: its name would be too long", path)
            bar.update(min(BATCH, len(files) - start))
    if not labelled:
        raise KwsError("no file can be read" if len(files) > 1 else "the file cannot be read")
    if longer:
        seconds = form.longest / form.sample_rate
        log.warning(
            "%d files are longer than the model's window: %g s of each are labelled (clip_from=%s)",
            longer, seconds, form.clip_from,
        )  # fmt: skip
    if scaled:
        log.warning("%d float files are far beyond full scale and are scaled (audio.levels)", scaled)
    return labelled, failed


def _readable(files: Sequence[Path], form: ClipFormat, failed: list[Path]) -> Iterator[tuple[Path, ReadClip]]:
    """The clip of each readable file; the other files are added to `failed`."""
    for path in files:
        try:
            yield path, read_clip(path, form)
        except UnreadableAudioError as error:
            log.warning("%s: %s", path, error)
            failed.append(path)


def _scores(scorer: Scorer, clips: Sequence[np.ndarray]) -> np.ndarray:
    """[clips, labels]; a model for clips of any length scores them one by one."""
    parts = [fitted(clip[None], scorer.clip_samples) for clip in clips]
    if scorer.clip_samples is not None and parts:
        return scorer.scores(np.concatenate(parts))
    return np.concatenate([np.zeros((0, len(scorer.labels)), np.float32), *map(scorer.scores, parts)])


def as_csv(labelled: Sequence[Labelled]) -> str:
    """A row per file: `path`, then `label_1`, `score_1`, `label_2`, …"""
    columns = [f"{name}_{rank}" for rank in range(1, len(labelled[0].top) + 1) for name in ("label", "score")]
    rows = [[path, *chain.from_iterable(top)] for path, top in labelled]
    return to_csv(pd.DataFrame(rows, columns=["path", *columns]), float_format="%.4f")


def as_json(labelled: Sequence[Labelled]) -> str:
    """A list of `{"path": …, "top": [{"label": …, "score": …}, …]}`."""
    rows = [
        {"path": str(path), "top": [{"label": word, "score": round(score, 4)} for word, score in top]}
        for path, top in labelled
    ]
    return json.dumps(rows, indent=2)


def write(out: Path, labelled: Sequence[Labelled]) -> None:
    """Write `.csv` or `.json`, whole or not at all."""
    write_text(out, as_csv(labelled) if out.suffix == ".csv" else as_json(labelled) + "\n")


def show(labelled: Sequence[Labelled]) -> None:
    """Print a table."""
    from kws_experiments.console.tables import by_column, print_table

    ranks = range(1, len(labelled[0].top) + 1)
    headings = ["file", *(heading for rank in ranks for heading in (f"{rank}.", "score"))]
    rows = [[str(path), *(text for word, score in top for text in (word, f"{score:.3f}"))] for path, top in labelled]
    print_table(by_column(headings, rows), numeric=["score"], keep=headings)


def _draw(out: Path, path: Path, samples: np.ndarray, scores: Sequence[tuple[str, float]], sample_rate: int) -> None:
    from kws_experiments.plots.clips import labelled_clip
    from kws_experiments.plots.style import save

    save(labelled_clip(printable(path.name), samples, scores, sample_rate), out)
