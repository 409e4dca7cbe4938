"""Exported models as scorers, each by the runtime of its format, with one thread."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from kws_data.errors import KwsError
from kws_experiments.config.compose import instantiate
from kws_experiments.export.artifact import Artifact, Facts, ModelFile, Port
from kws_experiments.export.scorer import Scorer


def runner(folder: Path, artifact: Artifact, file: ModelFile) -> Scorer:
    """What scores waveforms by one model of an export.

    Raises:
        KwsError: the runtime is not installed, or doesn't take the file.
    """
    front_end = None if file.takes == "waveform" else _front_end(artifact)
    path = folder / file.file
    try:
        if artifact.format == "saved_model":
            return SavedModelScorer(path, artifact.facts, artifact.requires)
        if artifact.format == "tflite":
            return TFLiteScorer(path, artifact.facts, front_end, file.input, file.output)
        return OnnxScorer(path, artifact.facts, front_end)
    except ImportError as error:
        raise KwsError(f"'{path}' needs the package {error.name}: pip install -e '.[{artifact.format}]'") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise KwsError(f"'{path}' can't be loaded: {' '.join(str(error).split())[:200]}") from error


class SavedModelScorer(Scorer):
    """A SavedModel, by TensorFlow."""

    def __init__(self, path: Path, facts: Facts, requires: str | None) -> None:
        import tensorflow as tf

        super().__init__(facts)
        if requires is not None:
            importlib.import_module(requires)
        self._model = tf.saved_model.load(str(path))

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """Waveforms → scores."""
        return softmax(self._model(inputs)["predictions"].numpy(), axis=1)


class _FrontEndOutside(Scorer):
    """A model that takes features where `front_end` is given: a function waveforms → features."""

    def __init__(self, facts: Facts, front_end: Any | None) -> None:
        super().__init__(facts)
        self._front_end = front_end

    def prepare(self, waveforms: np.ndarray) -> np.ndarray:
        """Waveforms of any length → waveforms of the model's, or their features."""
        waveforms = super().prepare(waveforms)
        return waveforms if self._front_end is None else self._front_end(waveforms).numpy()


class TFLiteScorer(_FrontEndOutside):
    """A TensorFlow Lite model of one clip at a time."""

    def __init__(self, path: Path, facts: Facts, front_end: Any | None, takes: Port, gives: Port) -> None:
        import tensorflow as tf

        super().__init__(facts, front_end)
        self._takes, self._gives = takes, gives
        self._interpreter = tf.lite.Interpreter(str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        (self._input,), (self._output,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """Waveforms or features, quantized here where the model wants it → scores."""
        return np.concatenate([self._one(clip[np.newaxis]) for clip in inputs])

    def _one(self, inputs: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input["index"], quantized(inputs, self._takes))
        self._interpreter.invoke()
        return dequantized(self._interpreter.get_tensor(self._output["index"]), self._gives)


class OnnxScorer(_FrontEndOutside):
    """An ONNX model, by onnxruntime on the processor."""

    def __init__(self, path: Path, facts: Facts, front_end: Any | None) -> None:
        import onnxruntime

        super().__init__(facts, front_end)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """Waveforms or features → scores."""
        return self._session.run(["scores"], {self._input: inputs})[0]


def quantized(values: np.ndarray, port: Port) -> np.ndarray:
    """Floats as a port takes them: scaled, rounded and clipped to its integers, if it has any."""
    if port.scale is None or port.zero_point is None:
        return values.astype(port.dtype)
    limits = np.iinfo(port.dtype)
    steps = np.rint(values / np.float32(port.scale)) + port.zero_point
    return np.clip(steps, limits.min, limits.max).astype(port.dtype)


def dequantized(values: np.ndarray, port: Port) -> np.ndarray:
    """What a port gives, as float32."""
    if port.scale is None or port.zero_point is None:
        return values.astype(np.float32)
    return (values.astype(np.float32) - port.zero_point) * np.float32(port.scale)


def _front_end(artifact: Artifact) -> Any:
    """The front end that an export describes, as a graph: waveforms [batch, samples] → features."""
    import tensorflow as tf

    described = artifact.front_end
    features = instantiate({"features": described["config"]}, "features")
    features.build()
    if features.normalise:
        features.mean.assign(described["mean"])
        features.variance.assign(described["variance"])
    return tf.function(features, [tf.TensorSpec([None, artifact.clip_samples], tf.float32)])
