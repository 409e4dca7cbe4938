"""One client of an export, by whatever Python has it: `PYTHON clients_alone.py CLIENT MODEL INPUTS.npy SCORES.npy`.

It imports nothing of this project, which that Python need not have. The inputs are as the model takes them, [clips, …],
and so are the scores, [clips, labels].
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

MICRO_BYTES = 64_000_000


def tensorflow(path: str, clips: np.ndarray) -> np.ndarray:
    """TensorFlow's session: logits."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        opened = tf.Session()
        ports = tf.saved_model.loader.load(opened, ["serve"], path).signature_def["serving_default"]
    return opened.run(ports.outputs["predictions"].name, {ports.inputs["waveform"].name: clips})


def tensorflow_c(path: str, clips: np.ndarray) -> np.ndarray:
    """TensorFlow's C API, without its Python: logits."""
    from ctypes import CDLL, Structure, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p, memmove

    class Port(Structure):
        _fields_ = (("operation", c_void_p), ("index", c_int))

    (package,) = find_spec("tensorflow").submodule_search_locations
    library = CDLL(f"{package}/libtensorflow_cc.so.2")

    def call(name: str, *arguments: Any, gives: Any = c_void_p) -> Any:
        function = getattr(library, name)
        function.restype = gives
        return function(*arguments)

    status, graph = c_void_p(call("TF_NewStatus")), c_void_p(call("TF_NewGraph"))

    def check() -> None:
        if call("TF_GetCode", status, gives=c_int):
            raise RuntimeError(call("TF_Message", status, gives=c_char_p).decode())

    tags, options = (c_char_p * 1)(b"serve"), c_void_p(call("TF_NewSessionOptions"))
    opened = call("TF_LoadSessionFromSavedModel", options, None, path.encode(), tags, 1, graph, None, status)
    check()
    # as saved_model_cli shows them
    source = Port(call("TF_GraphOperationByName", graph, b"serving_default_waveform"), 0)
    result = Port(call("TF_GraphOperationByName", graph, b"StatefulPartitionedCall_1"), 2)

    clips = np.ascontiguousarray(clips, np.float32)
    shape, is_float = (c_int64 * 2)(*clips.shape), 1
    tensor = c_void_p(call("TF_AllocateTensor", is_float, shape, 2, c_size_t(clips.nbytes)))
    memmove(call("TF_TensorData", tensor), clips.ctypes.data, clips.nbytes)
    inputs, outputs = (c_void_p * 1)(tensor), (c_void_p * 1)()
    call(
        "TF_SessionRun", c_void_p(opened), None, byref(source), inputs, 1, byref(result), outputs, 1, None, 0, None,
        status, gives=None,
    )  # fmt: skip
    check()
    found = c_void_p(outputs[0])
    scores = np.empty([call("TF_Dim", found, axis, gives=c_int64) for axis in range(2)], np.float32)
    memmove(scores.ctypes.data, call("TF_TensorData", found), scores.nbytes)
    return scores


def onnxruntime(path: str, clips: np.ndarray) -> np.ndarray:
    """onnxruntime, all clips at once."""
    import onnxruntime

    opened = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return opened.run(None, {opened.get_inputs()[0].name: clips})[0]


def _interpreted(interpreter: Any, clips: np.ndarray) -> np.ndarray:
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    rows = []
    for clip in clips:
        interpreter.set_tensor(source, clip[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(result)[0])
    return np.array(rows)


def ai_edge_litert(path: str, clips: np.ndarray) -> np.ndarray:
    """LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    return _interpreted(Interpreter(path), clips)


def tensorflow_lite(path: str, clips: np.ndarray) -> np.ndarray:
    """TensorFlow's own interpreter."""
    import tensorflow as tf

    return _interpreted(tf.lite.Interpreter(path), clips)


def tflite_runtime(path: str, clips: np.ndarray) -> np.ndarray:
    """tflite-runtime, the interpreter by itself before LiteRT."""
    from tflite_runtime.interpreter import Interpreter

    return _interpreted(Interpreter(path), clips)


def tflite_micro(path: str, clips: np.ndarray) -> np.ndarray:
    """TensorFlow Lite Micro."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter, rows = runtime.Interpreter.from_file(path, arena_size=MICRO_BYTES), []
    for clip in clips:
        interpreter.set_input(clip[np.newaxis], 0)
        interpreter.invoke()
        rows.append(interpreter.get_output(0)[0])
    return np.array(rows)


def mediapipe(path: str, clips: np.ndarray) -> np.ndarray:
    """MediaPipe's audio classifier, by the labels in the file."""
    from mediapipe.tasks import python as tasks
    from mediapipe.tasks.python import audio
    from mediapipe.tasks.python.components.containers import AudioData

    folder = Path(path).parent
    labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    rate = json.loads((folder / "export.json").read_text(encoding="utf-8"))["sample_rate"]
    chosen, rows = audio.AudioClassifierOptions(base_options=tasks.BaseOptions(model_asset_path=path)), []
    with audio.AudioClassifier.create_from_options(chosen) as classifier:
        for clip in clips:
            found = classifier.classify(AudioData.create_from_array(clip.astype(float), rate))
            by_name = {each.category_name: each.score for each in found[0].classifications[0].categories}
            rows.append([by_name[label] for label in labels])
    return np.array(rows)


def task_library(path: str, clips: np.ndarray) -> np.ndarray:
    """The audio classifier of TensorFlow Lite's Task Library, by the labels in the file."""
    from tflite_support.task import audio

    folder, rows = Path(path).parent, []
    labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    classifier = audio.AudioClassifier.create_from_file(path)
    tensor = classifier.create_input_tensor_audio()
    for clip in clips:
        tensor.load_from_array(clip[:, np.newaxis].astype(np.float32))
        found = classifier.classify(tensor).classifications[0].categories
        by_name = {each.category_name: each.score for each in found}
        rows.append([by_name[label] for label in labels])
    return np.array(rows)


if __name__ == "__main__":
    client, model, inputs, scores = sys.argv[1:]
    np.save(scores, globals()[client](model, np.load(inputs)))
