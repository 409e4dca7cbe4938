"""What whole commands take beside their work: `train.py` to its first step, two runs at once, and `kws evaluate`.

    python -m benchmarks.commands [--clips-per-word 143] [--steps 60] [--repeats 3]

The clips are those of `benchmarks.full_size`, 35 words of them; a first training packs them. Then, in turns:

- `python train.py` to its first step, against a bare `import tensorflow`;
- two trainings at once with `threads.intra_op=1`, against one such training alone: clips/s of all steps but the first;
- `kws evaluate` on all clips, from the moment when TensorFlow is imported until its files are written, against the rate
  of the pipeline and the network by themselves in the same process.

Targets: a start of no more than 1.9 times the import; 1.6 times the clips/s; 0.8 of the rate.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated
from unittest import mock

import pandas as pd
import typer

from benchmarks.full_size import make_clips, training
from benchmarks.options import Repeats, machine, run, say_ratio
from benchmarks.sweep_start import seconds_of_import
from kws_data.errors import KwsError
from kws_experiments.console.output import say

SETTINGS = ["task=custom", "task.unknown=false", "augment=original", "report=false"]
START, TWO, EVALUATE = "a bare import of TensorFlow", "two runs at once", "kws evaluate"

# An evaluation that tells its seconds since TensorFlow was imported, and those of the pipeline and network among them.
EVALUATION = """
import sys, time
from pathlib import Path
from kws_experiments.config import tensorflow_setup
from kws_experiments.evaluation import evaluate_run, predict

def started(*args, **kwargs):
    global begun
    start(*args, **kwargs)
    begun = time.perf_counter()

def timed(*args):
    global inside
    begin = time.perf_counter()
    result = predict_all(*args)
    inside += time.perf_counter() - begin
    return result

inside = 0
start, tensorflow_setup.start = tensorflow_setup.start, started
predict_all, predict.predict = predict.predict, timed
folder, clips, out = sys.argv[1:]
evaluate_run.evaluate_run(Path(folder), clips, snrs_db=[], out=Path(out))
print("@", inside, time.perf_counter() - begun)
"""


def main(
    clips_per_word: Annotated[int, typer.Option(min=3, help="143: 5,005 clips")] = 143,
    steps: Annotated[int, typer.Option(min=2, help="of each of the trainings at once")] = 60,
    repeats: Repeats = 3,
) -> None:
    """What whole commands take beside their work: `train.py` to its first step, two runs at once, `kws evaluate`."""
    with tempfile.TemporaryDirectory(prefix="kws-commands-") as folder:
        show(measure(Path(folder), clips_per_word, steps, repeats))


def measure(folder: Path, clips_per_word: int, steps: int, repeats: int) -> pd.DataFrame:
    """The ratios: a row per round.

    Raises:
        KwsError: a training or an evaluation failed.
    """
    clips, whole = folder / "clips", folder / "run"
    make_clips(clips, clips_per_word)
    short = [*SETTINGS, "trainer=quick", f"trainer.steps={steps}", f"trainer.eval_every={steps}", "threads.intra_op=1"]
    rows = []
    with mock.patch.dict(os.environ, KWS_DATA=str(folder / "cache")):
        trained = [*SETTINGS, "trainer=quick", "dataset=folder", f"dataset.path={clips}"]
        _run("train.py", *trained, f"hydra.run.dir={whole}")
        for number in range(repeats):
            place = folder / str(number)
            bare = seconds_of_import()
            start = training(clips, place / "start", SETTINGS, last="first_step")["first_step"]
            alone = sum(rates(clips, [place / "alone"], short))
            both = sum(rates(clips, [place / "first", place / "second"], short))
            inside, evaluation = evaluate(whole, clips, place / "evaluation")
            rows.append({START: bare / start, TWO: both / alone, EVALUATE: inside / evaluation})
    return pd.DataFrame(rows)


def rates(clips: Path, folders: Sequence[Path], settings: Sequence[str]) -> list[float]:
    """Clips/s of each of several trainings at once, without its first step."""
    with ThreadPoolExecutor(len(folders)) as pool:
        results = pool.map(lambda folder: training(clips, folder, settings, last="evaluated"), folders)
        return [result["clips"] / (result["epoch"] - result["first_step"]) for result in results]


def evaluate(folder: Path, clips: Path, out: Path) -> tuple[float, float]:
    """Seconds of pipeline and network, and of the whole evaluation after the import of TensorFlow."""
    line = _run("-c", EVALUATION, str(folder), str(clips), str(out)).splitlines()[-1]
    inside, seconds = map(float, line.removeprefix("@").split())
    return inside, seconds


def _run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise KwsError(f"{arguments[0]} ended with status {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
    return done.stdout


def show(ratios: pd.DataFrame) -> None:
    """Print the ratios, the targets and the machine."""
    say_ratio(f"{START}, of train.py to its first step", ratios[START], "0.53 or more (1.9 times as long)")
    say_ratio(f"{TWO}, threads.intra_op=1, of one alone", ratios[TWO], "1.6 or more")
    say_ratio(f"{EVALUATE}, of pipeline and network alone", ratios[EVALUATE], "0.8 or more")
    say(machine())


if __name__ == "__main__":
    run(main)
