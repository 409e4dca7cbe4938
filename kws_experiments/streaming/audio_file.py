"""One audio file that the user named: its samples, or one line that says why there are none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kws_data.audio import UnreadableAudioError, read_header
from kws_data.audio_blocks import read_blocks
from kws_data.errors import KwsError


def check_file(audio: Path) -> None:
    """Tell what can be told before a model is loaded.

    Raises:
        KwsError: the file isn't there, or its header says that it can't be read.
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
    """A file's samples piece by piece, with a progress bar where a person waits.

    Raises:
        KwsError: the file can't be read, or from some place on.
    """
    try:
        header = read_header(audio)
        seconds = header.num_samples / header.sample_rate
        quiet = not sys.stderr.isatty() or seconds < 60
        with tqdm(total=round(seconds, 1), unit="s", desc=audio.name, disable=quiet, leave=False) as bar:
            for block in read_blocks(audio, sample_rate):
                yield block
                bar.update(len(block) / sample_rate)
    except UnreadableAudioError as error:
        raise KwsError(f"'{audio}': {error}") from error
