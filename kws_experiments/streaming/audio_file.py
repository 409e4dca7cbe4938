"""The samples of one audio file that a command is given, or one line that says why it cannot be read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kws_data.audio import UnreadableAudioError, read_blocks, read_header
from kws_data.errors import KwsError
from kws_data.text import printable
from kws_experiments.streaming.windows import in_pieces

_QUIET_S = 60  # shorter files need no progress bar


def check_file(audio: Path) -> None:
    """Check that a file can be opened, before a model is loaded for it.

    Raises:
        KwsError: the file does not exist, or its header cannot be read.
    """
    if not audio.exists():
        raise KwsError(f"no such file: '{audio}'")
    if audio.is_dir():
        raise KwsError(f"'{audio}' is a folder: give one audio file; kws label takes folders of clips")
    try:
        read_header(audio)
    except UnreadableAudioError as error:
        raise KwsError(f"'{audio}': {error}") from error


def file_blocks(audio: Path, sample_rate: int) -> Iterator[np.ndarray]:
    """Yield a file's samples in blocks, [n] float32 at `sample_rate` Hz; long files get a progress bar at a terminal.

    Raises:
        KwsError: the file, or a part of it, cannot be read.
    """
    try:
        header = read_header(audio)
        seconds = header.num_samples / header.sample_rate
        quiet = not sys.stderr.isatty() or seconds < _QUIET_S
        with tqdm(total=round(seconds, 1), unit="s", desc=printable(audio.name), disable=quiet, leave=False) as bar:
            for block in in_pieces(read_blocks(audio, sample_rate), sample_rate):
                yield block
                bar.update(len(block) / sample_rate)
    except UnreadableAudioError as error:
        raise KwsError(f"'{audio}': {error}") from error
