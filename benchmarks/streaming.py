"""The cost of listening: of the front end once a frame and once a window, and the real-time factor of every model.

    python -m benchmarks.streaming [--models ds_cnn_s,conv] [--hop-ms 40] [--seconds 20] [--threads N] [--repeats 3]
        [features=…]

Each model of `conf/model/` is built, untrained, for the features of its source, as `kws models` does (or those that
overrides choose), and listens to noise. Windows are a second long, `--hop-ms` apart. Measured, in one process:

- *front end*: milliseconds that the features of a second of audio take, of each window by itself, in batches; *once*:
  of the stream's frames, each once; and the *ratio* of that to the former;
- *whole*: the real-time factor, seconds that a second of audio takes from samples to detections, each window through
  the whole model; *file*: as `kws stream FILE` does it, in pieces of 20 s; *microphone*: in pieces of one hop;
- *computed once*: frames, a network's first layers too, or nothing, where frames depend on their window;
- a second table, of networks whose first layers are computed once: milliseconds of processor time that the network
  alone takes for a window (64 at once) and for a hop (20 s at once), in turns; *live*: one at a time, as from a
  microphone.

The tables hold medians over the rounds, after one round that isn't counted.

Targets: the front end once a frame costs at most a third of once a window; a hop costs at most a fifth of a window.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from benchmarks.options import (
    ALL_CORES,
    Models,
    Options,
    Overrides,
    Repeats,
    Threads,
    chosen_models,
    machine,
    run,
    say_ratio,
    table,
)
from kws_experiments.console.tables import Console
from kws_experiments.reports import model_table

if TYPE_CHECKING:
    import keras

    from kws_data.features.base import FeatureLayer

TARGET, HOP_TARGET = 1 / 3, 1 / 5
BATCH = 64  # windows, as `kws stream` has them


@dataclass(frozen=True)
class Row:
    """Seconds that a second of audio takes; None where there is no such way."""

    model: str
    features: str
    front_end_windows: float
    front_end_once: float | None
    whole_windows: float
    whole_file: float
    whole_live: float
    once: str
    network: NetworkCost | None


@dataclass(frozen=True)
class NetworkCost:
    """Seconds of processor time that a network takes for a window and for a hop, many at once and one at a time."""

    window: float
    hop: float
    window_live: float
    hop_live: float


def main(
    overrides: Overrides = None,
    models: Models = "all",
    hop_ms: Annotated[float, typer.Option(min=0.001, help="from window to window")] = 40.0,
    seconds: Annotated[float, typer.Option(min=0.001, help="of audio in a round")] = 20.0,
    threads: Threads = ALL_CORES,
    repeats: Repeats = 3,
) -> None:
    """The cost of listening: of the front end once a frame and once a window; the real-time factor of every model."""
    options = Options(chosen_models(models), threads, repeats, seconds, hop_ms=hop_ms, overrides=overrides or ())
    show(measure(options), options)


def measure(options: Options) -> list[Row]:
    """A row per model.

    Raises:
        KwsError: an override names something that isn't there, or the hop isn't possible.
    """
    overrides = [*options.overrides, f"threads.intra_op={options.threads}"]
    choices = [model_table.choose(name, overrides) for name in options.models]
    choices[0].experiment.start_tensorflow()
    import keras
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # that TensorFlow has started already
        tf.config.set_visible_devices([], "GPU")
    rows = []
    with tqdm(choices, unit="model", disable=None, leave=False) as bar:
        for choice in bar:
            bar.set_description(choice.model)
            rows.append(_row(choice, options))
            keras.backend.clear_session()
            gc.collect()
    return rows


def _row(choice: model_table.Choice, options: Options) -> Row:
    import keras

    from kws_experiments.export.scorer import Facts, KerasScorer
    from kws_experiments.streaming.listener import Listener
    from kws_experiments.streaming.windows import PIECE_S, EachWindow, FrameStream, frames_once

    rate = choice.experiment.sample_rate
    hop, piece = round(options.hop_ms * rate / 1000), PIECE_S * rate
    features, network = choice.experiment.features, choice.build()
    labels = [f"label {number}" for number in range(choice.num_labels())]
    waveform = keras.Input((rate,))
    scorer = KerasScorer(keras.Model(waveform, network(features(waveform))), Facts(labels, rate, rate))
    samples = np.random.default_rng(0).normal(0, 0.05, round(options.seconds * rate)).astype(np.float32)

    def seconds(feed: Callable[[np.ndarray], object], piece: int) -> float:
        """The median time of a second of audio; every round goes on with the stream."""
        times = []
        for _ in range(options.repeats + 1):
            start = time.perf_counter()
            for at in range(0, len(samples), piece):
                feed(samples[at : at + piece])
            times.append((time.perf_counter() - start) / options.seconds)
        return statistics.median(times[1:])

    shared = frames_once(features, network, labels, rate, hop)
    listener = Listener(shared or EachWindow(scorer, hop))
    once, cost = "nothing" if shared is None else "frames", None
    if shared is not None and shared.network_stream.form.streams:
        once = "frames, first layers"
        cost = _network_cost(network, features.num_frames(rate), hop // features.frame_step, options.repeats)
    return Row(
        choice.model,
        choice.features,
        front_end_windows=seconds(_EachWindowsFrames(features, rate, hop), piece),
        front_end_once=None if shared is None else seconds(FrameStream(features).feed, piece),
        whole_windows=seconds(Listener(EachWindow(scorer, hop)).feed, piece),
        whole_file=seconds(listener.feed, piece),
        whole_live=seconds(listener.feed, hop),
        once=once,
        network=cost,
    )


def _network_cost(network: keras.Model, num_frames: int, hop_frames: int, repeats: int) -> NetworkCost:
    import tensorflow as tf

    from kws_experiments.export.tflite_stream import single_step
    from kws_models.folding import folded
    from kws_models.streaming import NetworkStream

    bins = network.inputs[0].shape[-1]
    run = tf.function(folded(network), [tf.TensorSpec((None, num_frames, bins), tf.float32)])
    stream, hops = NetworkStream(network, num_frames, hop_frames, single_step), 500
    frames = np.random.default_rng(0).normal(size=(hops * hop_frames, bins)).astype(np.float32)
    windows = np.random.default_rng(0).normal(size=(BATCH, num_frames, bins)).astype(np.float32)

    def by_the_hop() -> None:
        for start in range(0, len(frames), hop_frames):
            stream.feed(frames[start : start + hop_frames])

    def by_the_window() -> None:
        for window in windows:
            run(window[None]).numpy()

    ways: list[tuple[Callable[[], object], int]] = [
        (lambda: run(windows).numpy(), BATCH), (lambda: stream.feed(frames), hops), (by_the_window, BATCH),
        (by_the_hop, hops),
    ]  # fmt: skip
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats + 1):
        for (way, count), found in zip(ways, times, strict=True):
            start = time.process_time()  # what other processes do changes it less
            way()
            found.append((time.process_time() - start) / count)
    return NetworkCost(*(statistics.median(found[1:]) for found in times))


class _EachWindowsFrames:
    """The front end of each window by itself, in batches, as the whole model has it."""

    def __init__(self, features: FeatureLayer, clip_samples: int, hop_samples: int) -> None:
        import tensorflow as tf

        from kws_models.sliding import SlidingWindows

        self._sliding = SlidingWindows(clip_samples, hop_samples)
        self._compute = tf.function(lambda x: features(x), [tf.TensorSpec([None, clip_samples], tf.float32)])

    def __call__(self, samples: np.ndarray) -> None:
        windows = self._sliding.feed(samples)
        for start in range(0, len(windows), BATCH):
            self._compute(windows[start : start + BATCH])


def show(rows: list[Row], options: Options) -> None:
    """Print the table, and whether the target is reached."""
    title = f"Listening, a window every {options.hop_ms:g} ms: front end in ms, whole in s, for a second of audio"
    printed = table(title, ["model", "features"], ["front end", "once", "ratio", "whole", "file", "microphone"])
    printed.add_column("computed once")
    ratios = []
    for row in rows:
        once = ["–", "–"]
        if row.front_end_once is not None:
            ratios.append(row.front_end_once / row.front_end_windows)
            once = [f"{1000 * row.front_end_once:.2f}", f"{ratios[-1]:.3f}"]
        whole = (f"{seconds:.4f}" for seconds in (row.whole_windows, row.whole_file, row.whole_live))
        printed.add_row(row.model, row.features, f"{1000 * row.front_end_windows:.2f}", *once, *whole, row.once)
    console = Console()
    console.print(printed)
    if ratios:
        say_ratio("front end once, of each window", pd.Series(ratios), f"at most {TARGET:.2f} for each model")
    costs = {row.model: row.network for row in rows if row.network is not None}
    if costs:
        printed = table(
            "A network on a stream, in ms of processor time",
            ["model"],
            ["window", "hop", "ratio", "window, live", "hop, live"],
        )
        for model, cost in costs.items():
            milliseconds = [f"{1000 * each:.3f}" for each in (cost.window, cost.hop, cost.window_live, cost.hop_live)]
            printed.add_row(model, *milliseconds[:2], f"{cost.hop / cost.window:.3f}", *milliseconds[2:])
        console.print(printed)
        ratios = [cost.hop / cost.window for cost in costs.values()]
        say_ratio("a hop, of a window", pd.Series(ratios), f"at most {HOP_TARGET:.2f} for each model")
    console.print(
        f"{machine()}, TensorFlow {importlib.metadata.version('tensorflow')}, "
        f"{options.threads} threads, {options.seconds:g} s of audio, median of {options.repeats}"
    )


if __name__ == "__main__":
    run(main)
