"""How clients that nobody here wrote run a run's exports: agreement with the original, clip by clip.

    python -m benchmarks.clients RUN [--clips 100]

The exports that exist below RUN/exports/ are run by the clients that are installed: TensorFlow's session (SavedModel),
onnxruntime (ONNX), LiteRT and TensorFlow Lite's interpreter, MediaPipe's audio classifier (`model.tflite`), and
TensorFlow Lite Micro (`network.tflite` in int8). Each is given the first clips of the run's test split. The table says
on how many the label is the original's, and the largest difference of any score.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import options
from kws_data.errors import KwsError
from kws_experiments.console.tables import Console
from kws_experiments.export.artifact import RECORD, ModelFile, read_artifact

Client = Callable[[Path, ModelFile], Callable[[np.ndarray], np.ndarray]]


def session(path: Path, _: ModelFile) -> Callable[[np.ndarray], np.ndarray]:
    """TensorFlow's session, as in the C API."""
    import tensorflow.compat.v1 as tf
    from scipy.special import softmax

    with tf.Graph().as_default():
        opened = tf.Session()
        ports = tf.saved_model.loader.load(opened, ["serve"], str(path)).signature_def["serving_default"]
    result, source = ports.outputs["predictions"].name, ports.inputs["waveform"].name
    return lambda clips: softmax(opened.run(result, {source: clips}), axis=1)


def onnxruntime(path: Path, file: ModelFile) -> Callable[[np.ndarray], np.ndarray]:
    """onnxruntime, all clips at once."""
    import onnxruntime

    opened = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda clips: opened.run(None, {file.input.name: clips})[0]


def _signature(interpreter: Any, file: ModelFile) -> Callable[[np.ndarray], np.ndarray]:
    run = interpreter.get_signature_runner("serving_default")

    def scores(clips: np.ndarray) -> np.ndarray:
        found = [run(**{file.input.name: file.input.quantized(clip[np.newaxis])})["scores"] for clip in clips]
        return file.output.dequantized(np.concatenate(found))

    return scores


def litert(path: Path, file: ModelFile) -> Callable[[np.ndarray], np.ndarray]:
    """LiteRT, by the signature."""
    from ai_edge_litert.interpreter import Interpreter

    return _signature(Interpreter(str(path)), file)


def tensorflow_lite(path: Path, file: ModelFile) -> Callable[[np.ndarray], np.ndarray]:
    """TensorFlow's own interpreter, by the signature."""
    import tensorflow as tf

    return _signature(tf.lite.Interpreter(str(path)), file)


def mediapipe(path: Path, _: ModelFile) -> Callable[[np.ndarray], np.ndarray]:
    """MediaPipe's audio classifier, by the labels in the file."""
    from mediapipe.tasks import python as tasks
    from mediapipe.tasks.python import audio
    from mediapipe.tasks.python.components.containers import AudioData

    labels = (path.parent / "labels.txt").read_text(encoding="utf-8").splitlines()
    rate = json.loads((path.parent / "export.json").read_text())["sample_rate"]

    def scores(clips: np.ndarray) -> np.ndarray:
        chosen = audio.AudioClassifierOptions(base_options=tasks.BaseOptions(model_asset_path=str(path)))
        with audio.AudioClassifier.create_from_options(chosen) as classifier:
            rows = []
            for clip in clips:
                found = classifier.classify(AudioData.create_from_array(clip.astype(float), rate))
                by_name = {each.category_name: each.score for each in found[0].classifications[0].categories}
                rows.append([by_name[label] for label in labels])
        return np.array(rows)

    return scores


def tensorflow_lite_micro(path: Path, file: ModelFile) -> Callable[[np.ndarray], np.ndarray]:
    """TensorFlow Lite Micro."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(path, arena_size=64_000_000)

    def one(clip: np.ndarray) -> np.ndarray:
        interpreter.set_input(file.input.quantized(clip[np.newaxis]), 0)
        interpreter.invoke()
        return interpreter.get_output(0)

    return lambda clips: file.output.dequantized(np.concatenate([one(clip) for clip in clips]))


# by the suffix of a file: the client, the package that it needs
CLIENTS: dict[str, list[tuple[Client, str]]] = {
    "": [(session, "tensorflow")],
    ".onnx": [(onnxruntime, "onnxruntime")],
    ".tflite": [
        (litert, "ai_edge_litert"),
        (tensorflow_lite, "tensorflow"),
        (mediapipe, "mediapipe"),
        (tensorflow_lite_micro, "tflite_micro"),
    ],
}


def main(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run, with exports")],
    clips: Annotated[int, typer.Option(min=1, help="of the test split")] = 100,
) -> None:
    """How clients that nobody here wrote run a run's exports."""
    printed = options.table(f"{clips} clips", ["export", "file", "client"], ["as the original", "largest difference"])
    for row in measure(run, clips):
        printed.add_row(*row)
    Console().print(printed)


def measure(run: Path, count: int) -> Iterator[tuple[str, ...]]:
    """(export, file, client, clips with the original's label, largest difference of a score) of each.

    Raises:
        KwsError: `run` is no finished run, its clips are gone, or it has no exports.
    """
    from kws_data.splits import TESTING
    from kws_experiments.experiment.experiment import Experiment
    from kws_experiments.export import check, front_end
    from kws_experiments.export.load import load_run
    from kws_experiments.runs.folder import RunFolder

    folder = RunFolder(run)
    experiment = Experiment(folder.read_config())
    exports = [read_artifact(record.parent) for record in sorted(folder.exports.glob(f"[!.]*/{RECORD}"))]
    places = sorted(record.parent for record in folder.exports.glob(f"[!.]*/{RECORD}"))
    if not exports:
        raise KwsError(f"'{run}' has no exports: kws export '{run}' --format tflite")
    experiment.start_tensorflow(intra_op=1, inter_op=1)
    source = check.run_clips(folder, experiment, exports[0].clip_samples)
    chosen = check.Clips(source, TESTING, source.ids(TESTING)[:count])
    waveforms = np.concatenate(list(chosen.waveforms()))
    original = load_run(run, exports[0].clip_samples).infer(waveforms)
    for artifact, place in zip(exports, places, strict=True):
        for file in artifact.files:
            inputs = waveforms
            if file.takes == "features":
                inputs = front_end.rebuilt(artifact.front_end, artifact.clip_samples)(waveforms)
            for client, package in CLIENTS[Path(file.file).suffix]:
                row = artifact.title, file.file, client.__name__
                takes_it = {mediapipe: file.takes == "waveform", tensorflow_lite_micro: bool(file.micro)}
                if not takes_it.get(client, True):
                    continue
                if importlib.util.find_spec(package) is None:
                    yield *row, "not installed", ""
                    continue
                result = check.compared(original, client(place / file.file, file)(inputs), chosen.labels)
                yield *row, str(len(inputs) - result["disagreements"]), f"{result['largest_difference']:.2g}"


if __name__ == "__main__":
    options.run(main)
