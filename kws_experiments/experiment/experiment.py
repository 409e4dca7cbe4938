"""The objects that a configuration describes, checked and built before any data is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kws_data.checks import check_flag, check_list, check_number, check_whole
from kws_data.corpus import NoiseFolder
from kws_data.errors import KwsError
from kws_data.task import Task
from kws_experiments.config.compose import instantiate

if TYPE_CHECKING:
    import keras

    from kws_data.augment.augmentation import Augmentation
    from kws_data.features.base import FeatureLayer
    from kws_experiments.experiment.schedules import Schedule
    from kws_experiments.experiment.settings import TrainerSettings

_OPTIMIZER_RANGES: dict[str, tuple[float, ...]] = {
    "learning_rate": (0,),
    "momentum": (0, 1),
    "beta_1": (0, 0.999999),
    "beta_2": (0, 0.999999),
    "rho": (0, 0.999999),
    "epsilon": (0,),
    "weight_decay": (0,),
    "clipnorm": (1e-9,),
    "clipvalue": (1e-9,),
    "global_clipnorm": (1e-9,),
}


@dataclass(frozen=True)
class DataParts:
    """Those of the objects that say what a run is trained and evaluated on; they need no TensorFlow."""

    dataset: Any
    task: Task
    split: Any
    noise_folders: list[NoiseFolder]
    sample_rate: int
    clip_samples: int | None
    nominal_samples: int


@dataclass(frozen=True)
class Parts(DataParts):
    """The objects that a configuration describes, before any data is read."""

    augmentation: Augmentation
    features: FeatureLayer
    schedule: Schedule
    settings: TrainerSettings

    def feature_shape(self) -> tuple[int | None, int]:
        """(frames, bins) of a clip; frames is None where clips keep their lengths."""
        frames, bins = self.features.output_shape_for(self.nominal_samples)
        return (None if self.clip_samples is None else frames), bins

    def build_network(self, config: dict[str, Any], num_labels: int) -> keras.Model:
        """The model for these features: features → logits.

        Raises:
            KwsError: it can't take features of this shape, or is not what a model must be.
        """
        import keras

        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.settings.precision)
        try:
            network = instantiate(config, "model", input_shape=self.feature_shape(), num_labels=num_labels)
        except KwsError as error:
            if self.clip_samples is None and "clip_ms" not in str(error):
                shape = f"(None, {self.feature_shape()[1]})"
                raise KwsError(f"{error} (with clip_ms=null its input_shape is {shape})") from error
            raise
        finally:
            keras.config.set_dtype_policy(before)
        if wrong := _what_is_wrong_with(network, num_labels, self.clip_samples is None):
            raise KwsError(f"model: what {config['model']['_target_']} makes {wrong}")
        return network

    def build_optimizer(
        self, config: dict[str, Any], network: keras.Model, *, total_steps: int, steps_per_epoch: int
    ) -> keras.optimizers.Optimizer:
        """The optimizer, with its schedule; weight decay spares norms and biases, those of two axes too (a GRU's).

        Raises:
            KwsError: the schedule doesn't fit into so many steps.
        """
        import keras

        numbers: dict[str, Any] = optimizer_numbers(config["optimizer"])
        try:
            numbers["learning_rate"] = self.schedule.rates(
                numbers["learning_rate"], total_steps=total_steps, steps_per_epoch=steps_per_epoch
            )
        except ValueError as error:
            raise KwsError(f"schedule.{error}") from error
        optimizer = instantiate(config, "optimizer", **numbers)
        if optimizer.weight_decay:
            spared = [
                variable
                for variable in network.trainable_variables
                if len(variable.shape) <= 1 or variable.name in ("bias", "gamma", "beta")
            ]
            optimizer.exclude_from_weight_decay(var_list=spared)
        if self.settings.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        return optimizer


def _what_is_wrong_with(network: Any, num_labels: int, any_length: bool) -> str | None:
    """How a model that a user wrote is none, before data are read and the first step fails with TensorFlow's words."""
    import keras

    if not isinstance(network, keras.Model) or not getattr(network, "outputs", None):
        return f"must be a keras.Model(inputs, logits), and is of type {type(network).__name__}"
    if any_length and "num_frames" not in {tensor.name for tensor in network.inputs}:
        return (
            "takes no num_frames, by which it would tell a clip from its padding, as clip_ms=null needs:"
            " take the inputs of kws_models.inputs.feature_inputs, or give clip_ms"
        )
    if network.output_shape != (None, num_labels):
        return (
            f"gives {network.output_shape} when asked for {num_labels} labels, and must give (None, {num_labels}):"
            " its last layer must have num_labels units"
        )
    last = network.outputs[0]._keras_history.operation
    if isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax:
        return f"ends in a softmax ('{last.name}'), and must give logits: the loss takes the softmax itself"
    return None


def optimizer_numbers(optimizer: dict[str, Any]) -> dict[str, float]:
    """The optimizer's numbers as floats: Keras refuses some that are whole, and checks others only in training.

    Raises:
        ValueError: naming the key.
    """
    given = {key: optimizer[key] for key in _OPTIMIZER_RANGES if optimizer.get(key) is not None}
    given["learning_rate"] = optimizer.get("learning_rate")
    return {
        key: float(check_number(f"optimizer.{key}", value, *_OPTIMIZER_RANGES[key])) for key, value in given.items()
    }


def check_top_level(config: dict[str, Any]) -> None:
    """Check the keys that no object of their own looks after; needs no TensorFlow.

    Raises:
        KwsError: naming the key.
    """
    try:
        check_whole("seed", config["seed"], 0, 2**32 - 1)  # NumPy's global seed, which Keras sets, has 32 bits
        check_whole("data_seed", config["data_seed"], 0)
        check_whole("sample_rate", config["sample_rate"], 1000)
        if config["clip_ms"] is not None:
            check_number("clip_ms", config["clip_ms"], 10)
        check_whole("threads.intra_op", config["threads"]["intra_op"], 0)
        check_whole("threads.inter_op", config["threads"]["inter_op"], 0)
        check_flag("deterministic", config["deterministic"])
        check_flag("report", config["report"])
        check_whole("pipeline.threads", config["pipeline"]["threads"], 1)
        check_flag("pipeline.on_device", config["pipeline"]["on_device"])
        check_number("pipeline.cache_memory_mb", config["pipeline"]["cache_memory_mb"], 0)
        for snr_db in check_list("evaluation.snr_db", config["evaluation"]["snr_db"]):
            check_number("evaluation.snr_db", snr_db, -60, 100)
        check_number("evaluation.false_accept_rate", config["evaluation"]["false_accept_rate"], 0, 1)
        for kind in ("waveform", "features"):
            if not isinstance(config["augment"].get(kind) or {}, dict):
                raise ValueError(f"augment.{kind} must hold stages by name, got {config['augment'][kind]!r}")
        optimizer_numbers(config["optimizer"])
        _check_optimizer_flags(config["optimizer"])
    except ValueError as error:
        raise KwsError(str(error)) from error


def _check_optimizer_flags(optimizer: dict[str, Any]) -> None:
    if check_flag("optimizer.nesterov", optimizer.get("nesterov", False)) and not optimizer.get("momentum"):
        raise ValueError("optimizer.nesterov: true does nothing without momentum; give optimizer.momentum, such as 0.9")
    if optimizer.get("use_ema"):
        raise ValueError("optimizer.use_ema: Keras's average is not used here; trainer.ema_momentum=0.999 keeps one")


def build_data_parts(config: dict[str, Any]) -> DataParts:
    """Check and build what tells of the data; needs no TensorFlow.

    Raises:
        KwsError: naming the key.
    """
    clip_ms, sample_rate = config["clip_ms"], config["sample_rate"]
    nominal_samples = round((1000 if clip_ms is None else clip_ms) * sample_rate / 1000)
    return DataParts(
        dataset=instantiate(config, "dataset"),
        task=instantiate(config, "task"),
        split=instantiate(config, "split"),
        noise_folders=build_noise_folders(config["noise"]),
        sample_rate=sample_rate,
        clip_samples=None if clip_ms is None else nominal_samples,
        nominal_samples=nominal_samples,
    )


def build_parts(config: dict[str, Any]) -> Parts:
    """Check and build everything that needs no data, so that a wrong value is found before any is read.

    Raises:
        KwsError: naming the key.
    """
    parts = Parts(
        **vars(build_data_parts(config)),
        augmentation=build_augmentation(config),
        features=instantiate(config, "features"),
        schedule=instantiate(config, "schedule"),
        settings=instantiate(config, "trainer"),
    )
    # only whether they take what they are given: the data will tell how long a schedule lasts, and the labels
    instantiate(config, "optimizer", **optimizer_numbers(config["optimizer"]))
    parts.build_network(config, num_labels=2)
    return parts


def build_augmentation(config: dict[str, Any]) -> Augmentation:
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


def build_noise_folders(noise: dict[str, Any]) -> list[NoiseFolder]:
    """The folders of `noise.dirs`.

    Raises:
        KwsError: naming the key.
    """
    weights, folders = [noise["background_noise_weight"]], []
    for entry in noise["dirs"] if isinstance(noise["dirs"], list) else [noise["dirs"]]:
        fields = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(fields, dict) or set(fields) - {"path", "weight"} or not isinstance(fields.get("path"), str):
            raise KwsError(f"noise.dirs must list paths or {{path: …, weight: …}}, got {entry!r}")
        weights.append(fields.get("weight", 1.0))
        folders.append(NoiseFolder(Path(fields["path"]), weights[-1]))
    if not all(isinstance(weight, int | float) and 0 <= weight < float("inf") for weight in weights):
        raise KwsError(f"noise: weights must be numbers from 0, got {weights}")
    return folders
