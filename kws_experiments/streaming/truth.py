"""The spoken words of a long recording: `truth.csv`, one row per word."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from kws_data.errors import KwsError
from kws_data.folders import nfc
from kws_data.text import decoded, from_csv

AUDIO, TRUTH, TRACK, FACTS = "stream.wav", "truth.csv", "labels.txt", "stream.json"
FILE = "file"  # column of the recording that a word is in, where a folder has several
# How a word was made, as far as that is known.
CONDITIONS = ("snr_db", "clip", "speaker", "room", "channel", "level_db")


def read_truth(path: Path) -> pd.DataFrame:
    """Read rows of `time_ms` and `end_ms` (floats: the word's start and end) and `word`, sorted by time.

    It is UTF-8, UTF-16 or Windows-1252, with commas, semicolons or tabs between columns. It needs `time_ms` and `word`;
    without `end_ms` a word ends where it starts. A table without rows says that no word is spoken. Of other columns,
    CONDITIONS and FILE are kept, as text.

    Raises:
        KwsError: naming the file and the row.
    """
    try:
        text = decoded(path.read_bytes())
        header = text.partition("\n")[0]
        separator = max(",;\t", key=header.count)
        table = from_csv(pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False))
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise KwsError(f"'{path}' can't be read: {reason}; it must be CSV with columns time_ms and word") from error
    for column in ("time_ms", "word"):
        if column not in table:
            raise KwsError(f"'{path}' has no column {column}; it has {', '.join(table.columns)}")
    if "end_ms" not in table:
        table["end_ms"] = table["time_ms"]
    for column in ("time_ms", "end_ms"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers < 0))
        if len(wrong):
            value = table[column].iloc[wrong[0]]
            raise KwsError(f"'{path}' row {wrong[0] + 2}: {column} must be a number of milliseconds, got '{value}'")
        table[column] = numbers.astype(float)
    table["word"] = table["word"].map(nfc).str.strip()
    wrong = np.flatnonzero((table["end_ms"] < table["time_ms"]) | (table["word"] == ""))
    if len(wrong):
        raise KwsError(f"'{path}' row {wrong[0] + 2}: needs a word, and end_ms not before time_ms")
    columns = ["time_ms", "end_ms", "word", *(name for name in (*CONDITIONS, FILE) if name in table)]
    return table[columns].sort_values("time_ms", kind="stable", ignore_index=True)
