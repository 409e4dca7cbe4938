"""A wake word for ESPHome's micro_wake_word, Home Assistant's satellites and pymicro-wakeword.

Sources: esphome/components/micro_wake_word (manifest, resolver, features); microWakeWord for the models' shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kws_data.errors import KwsError
from kws_experiments.export.formats.base import Request, Written, as_file_name
from kws_experiments.export.formats.tflite import Tflite, described, interpreter_of, port_of

if TYPE_CHECKING:
    from pathlib import Path

    import keras
    import tensorflow as tf

    from kws_experiments.export.artifact import Artifact
    from kws_experiments.export.scorer import Function
    from kws_experiments.export.trained import Trained

# the operators that ESPHome's StreamingModel registers
RESOLVER = {
    "ADD", "ASSIGN_VARIABLE", "AVERAGE_POOL_2D", "CALL_ONCE", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED", "LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL", "PACK", "PAD", "QUANTIZE", "READ_VARIABLE", "RESHAPE",
    "SPLIT_V", "STRIDED_SLICE", "VAR_HANDLE",
}  # fmt: skip
_MOST_STATES = 20  # resource variables
_LARGEST_FEATURE = 26.0  # ESPHome's int8 of a feature: 256 / 26 * feature - 128, whatever the model's scale is
_HIGHEST_CUTOFF = 0.99  # a score is at most 255 / 256
_SPARE = 1.25  # of the arena: kernels of ESP-NN need more than the reference kernels that were measured
_BOOKKEEPING = 40_000  # bytes of an arena that was not measured, beside the activations
_TRIED = 20  # clips, in TensorFlow Lite Micro
_OLDEST_ESPHOME = "2024.7.0"  # the first with manifests of version 2


class Esphome(Tflite):
    """`<word>.json`, a manifest of version 2, and `<word>.tflite`, which takes the next frames of a stream."""

    about = (
        "`WORD.json` and `WORD.tflite`: one keyword (--word) of a causal network for ESPHome's micro_wake_word and"
        " pymicro-wakeword; needs kws tune before"
    )
    quantizations: ClassVar[tuple[str, ...]] = ("int8",)
    in_c: ClassVar[tuple[str, ...]] = ()
    streams: ClassVar[tuple[str, ...]] = ()
    trained_with = ("features=micro", "features.hop_ms=10")
    tunes = True

    def labels_of(self, labels: list[str], word: str | None = None) -> list[str]:
        """See Format: any other label, and the word."""
        from kws_data.catalog import SILENCE, UNKNOWN

        words = [label for label in labels if label not in (SILENCE, UNKNOWN)]
        word = words[0] if word is None and len(words) == 1 else word
        if word not in words or len(labels) < 2:
            given = "is missing" if word is None else f"'{word}' is no keyword of the run"
            raise KwsError(f"--word {given}: --format esphome takes one of {', '.join(words)}")
        return [UNKNOWN, word]

    def own_scores(self, scores: np.ndarray, labels: list[str], own: list[str]) -> np.ndarray:
        """See Format: the sigmoid of the word's logit above the largest other one."""
        word = labels.index(own[1])
        with np.errstate(divide="ignore"):
            others = np.delete(scores, word, axis=1).max(axis=1)
        score = scores[:, word] / (scores[:, word] + others)
        return np.stack([1 - score, score], axis=1)

    def write(self, trained: Trained, request: Request) -> Written:
        """See Format: the streaming form, with its states inside."""
        from kws_experiments.export import tflite_stream

        clip_samples, labels = trained.facts.clip_samples, self.labels_of(trained.facts.labels, request.word)
        assert clip_samples is not None
        assert request.calibration is not None
        network = margins(trained.network, trained.facts.labels.index(labels[1]))
        form = tflite_stream.streaming_form(network, trained.features, clip_samples, None)
        if len(form.states) > _MOST_STATES:
            raise KwsError(f"the network has {len(form.states)} states, and ESPHome has room for {_MOST_STATES}")
        streaming = tflite_stream.described(form, trained.features, tflite_stream.INTERNAL)
        features = _in_range(trained.features(request.calibration).numpy())
        calls = np.concatenate(list(tflite_stream.in_calls(features, streaming)))
        path = request.out / f"{_stem(labels[1])}.tflite"
        path.write_bytes(tflite_stream.converted(form, score, tflite_stream.INTERNAL, calls, unsigned=True))
        file = described(path, "frames", calls[: _TRIED * streaming["calls"]])
        if more := sorted(set(file.operators) - RESOLVER):
            raise KwsError(f"ESPHome lacks the operators {', '.join(more)}, which the network needs")
        return Written([file], [], streaming=streaming)

    def load(self, path: Path) -> Function:
        """See Format."""
        infer = super().load(path)

        def scores(calls: np.ndarray) -> np.ndarray:
            found = infer(calls)[:, 0]
            return np.stack([1 - found, found], axis=1)

        return scores

    def write_extras(self, artifact: Artifact, out: Path) -> None:
        """Write the manifest."""
        from kws_experiments.runs.folder import write_text
        from kws_experiments.runs.listening import DEFAULT, Listening

        (file,), word = artifact.files, artifact.labels[1]
        chosen = Listening.read(out).tuned[DEFAULT]
        step_ms = 1000 * artifact.front_end["frame_step"] / artifact.sample_rate
        window = int(chosen["settings"]["average_window_ms"] // (step_ms * file.input.shape[1])) + 1
        arena = file.micro.get("arena", file.micro["peak"]["bytes"] + _BOOKKEEPING)
        micro = {
            "probability_cutoff": min(chosen["thresholds"][word], _HIGHEST_CUTOFF),
            "feature_step_size": round(step_ms),
            "sliding_window_size": window,
            "tensor_arena_size": round(_SPARE * arena),
            "minimum_esphome_version": _OLDEST_ESPHOME,
        }
        manifest = {
            "type": "micro",
            "wake_word": word,
            "author": f"{artifact.run['name']} {artifact.run['fingerprint']}",
            "model": file.file,
            "trained_languages": [],
            "version": 2,
            "micro": micro,
        }
        write_text(out / f"{_stem(word)}.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def _stem(word: str) -> str:
    """Of the word's files, which must not be others of the export."""
    name = as_file_name(word)
    return f"{name}_" if name in ("export", "listening", "signature") else name


def stepper(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A model on a stream: the next frames [n, bins] float32 → scores [m] of the calls that they complete."""
    interpreter = interpreter_of(path.read_bytes())
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    takes, gives = port_of(source), port_of(result)
    kept = np.zeros((0, takes.shape[2]), np.float32)

    def feed(frames: np.ndarray) -> np.ndarray:
        nonlocal kept
        frames = np.concatenate([kept, frames])
        count = len(frames) // takes.shape[1]
        calls, kept = np.split(frames, [count * takes.shape[1]])
        scores = []
        for call in takes.quantized(calls).reshape(count, *takes.shape):
            interpreter.set_tensor(source["index"], call)
            interpreter.invoke()
            scores.append(interpreter.get_tensor(result["index"])[0, 0])
        return gives.dequantized(np.array(scores))

    return feed


def _in_range(features: np.ndarray) -> np.ndarray:
    """Features within ESPHome's range, and reaching both of its ends, so that the model's int8 is ESPHome's."""
    features = features.clip(0, _LARGEST_FEATURE)
    features[0, 0, :2] = 0, _LARGEST_FEATURE
    return features


def margins(network: keras.Model, word: int) -> keras.Model:
    """The network with another last layer: each other label's logit less the word's, [batch, labels - 1]."""
    import keras

    kernel, bias = network.layers[-1].get_weights()
    layer = keras.layers.Dense(len(bias) - 1, name="margins")
    model = keras.Model(network.input, layer(network.layers[-1].input), name=network.name)
    others = np.delete(np.arange(len(bias)), word)
    layer.set_weights([kernel[:, others] - kernel[:, [word]], bias[others] - bias[word]])
    return model


def score(margins: tf.Tensor) -> tf.Tensor:
    """Margins [1, labels - 1] → the word's score [1, 1], by operators that ESPHome has: no MAXIMUM, NEG or SOFTMAX."""
    import tensorflow as tf

    largest = tf.nn.max_pool2d(tf.reshape(margins, (1, 1, -1, 1)), (1, margins.shape[1]), 1, "VALID")
    return tf.sigmoid(tf.matmul(tf.reshape(largest, (1, 1)), [[-1.0]]))
