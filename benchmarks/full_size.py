"""A training on as many clips as Speech Commands v0.02 has: its start, its rate, its memory and its disk.

    python -m benchmarks.full_size [--clips-per-word 3024] [--folder DIR]

The clips are made for it, below the system's folder for temporary files (TMPDIR), and removed afterwards: 35 words,
files named as in Speech Commands, each a WAV of one second, a tone under noise. The whole set takes 3.4 GB, and its
store as much again. Then, each in a process of its own:

- *cat + soundfile*, the baseline: every file is read, then decoded by soundfile, on the same cores;
- scan and pack, as the first run does;
- a training, from nothing to its first step, and from a warm cache through an epoch with `augment=original`; and from
  a warm cache on a small set.

The files were just written, so that they are found in the page cache as far as it has room. Each figure is printed as
soon as it is known, since the whole takes many minutes.

Targets, on 2 cores: packing at no less than 0.7 of the baseline, a warm start within 3 s of a small set's, and no more
than 1.5 GB of the process's own memory (without mapped files).
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated
from unittest import mock

import numpy as np
import soundfile
import typer

from benchmarks.options import machine, run
from benchmarks.scan import SAMPLE_RATE, wav_header
from kws_data.catalog import scan, usable
from kws_data.errors import KwsError
from kws_data.sources.words import V002_WORDS
from kws_data.storage.parallel import map_chunks
from kws_data.store import open_store
from kws_experiments.console.tables import Console

TAKES = 2  # of each word by each speaker
SMALL = 20  # clips per word of the small set
NOISE_SECONDS = 60
FIGURES = {
    "baseline": "cat + soundfile: {:,.0f} clips/s",
    "scan": "scan: {:.2f} s",
    "pack": "pack: {:,.0f} clips/s",
    "nothing": "from nothing to the first step: {:.1f} s",
    "disk": "cache on disk: {:,.0f} MB",
    "small": "from a warm cache to the first step, of a small set: {:.1f} s",
    "warm": "from a warm cache to the first step: {:.1f} s",
    "epoch": "an epoch with augment=original: {:,.0f} clips/s",
    "memory": "memory of its own: {:,.0f} MB",
}
SETTINGS = ["task=custom", "task.unknown=false", "augment=original", "trainer.epochs=1", "report=false"]

# A training that tells when it passes by, and the most memory of its own that it had.
DRIVER = """
import os, sys, threading, time
from pathlib import Path
from kws_experiments.config import tensorflow_setup

peak, begun, clips = 0, False, 0

def watch():
    global peak
    while True:
        status = Path("/proc/self/status").read_text()
        peak = max(peak, int(status.split("RssAnon:")[1].split()[0]))
        time.sleep(0.1)

def started(*args, **kwargs):
    start(*args, **kwargs)
    from kws_experiments.training import loop, step as training_step
    step, evaluate = training_step.TrainingStep.__call__, loop.evaluate
    def counted(self, batch):
        global begun, clips
        result = step(self, batch)
        if begun:
            clips += len(batch["ids"])
        else:  # which builds the graph: its time is not the epoch's
            print("@first_step", flush=True)
            begun = True
            if last == "first_step":
                os._exit(0)
        return result
    def evaluated(*args):
        print("@epoch", clips, flush=True)
        result = evaluate(*args)
        print("@evaluated", peak, flush=True)
        os._exit(0)
    training_step.TrainingStep.__call__, loop.evaluate = counted, evaluated

