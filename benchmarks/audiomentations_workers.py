"""Clips per second of audiomentations in worker processes, against one process that runs the same Compose by itself.

    python -m benchmarks.audiomentations_workers [--workers 0,1,2] [--clips 2000] [--repeats 5]

The baseline, 'by itself', calls `compose(samples, sample_rate)` clip by clip and does nothing else: no seeding, no
conversion, no checks. Of two mixes, 'light' has the cheapest transforms, where every overhead shows; 'typical' adds two
filters. They are measured in turns; the table has medians over the rounds, and medians of the ratios within a round.

Target: with W workers, W at most the number of cores, 0.8 x W times the baseline.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from benchmarks.options import run, say_ratio, table
from kws_data.augment.audiomentations.stage import Audiomentations
from kws_data.augment.audiomentations.transform import build
from kws_data.augment.stage import ClipBatch, StageContext
from kws_data.draws import Draws
from kws_data.noise import NoiseBank
from kws_data.splits import TRAINING
from kws_data.storage.parallel import available_cpus
from kws_experiments.console.tables import Console

SAMPLE_RATE = 16_000  # and one-second clips
BATCH = 100
LIGHT = [
    {"_target_": "audiomentations.Gain", "p": 0.5},
    {"_target_": "audiomentations.Shift", "p": 0.5},
    {"_target_": "audiomentations.TanhDistortion", "p": 0.5},
    {"_target_": "audiomentations.AddGaussianSNR", "p": 0.5},
]
TYPICAL = [
    *LIGHT,
    {"_target_": "audiomentations.BandPassFilter", "p": 0.5},
    {"_target_": "audiomentations.SevenBandParametricEQ", "p": 0.5},
]
MIXES = {"light": LIGHT, "typical": TYPICAL}


def main(
    workers: Annotated[str, typer.Option(help="comma-separated")] = ",".join(map(str, range(available_cpus() + 1))),
    clips: Annotated[int, typer.Option(help="per measurement")] = 2000,
    repeats: Annotated[int, typer.Option(help="rounds")] = 5,
) -> None:
    """Clips per second of audiomentations in worker processes, against one process by itself."""
    counts = [int(text) for text in workers.split(",")]
    batches = max(1, clips // BATCH)
    printed = table("audiomentations", ["mix", "workers"], ["clips/s", "of one process by itself", "per worker"])
    per_worker = {}
    for name, transforms in MIXES.items():
        rates = measure({"_target_": "audiomentations.Compose", "transforms": transforms}, counts, batches, repeats)
        ratios = rates.div(rates["by itself"], axis=0)
        for column, rate in rates.median().items():
            each = None if column in ("by itself", 0) else ratios[column] / int(str(column))
            if each is not None:
                per_worker[f"{name}, {column} workers, of one process, per worker"] = each
            shown = "" if each is None else f"{each.median():.2f}"
            printed.add_row(name, str(column), f"{rate:,.0f}", f"{ratios[column].median():.2f}", shown)
    console = Console()
    console.print(printed)
    for name, each in per_worker.items():
        say_ratio(name, each, "0.8")
    console.print(f"{available_cpus()} cores, median of {repeats} rounds", soft_wrap=True)


def measure(config: dict[str, Any], workers: list[int], batches: int, repeats: int) -> pd.DataFrame:
    """Clips/s: a row per round, a column per number of workers, and 'by itself'."""
    compose = build(config, "transform")
    stages = {count: Audiomentations(config, count) for count in workers}
    pcm = (np.random.default_rng(0).normal(0, 0.1, (BATCH, SAMPLE_RATE)) * 32768).clip(-32768, 32767).astype(np.int16)
    rows = []
    try:
        for stage in stages.values():
            run_stage(stage, pcm, 2)  # starts the workers
        for _ in tqdm(range(repeats), desc="rounds", disable=None):
            row: dict[Any, float] = {"by itself": timed(lambda: by_itself(compose, pcm, batches), batches)}
            for count, stage in stages.items():
                row[count] = timed(lambda stage=stage: run_stage(stage, pcm, batches), batches)  # type: ignore[misc]
            rows.append(row)
    finally:
        for stage in stages.values():
            stage.close()
    return pd.DataFrame(rows)


def timed(work: Callable[[], None], batches: int) -> float:
    """Clips/s of `work`."""
    start = time.perf_counter()
    work()
    return batches * BATCH / (time.perf_counter() - start)


def by_itself(compose: Callable[..., np.ndarray], pcm: np.ndarray, batches: int) -> None:
    clips = pcm / np.float32(32768)
    for _ in range(batches):
        for clip in clips:
            compose(clip, SAMPLE_RATE)


def run_stage(stage: Audiomentations, pcm: np.ndarray, batches: int) -> None:
    """Run the stage as tf.data does, with two batches at once."""
    noise = NoiseBank([np.ones(100, np.int16)])
    context = StageContext(noise, TRAINING, SAMPLE_RATE, SAMPLE_RATE, np.arange(0), _no_partners)
    lengths, labels, silence = np.full(BATCH, SAMPLE_RATE, np.int32), np.zeros(BATCH, np.int32), np.zeros(BATCH, bool)

    def every_other(first: int) -> None:
        gathered = np.empty_like(pcm)
        for number in range(first, batches, 2):
            gathered[:] = pcm
            ids = np.arange(BATCH) + number * BATCH
            stage.prepare(ClipBatch(gathered, lengths, labels, ids, silence), Draws(0, 0, ids), context)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(every_other, range(2)))


def _no_partners(ids: np.ndarray) -> ClipBatch:
    raise AssertionError(f"audiomentations mixes no clips, but asked for {ids}")


if __name__ == "__main__":
    run(main)
