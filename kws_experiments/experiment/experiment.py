"""The objects that a configuration describes: its data and its recipe, checked before any data is read.

`config["…"]` is read here and in `kws_experiments.config` only; all other code uses an `Experiment`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property, reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kws_data.checks import check_path
from kws_data.errors import KwsError
from kws_data.streams.speech import check_speech
from kws_experiments.config import tensorflow_setup
from kws_experiments.config.compose import instantiate
from kws_experiments.experiment.checks import check_top_level, invalid_model, optimizer_numbers
from kws_experiments.experiment.pretraining import pretraining_of

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from kws_data.augment.augmentation import Augmentation
    from kws_data.clip_format import AudioRules, ClipFormat
    from kws_data.corpus import Corpus, NoiseFolders
    from kws_data.features.base import FeatureLayer
    from kws_data.pipeline import ClipSource
    from kws_data.splits import SplitPolicy
    from kws_data.task import Task
    from kws_experiments.experiment.schedules import Schedule
    from kws_experiments.experiment.settings import TrainerSettings, TuneSettings


@dataclass(frozen=True)
class Experiment:
    """The objects that a resolved configuration describes.

    Each object is built once, when it is first used; those of the data need no TensorFlow.

    Args:
        config: resolved, as returned by `kws_experiments.config.compose.compose` or stored in a run's folder.

    Raises:
        KwsError: a value is wrong that no object checks itself; the message names the key.
    """

    config: dict[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        try:
            check_top_level(self.config)
        except ValueError as error:
            raise KwsError(str(error)) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise KwsError(f"this is not a training's configuration: {type(error).__name__}: {error}") from error

    def part(self, key: str) -> Any:
        """The configuration below a dotted key, as plain data."""
        return reduce(getitem, key.split("."), self.config)

    # Identity and process

    @property
    def name(self) -> str:
        """The name of the folder that holds the run's folder."""
        return self.config["name"]

    @property
    def seed(self) -> int:
        """The seed of initial weights, order and augmentation."""
        return self.config["seed"]

    @property
    def data_seed(self) -> int:
        """The seed of the splits, of the unknown clips and of silence: of the clips to evaluate."""
        return self.config["data_seed"]

    @property
    def arithmetic(self) -> dict[str, Any]:
        """The settings that affect the last bits of results: `deterministic`, and threads: `intra_op`, `inter_op`."""
        return {"deterministic": self.config["deterministic"], **self.config["threads"]}

    @property
    def report(self) -> bool:
        """Whether a training ends with a report."""
        return self.config["report"]

    @property
    def start_from(self) -> Any:
        """The run whose weights a training starts with, or None."""
        return self.config["start_from"]

    @cached_property
    def pretraining(self) -> Experiment | None:
        """The training that comes first, whose weights this one starts with, or None."""
        config = pretraining_of(self.config)
        return None if config is None else Experiment(config)

    def starting_from(self, run: Path) -> Experiment:
        """This experiment with the weights of a run to start from, instead of a training that comes first."""
        return Experiment(self.config | {"pretrain": None, "start_from": str(run)})

    def start_tensorflow(self, **changes: Any) -> None:
        """Configure TensorFlow, with `changes` to `arithmetic`; possible once per process."""
        tensorflow_setup.start(seed=self.seed, **(self.arithmetic | changes))

    # Data

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.config["sample_rate"]

    def samples(self, milliseconds: float) -> int:
        """The number of samples in this time."""
        return round(milliseconds * self.sample_rate / 1000)

    @property
    def clip_samples(self) -> int | None:
        """The length of all clips; None if they keep their own."""
        return None if self.config["clip_ms"] is None else self.samples(self.config["clip_ms"])

    @property
    def nominal_samples(self) -> int:
        """`clip_samples`, or one second if clips keep their lengths."""
        return self.clip_form.window

    @cached_property
    def clip_form(self) -> ClipFormat:
        """How files become clips."""
        from kws_data.clip_format import ClipFormat

        rules = _audio_rules(self.config["audio"])
        try:
            return ClipFormat(self.sample_rate, self.clip_samples, self.config["clip_from"], rules)
        except ValueError as error:
            raise KwsError(str(error)) from error

    @cached_property
    def dataset(self) -> Any:
        """The location of the clips: an object of `kws_data.sources.datasets`."""
        return instantiate(self.config, "dataset")

    @cached_property
    def task(self) -> Task:
        """The words to tell apart, and what goes into silence and unknown."""
        return instantiate(self.config, "task")

    @cached_property
    def split(self) -> SplitPolicy:
        """The policy that assigns clips to training, validation and testing."""
        return instantiate(self.config, "split")

    @cached_property
    def noise_folders(self) -> NoiseFolders:
        """The folders of `noise.dirs`, and their weights."""
        return _noise_folders(self.config["noise"])

    def corpus(self, root: Path | None = None) -> Corpus:
        """Locate, catalog, split and decode the data.

        Args:
            root: the data set's folder; None means where the data set locates it.

        Raises:
            KwsError: the data are missing or unusable.
        """
        from kws_data.layout import Naming

        return self._build_corpus(
            self.dataset.locate() if root is None else root,
            self.split,
            folders=[*self.task.unknown_folders, *self.task.word_folders],
            noise_folders=self.noise_folders,
            naming=Naming(self.dataset.speaker_pattern, getattr(self.dataset, "layout", "auto")),
        )

    def corpus_for_testing(self, root: Path, split: SplitPolicy) -> Corpus:
        """Another data set, decoded like this one."""
        from kws_data.layout import Naming

        dataset = self.config["dataset"]
        naming = Naming(dataset.get("speaker_pattern"), dataset.get("layout", "auto"))
        return self._build_corpus(root, split, naming=naming)

    def _build_corpus(self, root: Path, split: SplitPolicy, **arguments: Any) -> Corpus:
        from kws_data.corpus import build_corpus

        return build_corpus(
            root,
            split,
            self.clip_form,
            data_seed=self.data_seed,
            **arguments,
        )

    def clip_source(self, corpus: Corpus, examples: pd.DataFrame, **changes: Any) -> ClipSource:
        """The source that fills batches with samples; `changes` replace the experiment's arguments of `ClipSource`."""
        from kws_data.pipeline import ClipSource
        from kws_data.task import WordTargets

        unknown = self.task.unknown_label
        arguments: dict[str, Any] = {
            "clip_samples": self.clip_samples,
            "silence_samples": self.nominal_samples,
            "silence_kind": self.task.silence_kind,
            "silence_level_db": self.task.silence_level_db,
            "data_seed": self.data_seed,
            "seed": self.seed,
            "unknown": unknown,
            "targets": WordTargets.of(examples, unknown) if self.settings.word_loss else None,
            "apart": examples["folder"].isin(self.task.few_folders).to_numpy() if self.task.few_folders else None,
        }
        return ClipSource(corpus, examples, **(arguments | changes))

    # Pipeline

    @property
    def pipeline_threads(self) -> int:
        """The number of batches prepared at once; it affects nothing but speed."""
        return self.config["pipeline"]["threads"]

    @property
    def on_device(self) -> bool:
        """Whether augmentation and features are computed inside the training step."""
        return self.config["pipeline"]["on_device"]

    @property
    def cache_memory_mb(self) -> float:
        """The most memory for the features of clips to evaluate."""
        return self.config["pipeline"]["cache_memory_mb"]

    @cached_property
    def augmentation(self) -> Augmentation:
        """The stages of `augment`, each named by its key; they may use worker processes, which `close` ends."""
        return _augmentation(self.config)

    @cached_property
    def features(self) -> FeatureLayer:
        """The front end."""
        return instantiate(self.config, "features")

    def feature_shape(self) -> tuple[int | None, int]:
        """(frames, bins) of a clip; frames is None if clips keep their lengths."""
        frames, bins = self.nominal_feature_shape()
        return (None if self.clip_samples is None else frames), bins

    def nominal_feature_shape(self) -> tuple[int, int]:
        """(frames, bins) of a clip of `nominal_samples`."""
        return self.features.output_shape_for(self.nominal_samples)

    # Model and recipe

    @cached_property
    def settings(self) -> TrainerSettings:
        """The settings of `conf/trainer/`."""
        return instantiate(self.config, "trainer")

    @cached_property
    def schedule(self) -> Schedule:
        """The schedule of the learning rate."""
        return instantiate(self.config, "schedule")

    @property
    def learning_rate(self) -> float:
        """The configured learning rate, before any schedule."""
        return self.config["optimizer"]["learning_rate"]

    @property
    def model_name(self) -> str:
        """The full name of the model function."""
        return self.config["model"]["_target_"]

    def build_network(self, num_labels: int, *, precision: str | None = None, **changes: Any) -> keras.Model:
        """The model for these features: features → logits.

        Args:
            num_labels: number of labels of the task.
            precision: replaces `trainer.precision`.
            changes: replace the configured parameters of the model.

        Raises:
            KwsError: it cannot take features of this shape, or is not a valid model.
        """
        import keras

        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(precision or self.settings.precision)
        arguments = {"input_shape": self.feature_shape(), "num_labels": num_labels, **changes}
        try:
            network = instantiate(self.config, "model", **arguments)
        except KwsError as error:
            if self.clip_samples is None and "clip_ms" not in str(error):
                shape = f"(None, {self.feature_shape()[1]})"
                raise KwsError(f"{error} (with clip_ms=null its input_shape is {shape})") from error
            raise
        finally:
            keras.config.set_dtype_policy(before)
        if problem := invalid_model(network, num_labels, any_length=self.clip_samples is None):
            raise KwsError(f"model: the result of {self.model_name} {problem}")
        return network

    def build_optimizer(
        self, network: keras.Model, *, total_steps: int, steps_per_epoch: int
    ) -> keras.optimizers.Optimizer:
        """The optimizer, with its schedule.

        Weight decay excludes norms and biases, also biases with two axes (of a GRU).

        Raises:
            KwsError: the schedule does not fit into `total_steps`.
        """
        import keras

        from kws_experiments.experiment.optimizers import norms_and_biases

        numbers: dict[str, Any] = optimizer_numbers(self.config["optimizer"])
        try:
            numbers["learning_rate"] = self.schedule.rates(
                numbers["learning_rate"], total_steps=total_steps, steps_per_epoch=steps_per_epoch
            )
        except ValueError as error:
            raise KwsError(f"schedule.{error}") from error
        optimizer = instantiate(self.config, "optimizer", **numbers)
        if optimizer.weight_decay:
            optimizer.exclude_from_weight_decay(var_list=norms_and_biases(network))
        if self.settings.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        return optimizer

    # Evaluation

    @property
    def false_accept_rate(self) -> float:
        """The false accept rate on validation that sets each keyword's threshold."""
        return self.config["evaluation"]["false_accept_rate"]

    @property
    def snrs_db(self) -> list[float]:
        """The ratios of speech to background noise to evaluate, in dB."""
        return self.config["evaluation"]["snr_db"]

    @cached_property
    def tuning(self) -> TuneSettings | None:
        """How to choose, after the training, how the run listens to long audio; None: not at all."""
        return None if self.config["tune"] is None else instantiate(self.config, "tune")

    def check_without_tensorflow(self) -> None:
        """Build everything that needs neither data nor TensorFlow, so that most wrong values are found at once.

        Raises:
            KwsError: naming the key.
        """
        for name in ("clip_form", "dataset", "task", "split", "noise_folders", "schedule", "settings", "tuning"):
            getattr(self, name)
        if self.tuning is not None:
            check_speech(self.tuning.speech, "tune.speech")
        if self.pretraining is not None:
            with _named("pretrain"):
                self.pretraining.check_without_tensorflow()

    def check_folders(self) -> None:
        """Find the folders of the user's own clips; data sets that are downloaded or made need not be there yet.

        Raises:
            KwsError: a folder is missing, or holds clips and noise.
        """
        from kws_data.corpus import require_apart
        from kws_data.folders import find_data_set, find_folder
        from kws_data.sources.datasets import Folder

        # not of a subclass, which may make the folder
        clips = [find_data_set(self.dataset.path)] if type(self.dataset) is Folder else []
        beside = [folder.dataset for folder in self.task.word_folders]
        clips += [find_folder(dataset.path, "task.word_dirs") for dataset in beside if type(dataset) is Folder]
        clips += [find_folder(folder.folder, "task.unknown_dirs") for folder in self.task.unknown_folders]
        require_apart(clips, [find_folder(folder.path, "noise.dirs") for folder in self.noise_folders.extra])
        if self.pretraining is not None:
            with _named("pretrain"):
                self.pretraining.check_folders()

    def check(self) -> Experiment:
        """Build everything that needs no data, so that wrong values are found before data are read.

        Raises:
            KwsError: naming the key.
        """
        self.check_without_tensorflow()
        for name in ("augmentation", "features"):
            getattr(self, name)
        # These two only check their parameters: the number of steps and of labels depends on the data.
        instantiate(self.config, "optimizer", **optimizer_numbers(self.config["optimizer"]))
        self.build_network(num_labels=2)
        if self.pretraining is not None:
            with _named("pretrain"):
                self.pretraining.check()
        return self


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Put a key before the one that an error names."""
    try:
        yield
    except KwsError as error:
        raise KwsError(f"{key}.{error}") from error


def _augmentation(config: dict[str, Any]) -> Augmentation:
    """The stages of `augment`, each named by its key.

    Raises:
        KwsError: naming the key.
    """
    from kws_data.augment.augmentation import Augmentation

    chosen = config["augment"]
    stages = {
        kind: {name: instantiate(config, f"augment.{kind}.{name}") for name in chosen.get(kind) or {}}
        for kind in ("waveform", "features")
    }
    try:
        return Augmentation(**stages, clipping=chosen["clipping"])
    except ValueError as error:
        raise KwsError(f"augment.{error}") from error


def _audio_rules(audio: dict[str, Any]) -> AudioRules:
    """The rules of `audio`.

    Raises:
        KwsError: naming the key.
    """
    from kws_data.clip_format import AudioRules

    known = [rule.name for rule in fields(AudioRules)]
    if not isinstance(audio, dict) or set(audio) - set(known):
        raise KwsError(f"audio must hold only {', '.join(known)}, got {audio!r}")
    try:
        return AudioRules(**audio)
    except ValueError as error:
        raise KwsError(f"audio.{error}") from error


def _noise_folders(noise: dict[str, Any]) -> NoiseFolders:
    """The folders of `noise.dirs`, and their weights.

    Raises:
        KwsError: naming the key.
    """
    from kws_data.corpus import NoiseFolder, NoiseFolders

    weights, folders = [noise["background_noise_weight"]], []
    for entry in noise["dirs"] if isinstance(noise["dirs"], list) else [noise["dirs"]]:
        given = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(given, dict) or set(given) - {"path", "weight"} or not isinstance(given.get("path"), str):
            raise KwsError(f"noise.dirs must list paths or {{path: …, weight: …}}, got {entry!r}")
        weights.append(given.get("weight", 1.0))
        try:
            folders.append(NoiseFolder(check_path("noise.dirs", given["path"]), weights[-1]))
        except ValueError as error:
            raise KwsError(str(error)) from error
    if not all(isinstance(weight, int | float) and 0 <= weight < float("inf") for weight in weights):
        raise KwsError(f"noise: weights must be numbers from 0, got {weights}")
    return NoiseFolders(folders, weights[0])
