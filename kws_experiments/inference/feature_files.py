"""Features of any audio files, as an array or as a picture (`kws data features`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kws_data.audio import UnreadableAudioError, read_clip
from kws_data.clip_format import ClipFormat
from kws_data.errors import KwsError
from kws_data.folders import audio_files, is_text
from kws_data.storage.atomic import replace_file
from kws_data.storage.parallel import show_progress
from kws_data.text import printable
from kws_experiments.console.output import say
from kws_experiments.export.scorer import fitted

log = logging.getLogger(__name__)

BATCH = 100
MOST_DRAWN = 64  # clips in one picture


def write(paths: Sequence[Path], out: Path, *, features: str, form: ClipFormat) -> list[Path]:
    """Compute the features of all files below `paths`, sorted by path, and write them to `out`.

    Args:
        paths: audio files, or folders of them.
        out: `.npy` for one float32 array [clips, frames, bins]; `.png` for a picture with the waveforms above.
        features: the name of a file in `conf/features/`.
        form: every file is padded or cut to its length.

    Returns:
        the files that could not be read; each is logged with its reason.

    Raises:
        KwsError: there are no such features, or no readable files.
    """
    if out.suffix not in (".npy", ".png"):
        raise KwsError(f"--out: '{out}' must end in .npy or .png")
    from kws_experiments.config.compose import compose, instantiate

    layer = instantiate(compose([f"features={features}", f"sample_rate={form.sample_rate}"]), "features")
    files = find_files(paths)
    waveforms, failed, longer = [], [], 0
    for path in files:
        try:
            clip = read_clip(path, form)
            waveforms.append(fitted(clip.samples[None], form.clip_samples))
            longer += clip.longer
        except UnreadableAudioError as error:
            log.warning("%s: %s", path, error)
            failed.append(path)
    if not waveforms:
        raise KwsError("no file can be read" if len(files) > 1 else "the file cannot be read")
    if longer:
        log.warning("%d files are longer than a clip and are cut (clip_from=%s)", longer, form.clip_from)
    batch = np.concatenate(waveforms)
    starts = tqdm(range(0, len(batch), BATCH), desc="features", disable=not show_progress(len(batch)))
    parts = [layer(batch[start : start + BATCH]).numpy() for start in starts]
    array = np.concatenate(parts)
    if out.suffix == ".npy":
        with replace_file(out) as temporary:
            np.save(temporary, array)
    else:
        names = [printable(path.stem) for path in files if path not in set(failed)]
        _draw(out, batch, array, names, form.sample_rate)
    say(f"{' x '.join(map(str, array.shape))} (clips x frames x bins): {out}")
    return failed


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The given files, and every audio file below the given folders, sorted; without those whose names are not UTF-8.

    Raises:
        KwsError: a path does not exist, or there are no files.
    """
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found.update(audio_files(path))
        elif path.exists():
            found.add(path)
        else:
            raise KwsError(f"no such file or folder: '{path}'")
    for path in sorted(found):
        if not is_text(str(path)):
            log.warning(
                "%s: left out, since its name is not UTF-8", os.fsencode(path).decode(errors="backslashreplace")
            )
            found.remove(path)
    if not found:
        raise KwsError(f"no audio files below {', '.join(map(str, paths))}")
    return sorted(found)


def _draw(out: Path, batch: np.ndarray, array: np.ndarray, titles: list[str], sample_rate: int) -> None:
    from kws_experiments.plots.clips import clips
    from kws_experiments.plots.style import save

    if len(array) > MOST_DRAWN:
        log.warning("the first %d of %d clips are drawn", MOST_DRAWN, len(array))
    columns = min(4, len(batch))
    figure = clips(batch[:MOST_DRAWN], array[:MOST_DRAWN], titles[:MOST_DRAWN], sample_rate, columns=columns)
    save(figure, out)
