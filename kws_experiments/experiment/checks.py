"""Checks of a configuration that no object of its own makes: top-level keys, the optimizer's numbers, the model."""

from __future__ import annotations

from typing import Any

from kws_data.checks import check_flag, check_list, check_number, check_whole
from kws_experiments.config.compose import flattened

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


def check_top_level(config: dict[str, Any]) -> None:
    """Check the keys that no object checks; needs no TensorFlow.

    Raises:
        ValueError: naming the key.
    """
    for key, value in flattened(config).items():
        if "${" in str(value):  # it is resolved already, and Hydra would do it again
            raise ValueError(f"{key}: '{str(value)[:200]}' holds ${{, which is read as the name of another key")
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
    if config["pretrain"] is not None and config["start_from"] is not None:
        raise ValueError("start_from: the weights come from pretrain; give one of the two, the other as null")
    if config["trainer"].get("distillation") and config["start_from"] is None:
        raise ValueError(
            "trainer.distillation: keeps the outputs of the run in start_from, and none is given; give one, or 0 here"
        )
    for kind in ("waveform", "features"):
        if not isinstance(config["augment"].get(kind) or {}, dict):
            raise ValueError(f"augment.{kind} must hold stages by name, got {config['augment'][kind]!r}")
    optimizer = config["optimizer"]
    optimizer_numbers(optimizer)
    if check_flag("optimizer.nesterov", optimizer.get("nesterov", False)) and not optimizer.get("momentum"):
        raise ValueError("optimizer.nesterov: true does nothing without momentum; give optimizer.momentum, such as 0.9")
    if optimizer.get("use_ema"):
        raise ValueError("optimizer.use_ema: Keras's average is not used here; trainer.ema_momentum=0.999 keeps one")


def optimizer_numbers(optimizer: dict[str, Any]) -> dict[str, float]:
    """The optimizer's numbers as floats: Keras refuses some integers, and checks other values only in training.

    Raises:
        ValueError: naming the key.
    """
    given = {key: optimizer[key] for key in _OPTIMIZER_RANGES if optimizer.get(key) is not None}
    given["learning_rate"] = optimizer.get("learning_rate")
    return {
        key: float(check_number(f"optimizer.{key}", value, *_OPTIMIZER_RANGES[key])) for key, value in given.items()
    }


def invalid_model(network: Any, num_labels: int, *, any_length: bool) -> str | None:
    """Why this is not a valid model, or None; checked before data are read, not by TensorFlow in the first step."""
    import keras

    if not isinstance(network, keras.Model) or not getattr(network, "outputs", None):
        return f"must be a keras.Model(inputs, logits), and is of type {type(network).__name__}"
    if any_length and "num_frames" not in {tensor.name for tensor in network.inputs}:
        return (
            "takes no num_frames, which separates a clip from its padding and is needed with clip_ms=null:"
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