threading.Thread(target=watch, daemon=True).start()
start, tensorflow_setup.start = tensorflow_setup.start, started
last = sys.argv.pop(1)
from kws_experiments.cli.train import main
main()
"""


def main(
    clips_per_word: Annotated[int, typer.Option(min=3, help="3,024 as in the full set")] = 3_024,
    folder: Annotated[Path | None, typer.Option(help="for the clips and the store; None: a temporary one")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="of TensorFlow; None: one a core")] = None,
) -> None:
    """A training on as many clips as Speech Commands v0.02 has: its start, its rate, its memory and its disk."""
    with tempfile.TemporaryDirectory(prefix="kws-full-size-", dir=folder) as temporary:
        show(measure(Path(temporary), clips_per_word, threads), len(V002_WORDS) * clips_per_word)


def measure(folder: Path, clips_per_word: int, threads: int | None = None) -> Iterator[tuple[str, float]]:
    """The names of `FIGURES` and their seconds, clips/s and megabytes, each once it is known.

    Raises:
        KwsError: a training ended before its evaluation.
        OSError: no room for the clips.
    """
    clips, small = folder / "clips", folder / "small"
    count = len(V002_WORDS) * clips_per_word
    make_clips(clips, clips_per_word)
    make_clips(small, min(SMALL, clips_per_word))
    os.sync()  # so that writing the clips takes no time from what is measured
    settings = [*SETTINGS, *([] if threads is None else [f"threads.intra_op={threads}"])]
    paths = sorted(clips.glob("[!_]*/*.wav"))
    yield "baseline", count / _seconds(lambda: list(map_chunks(read_and_decode, paths, "baseline")))
    with mock.patch.dict(os.environ, KWS_DATA=str(folder / "packed")):
        yield "scan", _seconds(lambda: scan(clips))
        catalog = usable(scan(clips))
        yield "pack", count / _seconds(lambda: open_store(clips, catalog, SAMPLE_RATE))
    shutil.rmtree(folder / "packed")  # the first training packs them again
    with mock.patch.dict(os.environ, KWS_DATA=str(folder / "cache")):
        yield "nothing", training(clips, folder / "first", settings, last="first_step")["first_step"]
        yield "disk", sum(path.stat().st_blocks * 512 for path in (folder / "cache").rglob("*")) / 1e6
        training(small, folder / "small_first", settings, last="evaluated")
        yield "small", training(small, folder / "small_again", settings, last="first_step")["first_step"]
        whole = training(clips, folder / "again", settings, last="evaluated")
    yield "warm", whole["first_step"]
    yield "epoch", whole["clips"] / (whole["epoch"] - whole["first_step"])
    yield "memory", 1024 * whole["peak_kib"] / 1e6


def training(root: Path, run_folder: Path, settings: Sequence[str], *, last: str) -> dict[str, float]:
    """Seconds from the process's start to its `first_step`, `epoch` and `evaluated`; `clips` and `peak_kib`."""
    command = [sys.executable, "-c", DRIVER, last, *settings, "dataset=folder", f"dataset.path={root}"]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*command, f"hydra.run.dir={run_folder}"],
        env=os.environ | {"PYTHONUNBUFFERED": "1"}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    result, output = {}, ""
    for line in process.stdout:
        output = line.strip() or output
        name, *value = line.removeprefix("@").split() if line.startswith("@") else [""]
        if name:
            result[name] = time.perf_counter() - begin
        if value:
            result[{"epoch": "clips", "evaluated": "peak_kib"}[name]] = float(value[0])
    process.wait()
    if last not in result:
        raise KwsError(f"the training ended too early: {output}")
    return result


def make_clips(root: Path, clips_per_word: int) -> None:
    """Write `root/<word>/<speaker>_nohash_<n>.wav`, and a recording in `root/_background_noise_`."""
    (root / "_background_noise_").mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 1000, NOISE_SECONDS * SAMPLE_RATE).astype(np.int16)
    soundfile.write(root / "_background_noise_" / "noise.wav", noise, SAMPLE_RATE)
    for word in V002_WORDS:
        (root / word).mkdir()
    for _ in map_chunks(partial(_write_clips, root, noise), range(len(V002_WORDS) * clips_per_word), "making clips"):
        pass


def _write_clips(root: Path, noise: np.ndarray, numbers: Sequence[int]) -> None:
    header, seconds = wav_header(), np.arange(SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
    for number in numbers:
        take, word = divmod(number, len(V002_WORDS))
        speaker, utterance = divmod(take, TAKES)
        random = np.random.default_rng(number)
        start = random.integers(len(noise) - SAMPLE_RATE)
        tone = 8000 * np.sin(2 * np.pi * np.float32(200 + 100 * word + random.uniform(0, 50)) * seconds)
        name = f"{speaker * 2654435761 % 2**32:08x}_nohash_{utterance}.wav"
        samples = tone.astype("<i2") + noise[start : start + SAMPLE_RATE]
        (root / V002_WORDS[word] / name).write_bytes(header + samples.tobytes())


def read_and_decode(paths: Sequence[Path]) -> None:
    """What no program that packs clips can do without."""
    for path in paths:
        soundfile.read(io.BytesIO(path.read_bytes()), dtype="int16")


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def show(figures: Iterator[tuple[str, float]], count: int) -> None:
    """Print each figure as it comes, then the ratios, the targets and the machine."""
    console = Console()
    console.print(f"Training on {count:,} clips")
    result = {}
    for name, figure in figures:
        result[name] = figure
        console.print(FIGURES[name].format(figure), soft_wrap=True)
    for line in (
        f"packing: {result['pack'] / result['baseline']:.2f} of cat + soundfile; target: no less than 0.7",
        f"warm start: {result['warm'] - result['small']:+.1f} s against a small set's; target: within 3 s",
        f"memory of its own: {result['memory'] / 1e3:.2f} GB; target: under 1.5 GB",
        machine(),
    ):
        console.print(line, soft_wrap=True)


if __name__ == "__main__":
    run(main)
