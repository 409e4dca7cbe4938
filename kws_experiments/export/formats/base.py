"""What an export format is: one file in this folder with one class, found by the name of the file.

`saved_model.py` holds `SavedModel`, `tflite.py` holds `Tflite`. No list names them, so that a new format is one new
file. `kws export --help` imports all of them: they import TensorFlow and other large packages inside methods only.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kws_data.errors import KwsError
from kws_experiments.config.compose import compose, flattened
from kws_experiments.export.c_source import check_prefix
from kws_experiments.export.tflite_stream import STATES, form_name

if TYPE_CHECKING:
    import numpy as np

    from kws_experiments.experiment.experiment import Experiment
    from kws_experiments.export.artifact import Artifact, ModelFile
    from kws_experiments.export.scorer import Function
    from kws_experiments.export.trained import Trained


@dataclass(frozen=True)
class Options:
    """What is asked for: the options of `kws export`.

    Attributes:
        format: the name of a file in this folder.
        quantize: none; dynamic or float16 weights; or int8, everything. Not every format has all of them; None: its
            first.
        decode: the files whose names a SavedModel takes: wav; or all.
        clip_ms: the length of a clip, for a run that keeps its clips' lengths.
        c_name: the prefix of names in C source; None: one from the run's name.
        state: of the network's streaming form, internal or external; None: the network for whole clips.
        hop_ms: of the streaming form, from call to call; None: as little as it can.
        word: the one keyword of a format that has room for one; None: the run's only one.
    """

    format: str
    quantize: str | None = None
    decode: str = "wav"
    clip_ms: float | None = None
    c_name: str | None = None
    state: str | None = None
    hop_ms: float | None = None
    word: str | None = None

    def folder_name(self, quantize: str) -> str:
        """Of the export, quantized so."""
        decode = "" if self.decode == "wav" else self.decode
        parts = self.format, quantize, decode, form_name(self.state), as_file_name(self.word or "")
        return "-".join(filter(None, parts))


@dataclass(frozen=True)
class Request:
    """What to convert.

    Attributes:
        run: the run's folder.
        out: an empty folder for the models.
        format: the name of its file in this folder.
        quantize: none, dynamic, float16 or int8.
        clip_samples: samples of a clip; None: any number.
        calibration: for int8, [clips, samples] float32 waveforms of training clips.
        decode: the files whose names a SavedModel takes: wav or all.
        c_name: the prefix of names in C; None: one from the run's name.
        state: of the streaming form, internal or external; None: the network for whole clips.
        hop_ms: of the streaming form; None: as little as it can.
        word: the one keyword of a format that has room for one.
    """

    run: Path
    out: Path
    format: str
    quantize: str = "none"
    clip_samples: int | None = None
    calibration: np.ndarray | None = None
    decode: str = "wav"
    c_name: str | None = None
    state: str | None = None
    hop_ms: float | None = None
    word: str | None = None


@dataclass(frozen=True)
class Written:
    """What a format wrote.

    Attributes:
        files: the models; the first is the one to prefer. Their sizes and hashes are added later.
        notes: what the user should know.
        requires: names to look up before the model can be loaded, because that registers ops.
        streaming: of a streaming form, see `tflite_stream.described`.
    """

    files: list[ModelFile]
    notes: list[str]
    requires: list[str] = field(default_factory=list)
    streaming: dict[str, Any] = field(default_factory=dict)


class Format(ABC):
    """An export format.

    Attributes:
        about: what the models take and give, for `kws export --help`.
        quantizations: the values of `--quantize` that it has, the default first.
        decodes: the values of `--decode`; of formats that take no names of files, the default alone.
        needs: packages of the extra that has the format's name.
        any_length: whether one model can take clips of any length.
        runs_programs: whether a model can do more than compute: read and write files.
        in_c: the values of `--quantize` with which C source is written too.
        streams: the values of `--quantize` with which a streaming form can be written.
        unrolls: whether recurrent layers are written out frame by frame, where the model can (its parameter `unroll`).
        tunes: whether its sensitivities are found on its own scores.
        trained_with: the arguments of `train.py` that its runs need, such as features=micro; empty: any run.
    """

    about: ClassVar[str]
    quantizations: ClassVar[tuple[str, ...]] = ("none",)
    decodes: ClassVar[tuple[str, ...]] = ("wav",)
    needs: ClassVar[tuple[str, ...]] = ()
    any_length: ClassVar[bool] = False
    runs_programs: ClassVar[bool] = False
    in_c: ClassVar[tuple[str, ...]] = ()
    streams: ClassVar[tuple[str, ...]] = ()
    unrolls: ClassVar[bool] = False
    tunes: ClassVar[bool] = False
    trained_with: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """The name of its file."""
        return type(self).__module__.rpartition(".")[2]

    def check_choice(self, options: Options, experiment: Experiment) -> int | None:
        """The samples of a clip, or None for any number; before any work, and without TensorFlow.

        Raises:
            KwsError: an option does not go with the format or the run, or a package is missing.
        """
        quantize, decode, clip_ms = options.quantize or self.quantizations[0], options.decode, options.clip_ms
        if quantize not in self.quantizations:
            known = ", ".join(self.quantizations)
            raise KwsError(f"--quantize with {self.name} must be one of {known}, got '{quantize}'")
        if decode not in self.decodes:
            raise KwsError(f"--decode with {self.name} must be one of {', '.join(self.decodes)}, got '{decode}'")
        if options.c_name is not None:
            if quantize not in self.in_c:
                raise KwsError("--c-name goes with --format tflite and --quantize none or int8, which write C source")
            check_prefix(options.c_name)
        if options.state is not None:
            if quantize not in self.streams:
                raise KwsError("--streaming goes with --format tflite and --quantize none or int8")
            if options.state not in STATES:
                raise KwsError(f"--state must be {' or '.join(STATES)}, got '{options.state}'")
        if any(importlib.util.find_spec(package) is None for package in self.needs):
            raise KwsError(f"--format {self.name} needs {' and '.join(self.needs)}: pip install -e '.[{self.name}]'")
        self._check_training(experiment)
        if experiment.clip_samples is not None:
            if clip_ms is not None:
                length = f"clip_ms={experiment.part('clip_ms')}"
                raise KwsError(f"--clip-ms: the run's clips have one length already ({length})")
            return experiment.clip_samples
        if self.any_length:
            if clip_ms is not None:
                kind = type(self).__name__
                raise KwsError(f"--clip-ms: a {kind} takes clips of any length, as this run does (clip_ms=null)")
            return None
        if clip_ms is None:
            raise KwsError(
                f"--clip-ms: this run keeps its clips' lengths (clip_ms=null), and {self.name} needs one: "
                "--clip-ms 1000"
            )
        if not 10 <= clip_ms <= 60_000:
            raise KwsError(f"--clip-ms must be a number from 10 to 60000, got {clip_ms:g}")
        return experiment.samples(clip_ms)

    def _check_training(self, experiment: Experiment) -> None:
        wanted = compose(list(self.trained_with)) if self.trained_with else {}
        parts = {argument.partition("=")[0].partition(".")[0] for argument in self.trained_with}
        found = flattened(experiment.config)
        for key, value in flattened({part: wanted[part] for part in sorted(parts)}).items():
            if found.get(key) != value:
                raise KwsError(
                    f"--format {self.name} needs {key}={value}, and the run has {found.get(key)}: train with"
                    f" {' '.join(self.trained_with)}"
                )

    def labels_of(self, labels: list[str], word: str | None = None) -> list[str]:
        """The labels of the models' scores, in their order.

        Args:
            labels: the run's.
            word: the option `--word`.

        Raises:
            KwsError: the format has no place for the run's labels, or for the word.
        """
        if word is not None:
            raise KwsError("--word goes with --format esphome, whose models know one word")
        return labels

    def own_scores(self, scores: np.ndarray, labels: list[str], own: list[str]) -> np.ndarray:
        """What the models would give where the run gives these scores.

        Args:
            scores: [clips, labels] softmax scores.
            labels: the run's.
            own: those that `labels_of` gave.
        """
        return scores[:, [labels.index(label) for label in own]]

    @abstractmethod
    def write(self, trained: Trained, request: Request) -> Written:
        """Write the models into the folder `request.out`; in a process of its own, since a converter may abort."""

    @abstractmethod
    def load(self, path: Path) -> Function:
        """A function that runs one model on one thread.

        It takes waveforms [clips, samples] or features [clips, frames, bins], float32, as the model does, and returns
        softmax scores [clips, labels] float32.

        Raises:
            ImportError: the package that runs it is missing.
            OSError, ValueError, RuntimeError: the file is damaged.
        """

    def write_extras(self, artifact: Artifact, out: Path) -> None:  # noqa: B027 - most formats have none
        """Write what else belongs beside the models, now that the thresholds are final."""

    def versions(self) -> dict[str, str]:
        """The versions of the packages that convert."""
        return {package: version(package) for package in ("tensorflow", "keras", *self.needs)}


def as_file_name(word: str) -> str:
    """A word with `_` in place of what file names had better not have."""
    return re.sub(r"[^\w-]", "_", word)


def clean_lines(text: str) -> list[str]:
    """The lines of a converter's message that hold text, with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def format_names() -> list[str]:
    """The formats that exist: the files of this folder."""
    return [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name != "base"]


def find_format(name: str, key: str = "--format") -> Format:
    """The format of a name.

    Args:
        name: of its file.
        key: where the name was given, for the message.

    Raises:
        KwsError: there is no such format.
    """
    if name not in format_names():
        raise KwsError(f"{key} must be one of {', '.join(format_names())}, got '{name}'")
    module = importlib.import_module(f"kws_experiments.export.formats.{name}")
    return getattr(module, name.title().replace("_", ""))()
