"""What an export format is: one file in this folder with one class, found by the name of the file.

`saved_model.py` holds `SavedModel`, `tflite.py` holds `Tflite`. No list names them, so that a new format is one new
file. `kws export --help` imports all of them: they import TensorFlow and other large packages inside methods only.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kws_data.errors import KwsError
from kws_experiments.export.c_source import check_prefix

if TYPE_CHECKING:
    import numpy as np

    from kws_experiments.experiment.experiment import Experiment
    from kws_experiments.export.artifact import Artifact, ModelFile
    from kws_experiments.export.scorer import Function
    from kws_experiments.export.trained import Trained


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
    """

    run: Path
    out: Path
    format: str
    quantize: str = "none"
    clip_samples: int | None = None
    calibration: np.ndarray | None = None
    decode: str = "wav"
    c_name: str | None = None


@dataclass(frozen=True)
class Written:
    """What a format wrote.

    Attributes:
        files: the models; the first is the one to prefer. Their sizes and hashes are added later.
        notes: what the user should know.
        requires: names to look up before the model can be loaded, because that registers ops.
    """

    files: list[ModelFile]
    notes: list[str]
    requires: list[str] = field(default_factory=list)


class Format(ABC):
    """An export format.

    Attributes:
        about: what the models take and give, for `kws export --help`.
        quantizations: the values of `--quantize` that it has.
        decodes: the values of `--decode`; of formats that take no names of files, the default alone.
        needs: packages of the extra that has the format's name.
        any_length: whether one model can take clips of any length.
        runs_programs: whether a model can do more than compute: read and write files.
        in_c: the values of `--quantize` with which C source is written too.
        unrolls: whether recurrent layers are written out frame by frame, where the model can (its parameter `unroll`).
    """

    about: ClassVar[str]
    quantizations: ClassVar[tuple[str, ...]] = ("none",)
    decodes: ClassVar[tuple[str, ...]] = ("wav",)
    needs: ClassVar[tuple[str, ...]] = ()
    any_length: ClassVar[bool] = False
    runs_programs: ClassVar[bool] = False
    in_c: ClassVar[tuple[str, ...]] = ()
    unrolls: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name of its file."""
        return type(self).__module__.rpartition(".")[2]

    def check_choice(
        self, quantize: str, decode: str, experiment: Experiment, clip_ms: float | None, c_name: str | None = None
    ) -> int | None:
        """The samples of a clip, or None for any number; before any work, and without TensorFlow.

        Args:
            quantize: the option `--quantize`.
            decode: the option `--decode`.
            experiment: the run's.
            clip_ms: the option `--clip-ms`, for a run that keeps its clips' lengths.
            c_name: the option `--c-name`.

        Raises:
            KwsError: an option does not go with the format or the run, or a package is missing.
        """
        if quantize not in self.quantizations:
            known = ", ".join(self.quantizations)
            raise KwsError(f"--quantize with {self.name} must be one of {known}, got '{quantize}'")
        if decode not in self.decodes:
            raise KwsError(f"--decode with {self.name} must be one of {', '.join(self.decodes)}, got '{decode}'")
        if c_name is not None:
            if quantize not in self.in_c:
                raise KwsError("--c-name goes with --format tflite and --quantize none or int8, which write C source")
            check_prefix(c_name)
        if any(importlib.util.find_spec(package) is None for package in self.needs):
            raise KwsError(f"--format {self.name} needs {' and '.join(self.needs)}: pip install -e '.[{self.name}]'")
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
