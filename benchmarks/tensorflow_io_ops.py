"""How far tensorflow-io's audio ops are from soundfile and soxr, and what they cost: `kws export --decode all`.

    python -m benchmarks.tensorflow_io_ops --data FOLDER [--clips 40]

Speech of the folder is written as WAV, FLAC, Ogg Vorbis and MP3 at 16 kHz, and decoded clip by clip, on one thread. For
resampling, it is brought to each rate first, by soxr's best quality. Needs the extra io.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import soxr
import typer

from benchmarks.options import run, table
from kws_data.second_opinion import require_tensorflow_io
from kws_experiments.console.tables import Console

RATE = 16_000
RATES = (8_000, 44_100, 48_000)
Row = tuple[tuple[int, float], float, float]
KINDS = {
    "WAV": ("wav", "PCM_16", "decode_wav"),
    "FLAC": ("flac", "PCM_16", "decode_flac"),
    "FLAC, 24 bits": ("flac", "PCM_24", "decode_flac"),
    "Ogg Vorbis": ("ogg", "VORBIS", "decode_vorbis"),
    "MP3": ("mp3", "MPEG_LAYER_III", "decode_mp3"),
}


def main(
    data: Annotated[Path, typer.Option(help="a folder of word folders with WAV files at 16 kHz")],
    clips: Annotated[int, typer.Option(min=1, help="how many to use")] = 40,
) -> None:
    """Delay, largest difference from soundfile or soxr, and time, of tensorflow-io's ops and of our own filter."""
    require_tensorflow_io("this benchmark")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    speech = [soundfile.read(path)[0] for path in sorted(data.glob("[!_]*/*.wav"))[:: _step(data, clips)][:clips]]
    printed = table(
        f"{len(speech)} clips, one thread", ["op", "of"], ["delay", "difference", "ms", "ms: soundfile, soxr"]
    )
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            printed.add_row(KINDS[kind][2], kind, *_texts(*decoding(kind, speech, Path(folder))))
    for rate in RATES:
        for name, row in resampling(rate, speech).items():
            printed.add_row(name, f"{rate} Hz to {RATE} Hz", *_texts(*row))
    Console().print(printed)


def decoding(kind: str, speech: Sequence[np.ndarray], folder: Path) -> Row:
    """((delay, largest difference from soundfile), ms, ms of soundfile) of decoding one kind of file."""
    import tensorflow as tf

    from kws_data import audio_ops

    suffix, subtype, _ = KINDS[kind]
    files = [folder / f"{number}.{suffix}" for number in range(len(speech))]
    for file, samples in zip(files, speech, strict=True):
        soundfile.write(file, samples, RATE, subtype=subtype)
    decode = tf.function(
        lambda path: audio_ops.decode(tf.io.read_file(path))[0][:, 0],
        input_signature=[tf.TensorSpec([], tf.string)],
    )
    theirs, ms = _timed(lambda file: decode(str(file)).numpy(), files)
    ours, ms_here = _timed(lambda file: soundfile.read(file, dtype="float32")[0], files)
    return _apart(ours, theirs), ms, ms_here


def resampling(rate: int, speech: Sequence[np.ndarray]) -> dict[str, Row]:
    """By name, ((delay, largest difference from soxr), ms, ms of soxr) of the op and of the graph's own filter."""
    import tensorflow as tf
    import tensorflow_io as tfio

    from kws_data import audio_ops

    inputs = [soxr.resample(samples, RATE, rate, quality="VHQ").astype(np.float32) for samples in speech]
    expected, ms_here = _timed(lambda samples: soxr.resample(samples, rate, RATE, quality="HQ"), inputs)
    spec = [tf.TensorSpec([None], tf.float32)]
    ways = {
        "resample": tf.function(lambda samples: tfio.audio.resample(samples, rate, RATE), input_signature=spec),
        "audio_ops": tf.function(
            lambda samples: audio_ops.resample(samples, tf.constant(rate), RATE), input_signature=spec
        ),
    }
    rows = {}
    for name, way in ways.items():
        found, ms = _timed(lambda samples, way=way: way(samples).numpy(), inputs)
        rows[name] = _apart(expected, found), ms, ms_here
    return rows


def _step(data: Path, clips: int) -> int:
    return max(1, len(list(data.glob("[!_]*/*.wav"))) // clips)


def _timed(work: Callable[[Any], np.ndarray], items: Sequence[Any]) -> tuple[list[np.ndarray], float]:
    """The results, and the mean time of one, in ms of a processor, so that a busy machine counts little."""
    work(items[0])  # may trace a graph
    start = time.process_time()
    results = [work(item) for item in items]
    return results, 1000 * (time.process_time() - start) / len(items)


def _apart(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> tuple[int, float]:
    """(the delay of most, in samples; the largest difference of any sample without it)."""
    delays = [_delay(a, b) for a, b in zip(expected, found, strict=True)]
    delay = max(set(delays), key=delays.count)
    pairs = [(a[: len(b) - delay], b[delay : delay + len(a)]) for a, b in zip(expected, found, strict=True)]
    return delay, max(float(np.abs(a - b).max()) for a, b in pairs)


def _delay(expected: np.ndarray, found: np.ndarray) -> int:
    size = 2 * max(len(expected), len(found))
    correlation = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(expected, size)))
    return int(correlation[: size // 2].argmax())


def _texts(apart: tuple[int, float], ms: float, ms_here: float) -> tuple[str, str, str, str]:
    delay, difference = apart
    return str(delay), f"{difference:.1e}" if difference else "0", f"{ms:.2f}", f"{ms_here:.2f}"


if __name__ == "__main__":
    run(main)
