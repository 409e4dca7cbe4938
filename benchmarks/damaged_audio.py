"""Read damaged audio files: how many crash the reader, how much memory they take, and which is the slowest.

    python -m benchmarks.damaged_audio [--files 1000] [--seed 0] [--clips FOLDER] [--keep FOLDER]

Each file is a clip in one of many containers and codecs, then cut, flipped, overwritten, joined, renamed, or given
another header, by a generator with a seed: file number 17 of seed 0 is the same everywhere. A child process reads them
one by one, so that a crash of a decoder is counted too. A file must be set aside with a reason, or give samples.

Target: no crash, and at most 50 MB beyond the decoded samples for any file.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import psutil
import soundfile
import typer

from benchmarks.options import run, table
from kws_data.audio import UnreadableAudioError, read_header, read_pcm
from kws_experiments.console.tables import Console

SAMPLE_RATE = 16_000
MOST_MB = 50
TIMEOUT_S = 60  # for one file
FORMATS: list[tuple[str, str, str]] = [
    (".wav", "WAV", subtype)
    for subtype in (
        "PCM_16", "PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610",
        "G721_32", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32",
    )
] + [
    (".wav", "WAVEX", "PCM_16"), (".wav", "RF64", "PCM_16"), (".wav", "W64", "PCM_16"), (".wav", "W64", "IMA_ADPCM"),
    (".wav", "AIFF", "PCM_16"), (".wav", "AIFF", "FLOAT"), (".wav", "AU", "PCM_16"), (".wav", "AU", "G721_32"),
    (".wav", "CAF", "PCM_16"), (".wav", "CAF", "ALAC_16"), (".wav", "NIST", "PCM_16"), (".wav", "SVX", "PCM_16"),
    (".wav", "VOC", "PCM_16"), (".wav", "MAT5", "PCM_16"), (".wav", "SDS", "PCM_16"), (".wav", "XI", "DPCM_16"),
    (".flac", "FLAC", "PCM_16"), (".flac", "FLAC", "PCM_24"), (".ogg", "OGG", "VORBIS"), (".opus", "OGG", "OPUS"),
    (".mp3", "MP3", "MPEG_LAYER_III"), (".mp3", "MP3", "MPEG_LAYER_III"), (".mp3", "MP3", "MPEG_LAYER_III"),
]  # fmt: skip
_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_RATES = (8000, 11025, 16000, 22050, 44100, 48000)
_SIZES = (0, 1, 100, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


class DamagedFile(NamedTuple):
    """A file to read; `damage` says what was done to it."""

    name: str
    content: bytes
    damage: str


def damaged_file(number: int, seed: int, clips: Sequence[Path]) -> DamagedFile:
    """File `number` of a seed, made of real clips, or of tones where there are none."""
    rng = np.random.default_rng([seed, number])
    suffix, container, subtype = FORMATS[rng.integers(len(FORMATS))]
    content = _written(rng, clips, container, subtype)
    damage = list(_DAMAGES)[rng.integers(len(_DAMAGES))]
    content = bytes(_DAMAGES[damage](rng, bytearray(content), lambda: _written(rng, clips, container, subtype)))
    if rng.random() < 0.2:
        suffix = _SUFFIXES[rng.integers(len(_SUFFIXES))]
    return DamagedFile(f"{number:05d}-{container}-{subtype}{suffix}".lower(), content, damage)


def _written(rng: np.random.Generator, clips: Sequence[Path], container: str, subtype: str) -> bytes:
    if clips:
        samples, _ = soundfile.read(clips[rng.integers(len(clips))])
    else:
        samples = 0.3 * np.sin(np.arange(SAMPLE_RATE) * rng.uniform(0.02, 0.5))
    samples = samples[: rng.integers(1, len(samples) + 1)] if rng.random() < 0.3 else samples
    if subtype in ("FLOAT", "DOUBLE"):
        with np.errstate(over="ignore"):
            samples = samples * rng.choice([1.0, 1.0, 1.4, 3.0, 32768.0, 2.0**31, 1e37, 1e39])
        samples[rng.integers(len(samples))] = rng.choice([0.0, 0.0, np.nan, np.inf, -np.inf, 3.4e38])
    channels = 1 if subtype in ("GSM610", "G721_32") or "NMS" in subtype else int(rng.choice([1, 1, 1, 2, 6]))
    rate = 48000 if subtype == "OPUS" else int(rng.choice(_RATES))
    file = io.BytesIO()
    try:
        soundfile.write(file, np.stack([samples] * channels, axis=1), rate, format=container, subtype=subtype)
    except soundfile.LibsndfileError:  # this container cannot hold so many channels, or this rate
        file = io.BytesIO()
        soundfile.write(file, samples, SAMPLE_RATE, format=container, subtype=subtype)
    return file.getvalue()


def _undamaged(_: np.random.Generator, content: bytearray, __: Callable[[], bytes]) -> bytearray:
    return content


def _cut(rng: np.random.Generator, content: bytearray, _: Callable[[], bytes]) -> bytearray:
    return content[: rng.integers(len(content))]


def _flipped(rng: np.random.Generator, content: bytearray, _: Callable[[], bytes]) -> bytearray:
    for place in rng.integers(len(content), size=2 ** rng.integers(8)):
        content[place] ^= 1 << rng.integers(8)
    return content


def _other_header(rng: np.random.Generator, content: bytearray, _: Callable[[], bytes]) -> bytearray:
    for place in rng.integers(min(200, len(content)), size=rng.integers(1, 5)):
        content[place] = rng.integers(256)
    return content


def _other_number(rng: np.random.Generator, content: bytearray, _: Callable[[], bytes]) -> bytearray:
    """A size, rate or count of the header, at any place that could hold one."""
    place = 2 * rng.integers(min(100, len(content) // 2 - 4))
    number = int(rng.choice(_SIZES)) if rng.random() < 0.7 else int(rng.integers(2**32))
    content[place : place + 4] = number.to_bytes(4, "little" if rng.random() < 0.7 else "big")
    return content


def _overwritten(rng: np.random.Generator, content: bytearray, _: Callable[[], bytes]) -> bytearray:
    place, count = rng.integers(len(content)), rng.integers(1, 5000)
    piece = content[place : place + count]
    content[place : place + count] = bytes(len(piece)) if rng.random() < 0.5 else rng.bytes(len(piece))
    return content


def _inserted(rng: np.random.Generator, content: bytearray, _: Callable[[], bytes]) -> bytearray:
    place = rng.integers(len(content))
    content[place:place] = rng.bytes(rng.integers(1, 3000))
    return content


def _deleted(rng: np.random.Generator, content: bytearray, _: Callable[[], bytes]) -> bytearray:
    place = rng.integers(len(content))
    del content[place : place + rng.integers(1, 3000)]
    return content


def _joined(rng: np.random.Generator, content: bytearray, more: Callable[[], bytes]) -> bytearray:
    for _ in range(rng.integers(1, 4)):
        content += more()
    return content


def _padded(rng: np.random.Generator, content: bytearray, _: Callable[[], bytes]) -> bytearray:
    return content + (bytes(rng.integers(1, 9000)) if rng.random() < 0.5 else rng.bytes(rng.integers(1, 9000)))


def _prefixed(rng: np.random.Generator, content: bytearray, _: Callable[[], bytes]) -> bytearray:
    if rng.random() < 0.5:
        return bytearray(b"ID3\x04\0\0" + bytes([0, 0, *divmod(200, 128)]) + bytes(200)) + content
    return bytearray(rng.bytes(rng.integers(1, 3000))) + content


def _noise(rng: np.random.Generator, content: bytearray, _: Callable[[], bytes]) -> bytearray:
    kept = rng.integers(4, 64)
    return content[:kept] + rng.bytes(len(content))


_DAMAGES: dict[str, Callable[[np.random.Generator, bytearray, Callable[[], bytes]], bytearray]] = {
    "none": _undamaged,
    "cut": _cut,
    "bits flipped": _flipped,
    "header bytes": _other_header,
    "header number": _other_number,
    "overwritten": _overwritten,
    "inserted": _inserted,
    "deleted": _deleted,
    "joined": _joined,
    "padded": _padded,
    "prefixed": _prefixed,
    "noise": _noise,
}


class Outcome(NamedTuple):
    """What came of one file: `error` is the reason why it is set aside, `crash` what else was raised."""

    samples: int = 0
    error: str = ""
    crash: str = ""
    seconds: float = 0.0
    extra_mb: float = 0.0


def read_one(path: Path) -> Outcome:
    """Read a file as the catalog and the store do, and measure its peak memory beyond its samples (on Linux)."""
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if clear.exists():
        clear.write_text("5")  # the peak begins anew
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    samples, error, crash = 0, "", ""
    try:
        read_header(path)
        samples = len(read_pcm(path, SAMPLE_RATE))
    except UnreadableAudioError as reason:
        error = str(reason)
    except BaseException as reason:
        crash = f"{type(reason).__name__}: {reason}"
    seconds = time.perf_counter() - start
    peak = before
    if status.exists():
        peak = 1024 * int(next(line.split()[1] for line in status.read_text().splitlines() if line[:6] == "VmHWM:"))
    return Outcome(samples, error, crash, seconds, max(0.0, (peak - before - 2 * samples) / 1e6))


def read_all(paths: Sequence[Path]) -> list[Outcome]:
    """Read files in a child process, which is started again where it died."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(paths):
        rest = paths[len(outcomes) :]
        command = [sys.executable, "-m", "benchmarks.damaged_audio", "--child", *map(str, rest)]
        child = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S * len(rest), check=False
        )
        lines = [line for line in child.stdout.splitlines() if line.startswith("[")]
        outcomes += [Outcome(*json.loads(line)) for line in lines]
        if child.returncode and len(lines) < len(rest):
            outcomes.append(Outcome(crash=f"the process ended with status {child.returncode}: {child.stderr[-200:]}"))
    return outcomes


