"""Clips per second of each stage between files and features, and of each augmentation, in one run with two baselines.

    python -m benchmarks.pipeline --data DIR [--features mfcc] [--augmentations all] [--threads N] [--repeats 5]

The stages are `kws_data.pipeline.batches` as training calls it (all words and the silence class, `augment=original`:
shift by up to 100 ms, noise at volumes up to 0.1 in 80 % of the clips), each with one step more than the one before.
Then the features by themselves, with each augmentation of `conf/augment/` by itself, and with each ready mix;
audiomentations, whose speed is that of the chosen transforms, has a benchmark of its own. The baselines:

- *bare rFFT*: `tf.signal.rfft` of the same windowed frames, from int16 batches that lie ready in memory; and the same
  a few clips at a time, whose results stay in the processor's caches: what the transform alone can give here;
- *keras + STFT*: `keras.utils.audio_dataset_from_directory` and the spectrogram of TensorFlow's simple_audio tutorial,
  over the same files.

All stages take turns, round after round, so that another program's load falls on all alike; the table holds medians
over the rounds, of clips/s and of the ratios within a round. Files come from the page cache: a first round, to warm up,
is not counted.

Targets, for mfcc with 2 threads on 2 cores, of the bare rFFT's rate: `original` no less than 0.5 (0.6 as the stretch),
`bc_resnet` no less than 0.45. `strong`, of the features without augmentation: no less than 0.65.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from unittest import mock

import pandas as pd
import typer
from tqdm import tqdm

from benchmarks.baselines import SAMPLE_RATE, bare_rfft, decoded_files, keras_stft
from benchmarks.options import ALL_CORES, Batch, Repeats, Seconds, Threads, machine, run, say_ratio, table
from kws_data.catalog import BACKGROUND_NOISE, scan, usable
from kws_data.errors import KwsError
from kws_data.splits import TRAINING
from kws_data.store import open_store
from kws_experiments.config.compose import CONF, compose
from kws_experiments.console.tables import Console
from kws_experiments.experiment.experiment import Experiment

if TYPE_CHECKING:
    import tensorflow as tf

STORE_CLIPS = 5_000  # clips that the store is built from in each round, at most: 160 MB
PIECE_CLIPS = 8  # 98 frames of 257 complex64 each: 1.6 MB
READ, BUILD = "read + decode files", "build the store"
IN_ORDER, SHUFFLED, AUGMENTED, FULL = "store: gather", "store: shuffle + gather", "+ noise and shift", "+ features"
ALONE, ORIGINAL = "features alone", "augment=original"
BARE, PIECES, KERAS = "bare rFFT", "bare rFFT in pieces", "keras + STFT"
TARGETS = {ORIGINAL: "0.50, stretch 0.60", "augment=bc_resnet": "0.45"}
STRONG = "augment=strong"
DATA = Path("../shared/speech_commands_subset")
SINGLE_SHARE = 0.4  # of --seconds, for each measurement of the many rows with one augmentation

Rate = Callable[[], float]  # runs one stage for a while: clips/s


@dataclass(frozen=True)
class Options:
    """What to measure: augmentations by name, and the rest as on the command line."""

    data: Path
    features: str
    augmentations: list[str]
    batch_size: int
    threads: int
    repeats: int
    seconds: float


def main(
    data: Annotated[Path, typer.Option(envvar="KWS_REAL_DATA", help="a folder of clips")] = DATA,
    features: Annotated[str, typer.Option(help="one of conf/features/")] = "mfcc",
    augmentations: Annotated[str, typer.Option(help="comma-separated names of conf/augment/, all or none")] = "all",
    batch_size: Batch = 100,
    threads: Threads = ALL_CORES,
    repeats: Repeats = 5,
    seconds: Seconds = 0.6,
) -> None:
    """Clips/s of each stage between files and features, and of each augmentation, in one run with two baselines."""
    options = Options(data, features, chosen_augmentations(augmentations), batch_size, threads, repeats, seconds)
    show(measure(options), options)


def measure(options: Options) -> pd.DataFrame:
    """Clips/s: a row per round, a column per stage.

    Raises:
        KwsError: there is no data, or not of the kind that the baselines can read.
    """
    if not options.data.is_dir():
        raise KwsError(f"--data: no folder '{options.data}'; give one that holds a folder of one-second WAVs per word")
    experiment = configuration(options, ORIGINAL)
    experiment.start_tensorflow()
    import tensorflow as tf

    stages = build_stages(options, experiment)
    rows = []
    with tqdm(total=(options.repeats + 1) * len(stages), unit="measurement", disable=None) as bar:
        for round_number in range(options.repeats + 1):
            row = {}
            for name, rate in stages.items():
                bar.set_description(name)
                try:
                    row[name] = rate()
                except tf.errors.InvalidArgumentError as error:
                    if name not in (READ, KERAS):
                        raise
                    reason = " ".join(error.message.split())
                    raise KwsError(f"--data: tf.audio cannot decode a file in '{options.data}': {reason}") from error
                bar.update()
            if round_number:  # the first warms up: graphs are traced, files come into the page cache
                rows.append(row)
    rates = pd.DataFrame(rows)
    if ORIGINAL in options.augmentations:
        rates[ORIGINAL] = rates[FULL]  # the same thing
    return rates


def configuration(options: Options, *augment: str) -> Experiment:
    """The experiment with these augmentations: all words of the data set and silence, all clips for training.

    Raises:
        KwsError: there are no such features.
    """
    return Experiment(compose([
        f"features={options.features}", *augment, "task=custom", "task.unknown=false", "split=random",
        "split.validation_percentage=0", "split.testing_percentage=0", f"sample_rate={SAMPLE_RATE}",
        f"threads.intra_op={options.threads}", f"trainer.batch_size={options.batch_size}",
    ]))  # fmt: skip


def known_augmentations() -> dict[str, list[str]]:
    """What is measured by name, as the overrides that choose it: the stages one by one, then the ready mixes."""
    stages = {
        path.stem: ["augment=none", f"+augment/{kind}={path.stem}"]
        for kind in ("waveform", "features")
        for path in sorted((CONF / "augment" / kind).glob("*.yaml"))
        if path.stem != "audiomentations"
    }
    mixes = {f"augment={path.stem}" for path in (CONF / "augment").glob("*.yaml")} - {"augment=none", ORIGINAL}
    return stages | {mix: [mix] for mix in (ORIGINAL, *sorted(mixes))}


def chosen_augmentations(text: str) -> list[str]:
    """The names of `known_augmentations` that `--augmentations` names, in their order; a mix may do without augment=.

    Raises:
        KwsError: one is not known.
    """
    known = list(known_augmentations())
    names = known if text == "all" else [] if text == "none" else text.split(",")
    names = [f"augment={name}" if f"augment={name}" in known else name for name in names]
    if unknown := [name for name in names if name not in known]:
        choices = ", ".join(name.removeprefix("augment=") for name in known)
        raise KwsError(f"--augmentations: must be all, none or some of {choices}, got '{unknown[0]}'")
    return [name for name in known if name in names]


def build_stages(options: Options, experiment: Experiment) -> dict[str, Rate]:
    """All stages by name, in the table's order."""
    from kws_data.batches import BatchPlan
    from kws_data.pipeline import batches, training_plan

    catalog = usable(scan(options.data))
    clips = catalog[catalog["word"] != BACKGROUND_NOISE]
    if not (clips["path"].str.lower().str.endswith(".wav") & (clips["sample_rate"] == SAMPLE_RATE)).all():
        raise KwsError(f"--data: the baselines read WAVs at {SAMPLE_RATE} Hz only, and '{options.data}' holds others")
    paths = [str(options.data / path) for path in clips["path"]]
    words = sorted(set(clips["word"]))
    features, corpus = experiment.features, experiment.corpus(options.data)
    source = experiment.clip_source(corpus, experiment.task.examples(corpus, experiment.data_seed))
    in_order = BatchPlan(source.ids(TRAINING), options.batch_size, seed=None)
    shuffled = training_plan(source, options.batch_size)

    def stream(plan: BatchPlan, share: float = 1.0, **steps: Any) -> Rate:
        dataset = batches(source, TRAINING, plan, **steps, steps=1_000_000_000, threads=options.threads)
        return Stream(dataset, share * options.seconds)

    def augmented(name: str) -> Rate:
        augmentation = configuration(options, *known_augmentations()[name]).augmentation
        share = 1.0 if name in (*TARGETS, STRONG) else SINGLE_SHARE
        return stream(shuffled, share, augmentation=augmentation, features=features)

    original = experiment.augmentation
    return {
        READ: Stream(decoded_files(paths, options.batch_size, options.threads), options.seconds),
        BUILD: StoreBuild(options.data, catalog.head(STORE_CLIPS)),
        IN_ORDER: stream(in_order),
        SHUFFLED: stream(shuffled),
        AUGMENTED: stream(shuffled, augmentation=original),
        FULL: stream(shuffled, augmentation=original, features=features),
        ALONE: stream(shuffled, features=features),
        **{name: augmented(name) for name in options.augmentations if name != ORIGINAL},
        BARE: Stream(bare_rfft(source, features, options.batch_size, options.threads), options.seconds),
        PIECES: Stream(bare_rfft(source, features, PIECE_CLIPS, options.threads), options.seconds),
        KERAS: Stream(keras_stft(options.data, words, options.batch_size, options.threads), options.seconds),
    }


