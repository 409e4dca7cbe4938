"""Clips per second of each stage between files and features, in one run with two baselines.

    python -m benchmarks.pipeline --data DIR [--features mfcc] [--batch-size 100] [--threads N] [--repeats 5]

The stages are `kws_data.pipeline.batches` as training calls it (all words and the silence class, shift by up to 100 ms,
noise at volumes up to 0.1 in 80 % of the clips), each with one step more than the one before. The baselines:

- *bare rFFT*: `tf.signal.rfft` of the same windowed frames, from int16 batches that lie ready in memory; and the same
  a few clips at a time, whose results stay in the processor's caches: what the transform alone can give here;
- *keras + STFT*: `keras.utils.audio_dataset_from_directory` and the spectrogram of TensorFlow's simple_audio tutorial,
  over the same files.

All stages take turns, round after round, so that another program's load falls on all alike; the table holds medians
over the rounds, of clips/s and of the ratios within a round. Files come from the page cache: a first round, to warm up,
is not counted.

Target, with 2 threads on 2 cores: MFCC with noise and shift at no less than 0.35 of the bare rFFT's rate.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pandas as pd
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from kws_data.catalog import BACKGROUND_NOISE, scan, usable
from kws_data.corpus import build_corpus
from kws_data.errors import KwsError
from kws_data.parallel import available_cpus
from kws_data.splits import TRAINING
from kws_data.store import open_store
from kws_experiments import tensorflow_setup
from kws_experiments.config import compose, instantiate

if TYPE_CHECKING:
    import tensorflow as tf

    from kws_data.features.base import FeatureLayer
    from kws_data.pipeline import ClipSource

SAMPLE_RATE = CLIP_SAMPLES = 16_000  # one-second clips
STORE_CLIPS = 10_000  # clips that the store is built from in each round, at most: 320 MB
BARE_CLIPS = 2_000  # clips that the bare rFFT goes round in, at most: 64 MB
PIECE_CLIPS = 8  # 98 frames of 257 complex64 each: 1.6 MB
READ, BUILD = "read + decode files", "build the store"
IN_ORDER, SHUFFLED, AUGMENTED, FULL = "store: gather", "store: shuffle + gather", "+ noise and shift", "+ features"
BARE, PIECES, KERAS = "bare rFFT", "bare rFFT in pieces", "keras + STFT"

Rate = Callable[[], float]  # runs one stage for a while: clips/s


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    tensorflow_setup.quiet()
    try:
        rates = measure(options)
    except KwsError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    show(rates, options)


def measure(options: argparse.Namespace) -> pd.DataFrame:
    """Clips/s: a row per round, a column per stage.

    Raises:
        KwsError: there is no data, or not of the kind that the baselines can read.
    """
    if not options.data.is_dir():
        raise KwsError(f"--data: no folder '{options.data}'; give one that holds a folder of one-second WAVs per word")
    config = compose([
        f"features={options.features}", "augment=original", "task=custom", "task.unknown=false", "split=random",
        "split.validation_percentage=0", "split.testing_percentage=0", f"sample_rate={SAMPLE_RATE}",
        f"threads.intra_op={options.threads}", f"trainer.batch_size={options.batch_size}",
    ])  # fmt: skip
    tensorflow_setup.start(deterministic=config["deterministic"], seed=config["seed"], **config["threads"])
    import tensorflow as tf

    stages = build_stages(options, config)
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
    return pd.DataFrame(rows)


def build_stages(options: argparse.Namespace, config: dict[str, Any]) -> dict[str, Rate]:
    """All stages by name, in the table's order."""
    from kws_data.batches import BatchPlan
    from kws_data.pipeline import ClipSource, batches, training_plan

    catalog = usable(scan(options.data))
    clips = catalog[catalog["word"] != BACKGROUND_NOISE]
    if not (clips["path"].str.lower().str.endswith(".wav") & (clips["sample_rate"] == SAMPLE_RATE)).all():
        raise KwsError(f"--data: the baselines read WAVs at {SAMPLE_RATE} Hz only, and '{options.data}' holds others")
    paths = [str(options.data / path) for path in clips["path"]]
    task, features = instantiate(config, "task"), instantiate(config, "features")
    stages = [instantiate(config, f"augment.waveform.{name}") for name in config["augment"]["waveform"]]
    corpus = build_corpus(
        options.data,
        instantiate(config, "split"),
        sample_rate=SAMPLE_RATE,
        clip_samples=CLIP_SAMPLES,
        data_seed=config["data_seed"],
    )
    source = ClipSource(
        corpus,
        task.examples(corpus, config["data_seed"]),
        clip_samples=CLIP_SAMPLES,
        silence_samples=CLIP_SAMPLES,
        silence_kind=task.silence_kind,
        data_seed=config["data_seed"],
        seed=config["seed"],
    )
    in_order = BatchPlan(source.ids(TRAINING), options.batch_size, seed=None)
    shuffled = training_plan(source, options.batch_size)

    def stream(plan: BatchPlan, **steps: Any) -> Rate:
        endless = 1_000_000_000
        return Stream(batches(source, TRAINING, plan, **steps, steps=endless, threads=options.threads), options.seconds)

    return {
        READ: Stream(decoded_files(paths, options), options.seconds),
        BUILD: StoreBuild(options.data, catalog.head(STORE_CLIPS)),
        IN_ORDER: stream(in_order),
        SHUFFLED: stream(shuffled),
        AUGMENTED: stream(shuffled, stages=stages),
        FULL: stream(shuffled, stages=stages, features=features),
        BARE: Stream(bare_rfft(source, features, options.batch_size, options.threads), options.seconds),
        PIECES: Stream(bare_rfft(source, features, PIECE_CLIPS, options.threads), options.seconds),
        KERAS: Stream(keras_stft(sorted(set(clips["word"])), options), options.seconds),
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


def decoded_files(paths: list[str], options: argparse.Namespace) -> tf.data.Dataset:
    """[batch, samples] float32, read and decoded anew in each epoch."""
    import tensorflow as tf

    def decode(path: tf.Tensor) -> tf.Tensor:
        return tf.audio.decode_wav(tf.io.read_file(path), desired_channels=1, desired_samples=CLIP_SAMPLES).audio[:, 0]

    dataset = tf.data.Dataset.from_tensor_slices(paths).repeat()
    dataset = dataset.map(decode, num_parallel_calls=options.threads).batch(options.batch_size)
    return dataset.prefetch(2 * options.threads).with_options(_threading(options.threads))


def bare_rfft(source: ClipSource, features: FeatureLayer, batch_size: int, threads: int) -> tf.data.Dataset:
    """[batch, frames, fft_size / 2 + 1] complex64: the frames that `features` takes, windowed and transformed."""
    import numpy as np
    import tensorflow as tf

    ids = source.ids(TRAINING)
    ids = np.resize(ids, math.ceil(min(BARE_CLIPS, len(ids)) / batch_size) * batch_size)
    pcm = source.gather(TRAINING, ids, epoch=0).pcm.reshape(-1, batch_size, CLIP_SAMPLES)
    window = tf.signal.hann_window(features.frame_length)

    def transform(batch: tf.Tensor) -> tf.Tensor:
        waveform = tf.cast(batch, tf.float32) / 32768.0
        frames = tf.signal.frame(waveform, features.frame_length, features.frame_step)
        return tf.signal.rfft(frames * window, [features.fft_size])

    dataset = tf.data.Dataset.from_tensor_slices(pcm).repeat().map(transform, num_parallel_calls=threads)
    return dataset.prefetch(2 * threads).with_options(_threading(threads))


def keras_stft(words: list[str], options: argparse.Namespace) -> tf.data.Dataset:
    """([batch, 124, 129, 1] float32, labels), as TensorFlow's simple_audio tutorial makes them, without its cache."""
    import keras
    import tensorflow as tf

    def spectrogram(audio: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stft = tf.signal.stft(tf.squeeze(audio, axis=-1), frame_length=255, frame_step=128)
        return tf.abs(stft)[..., tf.newaxis], labels

    dataset = keras.utils.audio_dataset_from_directory(
        str(options.data),
        class_names=words,
        batch_size=options.batch_size,
        seed=0,
        output_sequence_length=CLIP_SAMPLES,
        verbose=False,
    )
    dataset = dataset.map(spectrogram, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE).repeat()
    threading = tf.data.Options()
    threading.threading.private_threadpool_size = options.threads  # the rest is Keras's and tf.data's own choice
    return dataset.with_options(threading)


def show(rates: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print the medians, the ratios and the machine."""
    import tensorflow as tf

    per_bare, per_keras = (rates.div(rates[name], axis=0).median() for name in (BARE, KERAS))
    rounds = rates[FULL] / rates[BARE]
    table = Table("stage", title="Input pipeline", title_justify="left")
    for heading in ("clips/s", f"of {BARE}", f"of {KERAS}"):
        table.add_column(heading, justify="right")
    for name, rate in rates.median().items():
        label = f"{name} ({options.features})" if name == FULL else str(name)
        table.add_row(
            label, f"{rate:,.0f}", f"{per_bare[name]:.3f}", f"{per_keras[name]:.3f}", end_section=name == FULL
        )
    console = Console()
    console.print(table)
    console.print(
        f"{options.features} with noise and shift: {per_bare[FULL]:.2f} of the bare rFFT ({rounds.min():.2f} to"
        f" {rounds.max():.2f} over the rounds); target for mfcc, 2 threads on 2 cores: 0.35",
        soft_wrap=True,
    )
    console.print(
        f"{available_cpus()} cores ({_processor()}), TensorFlow {tf.__version__}, {options.threads} threads,"
        f" batches of {options.batch_size}, median of {len(rates)} rounds",
        soft_wrap=True,
    )


def _threading(threads: int) -> tf.data.Options:
    """As `kws_data.pipeline.batches` sets it: parallel over batches, one thread in each."""
    import tensorflow as tf

    threading = tf.data.Options()
    threading.threading.max_intra_op_parallelism = 1
    threading.threading.private_threadpool_size = threads
    threading.autotune.enabled = False
    return threading


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _parser() -> argparse.ArgumentParser:
    def positive(text: str) -> int:
        if (value := int(text)) < 1:
            raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
        return value

    def positive_seconds(text: str) -> float:
        if not (value := float(text)) > 0:
            raise argparse.ArgumentTypeError(f"must be above 0, got {value}")
        return value

    default_data = os.environ.get("KWS_REAL_DATA", "../shared/speech_commands_subset")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(default_data), help=f"a folder of clips ({default_data})")
    parser.add_argument("--features", default="mfcc", help="one of conf/features/ (mfcc)")
    parser.add_argument("--batch-size", type=positive, default=100, help="clips (100)")
    parser.add_argument("--threads", type=positive, default=available_cpus(), help="of every stage (all cores)")
    parser.add_argument("--repeats", type=positive, default=5, help="rounds (5)")
    parser.add_argument("--seconds", type=positive_seconds, default=1.0, help="of each measurement, about (1)")
    return parser


if __name__ == "__main__":
    main()
