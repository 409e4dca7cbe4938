"""A second decoder's opinion on audio files: each is decoded by tensorflow-io too, and compared with what clips get.

tensorflow-io ends the process on some damaged files, and never returns from others. So a child process decodes
(`python -m kws_data.second_opinion`), and where it ends, another one goes on after that file.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kws_data.audio import UnreadableAudioError, read_header, read_pcm, to_int16
from kws_data.clip_format import AudioRules
from kws_data.errors import KwsError
from kws_data.storage.parallel import signal_name

if TYPE_CHECKING:
    import tensorflow as tf

TENSORFLOW_IO = "tensorflow-io"

_LONGEST_S = 60  # to decode one file, and one more for each megabyte
_LOSSLESS = (b"RIFF", b"fLaC")
_LOSSY_STEPS = 1  # of 16 bits: where decoders differ by 1e-7, they may round to neighbours


@dataclass(frozen=True)
class Opinion:
    """What the second decoder says of a file.

    Attributes:
        path: below the root.
        reason: why it cannot decode the file, or ''.
        difference: what differs from the clip's samples, or ''; also where one of the two cannot decode the file.
        ours: whether the file can be decoded here.
    """

    path: str
    reason: str = ""
    difference: str = ""
    ours: bool = True


def require_tensorflow_io(option: str) -> None:
    """Raise a KwsError unless tensorflow-io is installed."""
    if importlib.util.find_spec("tensorflow_io") is None:
        raise KwsError(f"{option} needs tensorflow-io (Python 3.11 or 3.12): pip install -e '.[io]'")


def opinions(root: Path, paths: Sequence[str]) -> Iterator[Opinion]:
    """tensorflow-io's opinion on each file, in order.

    Raises:
        KwsError: tensorflow-io does not work here.
    """
    done = 0
    while done < len(paths):
        with tempfile.TemporaryFile("w+") as request, tempfile.TemporaryFile("w+", errors="replace") as errors:
            json.dump([str(root), *paths[done:]], request)
            request.seek(0)
            command = [sys.executable, "-m", "kws_data.second_opinion"]
            quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            with subprocess.Popen(
                command, stdin=request, stdout=subprocess.PIPE, stderr=errors, env=quiet, text=True
            ) as child:
                assert child.stdout is not None
                started = child.stdout.readline() != ""
                for line in child.stdout:
                    yield Opinion(**json.loads(line))
                    done += 1
            status = child.returncode
            errors.seek(0)
            said = errors.read()
            last = (said.strip().splitlines() or [f"exit status {status}"])[-1]
            if not started:
                raise KwsError(f"{TENSORFLOW_IO} does not work here: {last}")
        if done < len(paths):
            how = f"its process ends with {signal_name(-status) if status < 0 else last}"
            if status > 0 and "Timeout (" in said:  # faulthandler's
                how = "it takes too long"
            yield Opinion(paths[done], how, ours=_decoded(root / paths[done]) is not None)
            done += 1


def _decoded(file: Path) -> tuple[np.ndarray, int] | None:
    """What the clips get: ([samples] int16, the file's own rate); None where the file is refused."""
    try:
        rate = read_header(file).sample_rate
        return read_pcm(file, rate, AudioRules(levels="clip")), rate
    except UnreadableAudioError:
        return None


def _opinion(root: Path, path: str, decode: Callable[[str], tuple[tf.Tensor, tf.Tensor]]) -> Opinion:
    import tensorflow as tf

    file = root / path
    decoded = _decoded(file)
    if not file.is_file():  # a pipe would block
        return Opinion(path, "not a regular file", ours=False)
    faulthandler.dump_traceback_later(_LONGEST_S + file.stat().st_size // 1_000_000, exit=True)
    try:
        samples, there = decode(str(file))
    except tf.errors.OpError as error:
        return Opinion(path, _reason(error.message), ours=decoded is not None)
    finally:
        faulthandler.cancel_dump_traceback_later()
    theirs = to_int16(np.nan_to_num(samples.numpy()).mean(axis=1))
    if decoded is None:
        return Opinion(path, difference=f"it decodes {len(theirs)} samples", ours=False)
    ours, rate = decoded
    with file.open("rb") as content:
        steps = 0 if content.read(4) in _LOSSLESS else _LOSSY_STEPS
    if rate != int(there):
        return Opinion(path, difference=f"{rate} Hz here, {int(there)} Hz there")
    if len(ours) != len(theirs):
        return Opinion(path, difference=f"{len(ours)} samples here, {len(theirs)} there")
    apart = np.abs(ours.astype(np.int32) - theirs)
    if apart.max() <= steps:
        return Opinion(path)
    count = int((apart > steps).sum())
    return Opinion(path, difference=f"{count} of {len(ours)} samples differ, by up to {apart.max()} of 32768")


def _reason(message: str) -> str:
    """The part of TensorFlow's message that is about the file."""
    asserted = re.search(r"assertion failed: (.*)", message)
    if asserted:
        text = asserted[1].split("[Condition")[0]
        return " ".join(re.sub(r"[\[\]]", " ", text).split()).rstrip(". ")
    return re.sub(r"^(\{\{.*?\}\}\s*)+", "", message).split("\n")[0].split(" [Op:")[0].strip()


def main() -> None:
    """Answer for each file with a line, after a first line that says that tensorflow-io works."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever native code prints
    root, *paths = json.load(sys.stdin)
    import tensorflow as tf

    from kws_data import audio_ops

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")
    decode = tf.function(
        lambda path: audio_ops.decode(tf.io.read_file(path)), input_signature=[tf.TensorSpec([], tf.string)]
    )
    decode.get_concrete_function()
    print("ready", file=answers, flush=True)
    for path in paths:
        print(json.dumps(asdict(_opinion(Path(root), path, decode))), file=answers, flush=True)


if __name__ == "__main__":
    main()
