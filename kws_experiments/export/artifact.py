"""Exports on disk: what stands in their folder, and reading a trained run in whatever format it is.

RUN/exports/<format>-<quantize>/
    the model in one file or two, or in the folder `saved_model`
    labels.txt           class names, one a line, in the order of the scores
    export.json          everything else there is to know, as `Artifact` has it
    predictions.parquet  what the original and the exported files say of each test clip
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kws_data.errors import KwsError
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.export.scorer import Facts, KerasScorer, Scorer
from kws_experiments.runs.folder import RunFolder, write_text

SCHEMA_VERSION = 1
RECORD, LABELS = "export.json", "labels.txt"


@dataclass(frozen=True)
class Port:
    """An input or output of a model.

    Attributes:
        name: what the format calls it.
        shape: -1 where any size goes.
        dtype: NumPy's name.
        scale: real value = scale × (quantized value − zero_point); None for floats.
        zero_point: see scale.
    """

    name: str
    shape: list[int]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class ModelFile:
    """One model of an export.

    Attributes:
        file: its name in the export's folder.
        takes: waveform, or features (frames of the front end that export.json describes).
        input: what goes in.
        output: what comes out: `scores` (softmax), or a SavedModel's `predictions` (logits).
        operators: the kinds of operators in it, where the format tells.
        bytes: size.
        sha256: of its content.
        check: how it did on the test split; empty where it was not checked.
    """

    file: str
    takes: str
    input: Port
    output: Port
    operators: list[str] = field(default_factory=list)
    bytes: int = 0
    sha256: str = ""
    check: dict[str, Any] = field(default_factory=dict)


def model_file(fields: dict[str, Any]) -> ModelFile:
    """A ModelFile of its fields as JSON has them."""
    return ModelFile(**fields | {"input": Port(**fields["input"]), "output": Port(**fields["output"])})


@dataclass(frozen=True)
class Artifact:
    """What export.json says.

    Attributes:
        format: saved_model, tflite or onnx.
        quantize: none, dynamic, float16 or int8.
        run: the run's `name`, `fingerprint` and `data_fingerprint`.
        labels: class names.
        sample_rate: Hz.
        clip_samples: samples of a clip; None: any number.
        front_end: the configuration of the front end, its sizes in samples, frames and bins, and, if it normalises,
            the mean and variance of each bin.
        thresholds: each keyword's decision threshold, on the scores of the first file.
        thresholds_from: whose scores they were found on.
        data_licence: of the clips that it was trained on.
        data_citation: how to cite them.
        versions: of the packages that converted.
        files: the models; the first is the one to prefer.
        notes: what the user should know.
        requires: the module of TensorFlow to import before a SavedModel with ops of its own can be loaded.
    """

    format: str
    quantize: str
    run: dict[str, Any]
    labels: list[str]
    sample_rate: int
    clip_samples: int | None
    front_end: dict[str, Any]
    thresholds: dict[str, float]
    thresholds_from: str
    data_licence: str | None
    data_citation: str | None
    versions: dict[str, str]
    files: list[ModelFile]
    notes: list[str]
    requires: str | None = None

    @property
    def facts(self) -> Facts:
        """What goes with each of its models."""
        return Facts(self.labels, self.sample_rate, self.clip_samples, self.thresholds)

    def write(self, folder: Path) -> None:
        """Write export.json and labels.txt."""
        write_text(folder / RECORD, json.dumps({"schema_version": SCHEMA_VERSION} | asdict(self), indent=2) + "\n")
        write_text(folder / LABELS, "\n".join(self.labels) + "\n")


def read_artifact(folder: Path) -> Artifact:
    """What an export's folder says of itself.

    Raises:
        KwsError: it holds no export, a damaged one, one of another version, or labels that aren't its own.
    """
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        schema = content.pop("schema_version")
        if schema == SCHEMA_VERSION:
            files = [model_file(fields) for fields in content.pop("files")]
            artifact = Artifact(**content, files=files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KwsError(f"'{folder / RECORD}' is missing or damaged: export the run again") from error
    if schema != SCHEMA_VERSION:
        raise KwsError(f"'{folder / RECORD}' has schema version {schema}, not {SCHEMA_VERSION}: export the run again")
    try:
        labels = (folder / LABELS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KwsError(f"'{folder / LABELS}' is missing or damaged: export the run again") from error
    if labels != artifact.labels:
        raise KwsError(
            f"'{folder / LABELS}' names other labels ({', '.join(labels[:4])}, …) than {RECORD} beside it"
            f" ({', '.join(artifact.labels[:4])}, …): export the run again"
        )
    return artifact


def find_exports(run: Path) -> list[tuple[Path, Artifact]]:
    """A run's exports, each with its folder, in the order of their names; damaged ones are left out."""
    found = []
    for record in sorted(RunFolder(run).exports.glob(f"[!.]*/{RECORD}")):
        try:
            found.append((record.parent, read_artifact(record.parent)))
        except KwsError:
            continue
    return found


