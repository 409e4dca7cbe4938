"""MLPerf Tiny's keyword spotting: the network as its scripts, its runner and its reference submission take it.

Source: mlcommons/tiny, benchmark/training/keyword_spotting (get_dataset.py, keras_model.py, quantize.py,
eval_quantized_model.py) and the test inputs of its runner, which are int8 already.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from kws_data.errors import KwsError
from kws_experiments.export.formats.base import Request, Written
from kws_experiments.export.formats.tflite import Tflite, converter, write_network

if TYPE_CHECKING:
    import keras
    import numpy as np

    from kws_experiments.export.trained import Trained

NETWORK, KERAS = "kws_model.tflite", "kws_model.h5"
LABELS = ["down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "_silence_", "_unknown_"]
INPUT_SCALE, INPUT_ZERO_POINT = 0.5847029089927673, 83  # of the reference network, and of the runner's inputs
_RESOLVER = {"AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "RESHAPE", "SOFTMAX"}


class MlperfTiny(Tflite):
    """`kws_model.tflite` takes features [1, 49, 10, 1] and gives scores in MLPerf Tiny's order of labels."""

    about = (
        f"`{NETWORK}` takes features [1, 49, 10, 1], in int8 those of the benchmark's runner; `{KERAS}` is the network"
        " for evaluate.py and quantize.py"
    )
    quantizations: ClassVar[tuple[str, ...]] = ("int8", "none")
    in_c: ClassVar[tuple[str, ...]] = ()
    streams: ClassVar[tuple[str, ...]] = ()
    trained_with = ("features=mfcc_mlperf_tiny", "clip_ms=1000")

    def labels_of(self, labels: list[str], word: str | None = None) -> list[str]:
        """See Format."""
        super().labels_of(labels, word)
        if sorted(labels) != sorted(LABELS):
            raise KwsError(f"--format {self.name} needs task=keywords12, and the run's labels are {', '.join(labels)}")
        return LABELS

    def write(self, trained: Trained, request: Request) -> Written:
        """See Format. int8: everything, with the input's scale and zero point of the reference network."""
        order = [trained.facts.labels.index(label) for label in LABELS]
        trained = replace(trained, facts=replace(trained.facts, labels=LABELS))
        model = _as_reference(trained.network, order)
        model.compile(loss="sparse_categorical_crossentropy", metrics=["sparse_categorical_accuracy"])
        model.save(request.out / KERAS)
        calibration = None
        if request.calibration is not None:
            calibration = _in_range(trained.features(request.calibration).numpy())[..., None]
        shape = [1, *model.input_shape[1:]]
        network = converter(model, shape, "features", request.quantize, calibration).convert()
        file = write_network(request.out / NETWORK, network, trained, calibration)
        notes = []
        if more := sorted(set(file.operators) - _RESOLVER):
            notes = [f"the reference submission's resolver lacks {', '.join(more)}"]
        return Written([file], notes)


def _as_reference(network: keras.Model, order: list[int]) -> keras.Model:
    """[batch, 49, 10, 1] → softmax, of Keras's own layers where it can be, the labels in another order."""
    import keras
    from keras.layers import AveragePooling2D, Flatten, GlobalAveragePooling2D

    from kws_models.layers import BatchNormalization

    def plain(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, GlobalAveragePooling2D):  # which TensorFlow Lite has as MEAN
            return keras.Sequential([AveragePooling2D(layer.input.shape[1:3]), Flatten()], name=layer.name)
        if type(layer) is BatchNormalization:
            return keras.layers.BatchNormalization.from_config(layer.get_config())
        return layer.from_config(layer.get_config())

    copy = keras.models.clone_model(network, clone_function=plain)
    copy.set_weights(network.get_weights())
    last = copy.layers[-1]
    last.set_weights([weight[..., order] for weight in last.get_weights()])
    image = keras.Input((*network.input_shape[1:], 1), name="features")
    return keras.Model(image, keras.layers.Softmax()(copy(keras.layers.Reshape(network.input_shape[1:])(image))))


def _in_range(features: np.ndarray) -> np.ndarray:
    """Features [clips, frames, bins] within the runner's range, and reaching both of its ends, so that it is theirs."""
    low, high = ((end - INPUT_ZERO_POINT) * INPUT_SCALE for end in (-128, 127))
    features = features.clip(low, high)
    features[0, :2, 0] = low, high
    return features