def main(
    files: Annotated[int, typer.Option(min=1, help="how many to make and read")] = 1000,
    seed: Annotated[int, typer.Option(help="of the damage")] = 0,
    clips: Annotated[Path | None, typer.Option(help="a folder of clips to damage; default: tones")] = None,
    keep: Annotated[Path | None, typer.Option(help="a folder to keep the files in")] = None,
) -> None:
    """Read damaged audio files: crashes, peak memory, slowest file."""
    real = [] if clips is None else sorted(clips.rglob("*.wav"))[::7]
    with tempfile.TemporaryDirectory(prefix="kws-damaged-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        made = [damaged_file(number, seed, real) for number in range(files)]
        for file in made:
            (folder / file.name).write_bytes(file.content)
        outcomes = read_all([folder / file.name for file in made])
    show(made, outcomes)
    crashes = sum(bool(outcome.crash) for outcome in outcomes)
    raise typer.Exit(1 if crashes or max(outcome.extra_mb for outcome in outcomes) > MOST_MB else 0)


def show(made: Sequence[DamagedFile], outcomes: Sequence[Outcome]) -> None:
    """Print a row per damage, then the worst files."""
    printed = table(f"Reading {len(made):,} damaged files", ["damage"], ["files", "read", "set aside", "crashes"])
    for damage in dict.fromkeys(sorted(file.damage for file in made)):
        rows = [outcome for file, outcome in zip(made, outcomes, strict=True) if file.damage == damage]
        good, aside, crashes = (sum(bool(row[field]) for row in rows) for field in range(3))
        printed.add_row(damage, str(len(rows)), str(good), str(aside), str(crashes))
    console = Console()
    console.print(printed)
    for file, outcome in zip(made, outcomes, strict=True):
        if outcome.crash:
            console.print(f"{file.name} ({file.damage}): {outcome.crash}", markup=False)
    named: list[tuple[Any, str]] = [(outcome, file.name) for file, outcome in zip(made, outcomes, strict=True)]
    slowest, largest = (max(named, key=lambda item, field=field: item[0][field]) for field in (3, 4))
    console.print(f"crashes: {sum(bool(outcome.crash) for outcome in outcomes)}")
    console.print(f"peak memory beyond the samples: {largest[0].extra_mb:.1f} MB ({largest[1]}); target {MOST_MB} MB")
    console.print(f"slowest: {slowest[0].seconds:.3f} s ({slowest[1]})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        for argument in sys.argv[2:]:
            print(json.dumps(read_one(Path(argument))), flush=True)
    else:
        run(main)