@dataclass
class Stream:
    """The rate of an endless dataset of batches."""

    dataset: tf.data.Dataset
    seconds: float
    num_batches: int = 0  # per measurement, chosen by the first call for about `seconds`

    def __call__(self) -> float:
        """Clips/s of a fresh iterator, after its buffers have come to the state that they stay in."""
        if not self.num_batches:
            self.num_batches = 4
            batch_seconds = min(self._run() for _ in range(2))[0]
            self.num_batches = max(4, math.ceil(self.seconds / batch_seconds))
        seconds, clips = self._run()
        return clips / seconds

    def _run(self) -> tuple[float, float]:
        """(seconds, clips) per batch."""
        import tensorflow as tf

        iterator = iter(self.dataset)
        for _ in range(max(4, self.num_batches // 4)):
            next(iterator)
        clips, start = 0, time.perf_counter()
        for _ in range(self.num_batches):
            clips += int(tf.nest.flatten(next(iterator))[0].shape[0])
        return (time.perf_counter() - start) / self.num_batches, clips / self.num_batches


@dataclass
class StoreBuild:
    """The rate of decoding a catalog's files into a store, in a cache folder of its own that is then removed."""

    root: Path
    catalog: pd.DataFrame

    def __call__(self) -> float:
        """Clips/s."""
        with (
            tempfile.TemporaryDirectory() as cache,
            mock.patch.dict(os.environ, KWS_DATA=cache),
            contextlib.redirect_stderr(io.StringIO()),  # no bar of its own below ours
        ):
            start = time.perf_counter()
            open_store(self.root, self.catalog, SAMPLE_RATE)
            return len(self.catalog) / (time.perf_counter() - start)


def show(rates: pd.DataFrame, options: Options) -> None:
    """Print the medians, the ratios and the machine."""
    import tensorflow as tf

    order = [name for name in rates if name not in (*options.augmentations, BARE, PIECES, KERAS)]
    sections = [order, list(options.augmentations), [BARE, PIECES, KERAS]]
    per_bare, per_keras = (rates.div(rates[name], axis=0) for name in (BARE, KERAS))
    printed = table("Input pipeline", ["stage"], ["clips/s", f"of {BARE}", f"of {KERAS}"])
    for section in sections:
        for name in section:
            label = f"{name} ({options.features})" if name in (FULL, ALONE) else name
            ratios = (f"{ratio[name].median():.3f}" for ratio in (per_bare, per_keras))
            printed.add_row(label, f"{rates[name].median():,.0f}", *ratios)
        printed.add_section()
    console = Console()
    console.print(printed)
    for name, target in TARGETS.items():
        ratio = per_bare.get(FULL if name == ORIGINAL else name)
        if ratio is not None:
            say_ratio(f"{options.features}, {name}, of the bare rFFT", ratio, f"{target} (mfcc, 2 threads on 2 cores)")
    if STRONG in rates:
        say_ratio(f"{options.features}, {STRONG}, of augment=none", rates[STRONG] / rates[ALONE], "0.65 or more")
    console.print(
        f"{machine()}, TensorFlow {tf.__version__}, {options.threads} threads,"
        f" batches of {options.batch_size}, median of {len(rates)} rounds",
        soft_wrap=True,
    )


if __name__ == "__main__":
    run(main)
