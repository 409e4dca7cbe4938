"""One conversion, in a process of its own: `python -m kws_experiments.export.convert FOLDER PARENT`.

TensorFlow's converter can abort the process that calls it; this process has nothing to lose. The folder holds the
request; the answer beside it is the artifact, or an error.
"""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from kws_data.errors import KwsError
from kws_data.storage.atomic import replace_file
from kws_data.storage.parallel import end_with, import_path, signal_name
from kws_experiments.config import tensorflow_setup
from kws_experiments.export.artifact import Artifact, content_hash
from kws_experiments.export.c_source import own_prefix
from kws_experiments.export.formats.base import Request, clean_lines, find_format

_REQUEST, _ANSWER = "request.pickle", "answer.pickle"


def convert_in_child(request: Request, scratch: Path) -> Artifact:
    """Convert a run's model in a child process.

    Args:
        request: what to convert.
        scratch: a folder for what passes between the processes.

    Returns:
        what export.json is to hold, before the models are checked.

    Raises:
        KwsError: the conversion failed, or the converter ended the process.
        OSError: the disk is full.
    """
    (scratch / _REQUEST).write_bytes(pickle.dumps(request))
    command = [sys.executable, "-P", "-m", "kws_experiments.export.convert", str(scratch), str(os.getpid())]
    environment = os.environ | {"PYTHONPATH": import_path()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    answer = scratch / _ANSWER
    result = pickle.loads(answer.read_bytes()) if answer.is_file() else _last_words(done)
    if isinstance(result, str):
        if (full := os.strerror(errno.ENOSPC)) in result:  # the scratch folder is on the same disk
            raise OSError(errno.ENOSPC, full, str(request.out.parent))
        raise KwsError(f"converting to {request.format} (quantize {request.quantize}) failed: {result}")
    return result


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Why a process without an answer ended."""
    status = f"exit status {done.returncode}"
    if done.returncode < 0:
        status = signal_name(-done.returncode)
    lines = clean_lines(done.stderr)
    reasons = [line for line in lines if "ERROR:" in line] or lines[-1:]  # LLVM's, before the trace of the abort
    return f"the converter ended with {status}" + (f": {reasons[0][:300]}" if reasons else "")


def convert(request: Request) -> Artifact:
    """The child's work: load, convert, describe."""
    import tensorflow as tf

    from kws_experiments.experiment.experiment import Experiment
    from kws_experiments.export.trained import load_trained
    from kws_experiments.runs.folder import RunFolder

    tf.config.set_visible_devices([], "GPU")  # where recurrent layers would become cuDNN's
    folder, format = RunFolder(request.run), find_format(request.format)
    experiment, record = Experiment(folder.read_config()), folder.read_record() or {}
    trained = load_trained(request.run, request.clip_samples, unrolled=format.unrolls)
    written, facts = format.write(trained, request), trained.facts
    files = []
    for file in written.files:
        size, sha256 = content_hash(request.out / file.file)
        files.append(replace(file, bytes=size, sha256=sha256))
    run = {"name": experiment.name} | {key: record.get(key) for key in ("fingerprint", "data_fingerprint")}
    c_name = request.c_name or own_prefix(experiment.name, run["fingerprint"], request.quantize, request.state)
    return Artifact(
        format=request.format,
        quantize=request.quantize,
        run=run,
        labels=format.labels_of(facts.labels, request.word),
        sample_rate=facts.sample_rate,
        clip_samples=facts.clip_samples,
        front_end=trained.front_end,
        thresholds=facts.thresholds,
        thresholds_from="the original's scores of the validation clips",
        data_licence=record.get("data_licence"),
        data_citation=record.get("data_citation"),
        versions=format.versions(),
        files=files,
        notes=written.notes,
        requires=written.requires,
        clip_from=facts.clip_from,
        decode=request.decode,
        c_name=c_name if request.quantize in format.in_c else None,
        audio=asdict(facts.rules),
        streaming=written.streaming,
    )


def main() -> None:
    """Answer one request: with the artifact, or in one line why there is none."""
    scratch = Path(sys.argv[1])
    end_with(int(sys.argv[2]))
    tensorflow_setup.quiet()
    answer: Artifact | str
    try:
        answer = convert(pickle.loads((scratch / _REQUEST).read_bytes()))
    except KwsError as error:
        answer = str(error)
    except Exception as error:  # whatever a converter raises
        answer = ": ".join([type(error).__name__, *(line[:300] for line in clean_lines(str(error))[:1])])
    with replace_file(scratch / _ANSWER) as temporary:  # whole or, on a full disk, not at all
        temporary.write_bytes(pickle.dumps(answer))


if __name__ == "__main__":
    main()
