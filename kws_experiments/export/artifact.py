"""Exports on disk: what their folder holds.

RUN/exports/<format>-<quantize>/ (saved_model-none-all where it decodes all, tflite-none-streaming-external)
    the models, each a file or a folder
    labels.txt           class names, one a line, in the order of the scores
    listening.json       sensitivities, as in the run's folder
    export.json          everything else, as `Artifact` describes it
    <c_name>.h, .c       the network as C source, of TensorFlow Lite files that microcontrollers can run
    predictions.parquet  what the original and the exported models predict for each test clip
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kws_data.checks import check_number, check_whole, require
from kws_data.clip_format import AudioRules
from kws_data.errors import KwsError
from kws_experiments.export.scorer import Facts
from kws_experiments.runs.files import read_json, read_lines, whole
from kws_experiments.runs.folder import write_text

SCHEMA_VERSION = 1
RECORD, LABELS = "export.json", "labels.txt"
ORIGINAL = "model.keras"


@dataclass(frozen=True)
class Port:
    """An input or output of a model.

    Attributes:
        name: its name in the model.
        shape: -1 where any size is possible.
        dtype: NumPy's name.
        scale: real value = scale × (quantized value − zero_point); None for floats.
        zero_point: see scale.
    """

    name: str
    shape: list[int]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    def quantized(self, values: np.ndarray) -> np.ndarray:
        """Floats as an input takes them: scaled, rounded and clipped to its integers, if it has integers."""
        if self.scale is None or self.zero_point is None:
            return values.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.rint(values / np.float32(self.scale)) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def dequantized(self, values: np.ndarray) -> np.ndarray:
        """An output's values as float32."""
        if self.scale is None or self.zero_point is None:
            return values.astype(np.float32)
        return (values.astype(np.float32) - self.zero_point) * np.float32(self.scale)

    @property
    def highest_score(self) -> float:
        """The highest score that an output can have: 1, or the top of its integers."""
        if self.scale is None or self.zero_point is None:
            return 1.0
        return (int(np.iinfo(self.dtype).max) - self.zero_point) * self.scale


@dataclass(frozen=True)
class ModelFile:
    """One model of an export.

    Attributes:
        file: its name in the export's folder.
        takes: waveform, features (frames of the front end that export.json describes), or frames (the next of these).
        input: a batch of these.
        output: `scores` (softmax), or a SavedModel's `predictions` (logits).
        operators: the kinds of operators in it; empty for a SavedModel.
        signatures: of each signature's name, the names of its `inputs` and `outputs`; ONNX has none.
        micro: of an int8 network, its `peak` (see `tflite_graph.peak`) and what `tflm.measured` says.
        states: of a streaming form with external states, of each the input and the output.
        bytes: size.
        sha256: of its content.
        check: its results on the test split; empty where it was not checked.
    """

    file: str
    takes: str
    input: Port
    output: Port
    operators: list[str] = field(default_factory=list)
    signatures: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    micro: dict[str, Any] = field(default_factory=dict)
    states: list[list[Port]] = field(default_factory=list)
    bytes: int = 0
    sha256: str = ""
    check: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """The contents of export.json.

    Attributes:
        format: a module of `kws_experiments.export.formats`.
        quantize: none, dynamic, float16 or int8.
        run: the run's `name`, `fingerprint` and `data_fingerprint`.
        labels: class names.
        sample_rate: Hz.
        clip_samples: samples of a clip; None: any number.
        front_end: see `front_end.described`.
        thresholds: each keyword's decision threshold, on the scores of the first file.
        thresholds_from: the scores that they were found on.
        data_licence: of the clips that it was trained on.
        data_citation: how to cite them.
        versions: of the packages that converted.
        files: the models; the first is the one to prefer.
        notes: what the user should know.
        requires: what registers a SavedModel's own ops: look each name up (`pkgutil.resolve_name`) before loading it.
        clip_from: which part of longer files is a clip; earlier versions took the start.
        decode: the files whose names a SavedModel takes: wav (16-bit, at the sample rate) or all.
        c_name: the prefix of the names in the C source, and the name of its files; None where there is none.
        sensitivities: those in `listening.json` beside it; earlier versions wrote none.
        audio: what files may be, as the configuration's `audio`; earlier versions wrote none, and took the defaults.
        streaming: of a streaming form, see `tflite_stream.described`.
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
    requires: list[str] = field(default_factory=list)
    clip_from: str = "start"
    decode: str = "wav"
    c_name: str | None = None
    sensitivities: list[str] = field(default_factory=list)
    audio: dict[str, Any] = field(default_factory=dict)
    streaming: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """For tables."""
        return (
            f"{self.format}, {self.quantize}"
            + ("" if self.decode == "wav" else f", decodes {self.decode}")
            + (f", streaming, {self.streaming['state']} states" if self.streaming else "")
        )

    @property
    def tried(self) -> str:
        """What TensorFlow Lite Micro was tried with."""
        return "calls" if self.streaming else "clips"

    @property
    def facts(self) -> Facts:
        """What belongs to each of its models."""
        rules = AudioRules(**self.audio)
        return Facts(self.labels, self.sample_rate, self.clip_samples, self.thresholds, self.clip_from, rules)

    def write(self, folder: Path) -> None:
        """Write export.json and labels.txt."""
        write_text(folder / RECORD, json.dumps({"schema_version": SCHEMA_VERSION} | asdict(self), indent=2) + "\n")
        write_text(folder / LABELS, "\n".join(self.labels) + "\n")


def read_artifact(folder: Path) -> Artifact:
    """Read export.json.

    Raises:
        KwsError: the folder holds no export, a damaged one, one of another version, or labels of another one.
    """
    advice = "export the run again"
    content = read_json(folder / RECORD, advice, ["schema_version"])
    schema = content.pop("schema_version")
    if schema != SCHEMA_VERSION:
        raise KwsError(f"'{folder / RECORD}' has schema version {schema}, not {SCHEMA_VERSION}: {advice}")
    with whole(folder / RECORD, advice):
        files = [
            ModelFile(
                **fields
                | {"input": Port(**fields["input"]), "output": Port(**fields["output"])}
                | {"states": [[Port(**port) for port in pair] for pair in fields.get("states", [])]}
            )
            for fields in content.pop("files")
        ]
        requires = content.pop("requires", None) or []
        requires = [requires] if isinstance(requires, str) else requires  # as earlier versions wrote it
        artifact = Artifact(**content, files=files, requires=requires)
        check_whole("sample_rate", artifact.sample_rate, 1)
        check_whole("clip_samples", artifact.clip_samples or 1, 1)
        require(bool(files), "files", "a list of models", files)
        require(all(isinstance(label, str) for label in artifact.labels), "labels", "names", artifact.labels)
        AudioRules(**artifact.audio)  # checks them
        for threshold in artifact.thresholds.values():
            check_number("thresholds", threshold)
    labels = read_lines(folder / LABELS, advice)
    if labels != artifact.labels:
        raise KwsError(
            f"'{folder / LABELS}' names other labels ({', '.join(labels[:4])}, …) than {RECORD} beside it"
            f" ({', '.join(artifact.labels[:4])}, …): export the run again"
        )
    return artifact


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