def content_hash(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a file, or of all files of a folder with their names.

    Raises:
        OSError: it is not there.
    """
    if not path.is_dir():
        content = path.read_bytes()
        return len(content), hashlib.sha256(content).hexdigest()
    total, digest = 0, hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        size, of_file = content_hash(file)
        total += size
        digest.update(f"{file.relative_to(path).as_posix()}\0{of_file}\n".encode())
    return total, digest.hexdigest()


def load_scorer(path: Path) -> Scorer:
    """What scores waveforms by the model at `path`.

    Args:
        path: the folder of a finished run, the folder of one of its exports, or a model in the latter.

    Raises:
        KwsError: there is none of these, or it is damaged.
    """
    path = path.expanduser()
    if not path.exists():
        raise KwsError(f"'{path}': no such file or folder; give the folder of a finished run or of an export")
    if (path / RECORD).is_file():
        artifact = read_artifact(path)
        return load_export(path, artifact, artifact.files[0])
    if (path.parent / RECORD).is_file():
        artifact = read_artifact(path.parent)
        for file in artifact.files:
            if file.file == path.name:
                return load_export(path.parent, artifact, file)
        known = ", ".join(file.file for file in artifact.files)
        raise KwsError(f"'{path}' is no model of this export, which has {known}")
    if path.is_file():
        raise KwsError(f"'{path}': there is no {RECORD} beside it; give a run's folder or an export's, whole")
    return load_run(path)


def load_export(folder: Path, artifact: Artifact, file: ModelFile) -> Scorer:
    """One model of an export.

    Raises:
        KwsError: it is not there, or not what was exported.
    """
    try:
        size, sha256 = content_hash(folder / file.file)
    except OSError as error:
        raise KwsError(f"'{folder / file.file}': {error.strerror or error}") from error
    if sha256 != file.sha256:
        raise KwsError(
            f"'{folder / file.file}' is not what was exported ({size:,} of {file.bytes:,} bytes): export the run again"
        )
    from kws_experiments.export.runners import runner

    return runner(folder, artifact, file)


def load_run(run: Path, clip_samples: int | None = None) -> Scorer:
    """A run's own model.

    Args:
        run: the folder.
        clip_samples: the one length to take clips at, for a run that keeps lengths.

    Raises:
        KwsError: `run` is no folder of a finished run, or its model is damaged.
    """
    from kws_experiments.runs.saved_model import load_model

    facts = run_facts(run)
    if clip_samples is not None:
        facts = replace(facts, clip_samples=clip_samples)
    model = load_model(run)
    if model.output_shape[-1] != len(facts.labels):
        raise KwsError(
            f"'{RunFolder(run).labels}' names {len(facts.labels)} labels, but the model beside it has"
            f" {model.output_shape[-1]} outputs"
        )
    return KerasScorer(model, facts)


def run_facts(run: Path) -> Facts:
    """What goes with a run's model.

    Raises:
        KwsError: `run` is no folder of a finished run.
    """
    folder = RunFolder(run)
    experiment = Experiment(folder.read_config())
    return Facts(folder.read_labels(), experiment.sample_rate, experiment.clip_samples, folder.read_thresholds())
