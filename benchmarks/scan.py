"""Seconds to scan a folder of clips: the first time, and again with the catalog cached.

    python -m benchmarks.scan [--clips 100000] [--repeats 3]

The folder is made for it, below the system's folder for temporary files (TMPDIR), and removed afterwards: 35 words,
files named as in Speech Commands, each a WAV header before a second of silence that takes no room where the file system
knows holes (else 32 KB a clip). The files were just written, so that the first scan finds them in the page cache; a
cold disk adds its own time. A scan with a warm cache still looks at every file's size and modification time.

Target: under 3 s with a warm cache for 100,000 clips, on 2 cores.
"""

from __future__ import annotations

import os
import statistics
import struct
import tempfile
import time
from pathlib import Path
from typing import Annotated
from unittest import mock

import typer
from tqdm import tqdm

from benchmarks.options import run, table
from kws_data.catalog import scan, usable
from kws_data.sources.words import V002_WORDS
from kws_data.storage.parallel import available_cpus
from kws_experiments.console.tables import Console

SAMPLE_RATE = 16_000
DATA_BYTES = 2 * SAMPLE_RATE  # one second, 16 bits, mono
TAKES = 2  # of each word by each speaker


def main(
    clips: Annotated[int, typer.Option(min=1, help="how many to make and scan")] = 100_000,
    repeats: Annotated[int, typer.Option(min=1, help="scans with a warm cache")] = 3,
) -> None:
    """Seconds to scan a folder of clips: the first time, and again with the catalog cached."""
    first, warm = measure(clips, repeats)
    printed = table(f"Scanning {clips:,} clips", ["scan"], ["seconds"])
    printed.add_row("first", f"{first:.2f}")
    printed.add_row("warm cache", f"{statistics.median(warm):.2f}")
    console = Console()
    console.print(printed)
    console.print(f"{available_cpus()} cores; warm: median of {len(warm)}; target for 100,000 clips: under 3 s warm")


def measure(num_clips: int, repeats: int) -> tuple[float, list[float]]:
    """Seconds of the first scan, and of `repeats` scans with a warm cache.

    Raises:
        OSError: no room for the folder.
    """
    with tempfile.TemporaryDirectory(prefix="kws-scan-") as folder:
        clips, cache = Path(folder, "clips"), Path(folder, "cache")
        make_clips(clips, num_clips)
        with mock.patch.dict(os.environ, KWS_DATA=str(cache)):
            seconds = []
            for _ in range(1 + repeats):
                start = time.perf_counter()
                catalog = scan(clips)
                seconds.append(time.perf_counter() - start)
                assert len(usable(catalog)) == num_clips
    return seconds[0], seconds[1:]


def make_clips(root: Path, num_clips: int) -> None:
    """Write `root/<word>/<speaker>_nohash_<n>.wav`; every path is another, and every file an inode of its own."""
    header = wav_header()
    for word in V002_WORDS:
        (root / word).mkdir(parents=True)
    for clip in tqdm(range(num_clips), desc="making clips", unit="clip", disable=None):
        take, word_number = divmod(clip, len(V002_WORDS))
        speaker, utterance = divmod(take, TAKES)
        # an odd factor: every speaker has another number, and their order in the folder is no order of writing
        name = f"{speaker * 2654435761 % 2**32:08x}_nohash_{utterance}.wav"
        with (root / V002_WORDS[word_number] / name).open("wb") as file:
            file.write(header)
            file.truncate(len(header) + DATA_BYTES)


def wav_header() -> bytes:
    """16-bit mono PCM: the 44 bytes that most programs write."""
    chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + DATA_BYTES, b"WAVE") + chunk + struct.pack("<4sI", b"data", DATA_BYTES)


if __name__ == "__main__":
    run(main)
