"""How clients that nobody here wrote run a run's exports: agreement with the original, clip by clip.

    python -m benchmarks.clients RUN [--clips 100] [--python /other/bin/python] [--node-modules /other/node_modules]

The exports that exist below RUN/exports/ are run by the clients that are installed: in this Python, or in those that
are given, since some clients don't go together; JavaScript ones by Node and by Chromium. Each is given the first clips
of the run's test split. The table says on how many the label is the original's, and the largest difference of any
score. Streaming forms are left out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import clients_alone, options
from kws_data.errors import KwsError
from kws_experiments.console.tables import Console
from kws_experiments.export.artifact import RECORD, Artifact, ModelFile, read_artifact
from kws_experiments.export.formats.base import clean_lines, find_format

_SCRIPT = Path(__file__).with_name("clients.mjs")
_PAGE = """<!doctype html><script type="importmap">
{"imports": {"@litertjs/wasm-utils": "/node_modules/@litertjs/wasm-utils/dist/index.js"}}</script>"""
_IN_PAGE = {
    "onnxruntime-web": """async ([model, inputs]) => {
        const ort = await import('/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs');
        return (await import('/clients.mjs')).onnx(ort, new Uint8Array(model), inputs); }""",
    "@litertjs/core": """async ([model, inputs]) => {
        const core = await import('/node_modules/@litertjs/core/dist/index.js');
        const wasm = '/node_modules/@litertjs/core/wasm/';
        return (await import('/clients.mjs')).litert(core, wasm, new Uint8Array(model), inputs); }""",
}
PYTHON, NODE, BROWSER = "python", "node", "chromium"


@dataclass(frozen=True)
class Client:
    """A client.

    Attributes:
        name: for the table.
        suffix: of the files that it runs; a SavedModel has none.
        package: what must be installed.
        program: that runs it.
        function: of `clients_alone`, in Python.
    """

    name: str
    suffix: str
    package: str
    program: str = PYTHON
    function: str = ""

    def takes(self, file: ModelFile) -> bool:
        """Whether it runs such files."""
        if self.package in ("mediapipe", "tflite_support") and file.takes != "waveform":
            return False
        if self.package == "tflite_micro" and not file.micro:
            return False
        if self.package == "@litertjs/core" and file.input.dtype == "int8":  # its tensors have no int8
            return False
        return Path(file.file).suffix == self.suffix and file.takes != "frames"

    def found(self, pythons: Sequence[str], node_modules: Path | None) -> str | None:
        """The Python or the folder of packages that it is installed in; None: in none."""
        if self.program == PYTHON:
            return next((python for python in pythons if _has(python, self.package)), None)
        there = node_modules is not None and (node_modules / self.package).is_dir() and shutil.which(self.program)
        return str(node_modules) if there else None

    def scores(self, place: str, path: Path, file: ModelFile, inputs: np.ndarray) -> np.ndarray:
        """Scores [clips, labels], as the model gives them, of inputs as it takes them."""
        if self.program == PYTHON:
            with tempfile.TemporaryDirectory() as folder:
                given, found = Path(folder) / "inputs.npy", Path(folder) / "scores.npy"
                np.save(given, inputs)
                _output([place, clients_alone.__file__, self.function or self.package, path, given, found])
                return np.load(found)
        values = inputs.ravel().tolist()
        request = {"name": file.input.name, "shape": inputs.shape, "values": values}
        if self.program == BROWSER:
            result = _in_browser(_IN_PAGE[self.package], Path(place), list(path.read_bytes()), request)
        else:
            with tempfile.NamedTemporaryFile("w", suffix=".json") as given:
                json.dump(request, given)
                given.flush()
                result = json.loads(_output(["node", _SCRIPT, place, path, given.name]))
        return np.array(result).reshape(len(inputs), -1)


CLIENTS = [
    Client("TensorFlow's session", "", "tensorflow"),
    Client("TensorFlow's C API", "", "tensorflow", function="tensorflow_c"),
    Client("onnxruntime", ".onnx", "onnxruntime"),
    Client("onnxruntime, Node", ".onnx", "onnxruntime-node", NODE),
    Client("onnxruntime, browser", ".onnx", "onnxruntime-web", BROWSER),
    Client("LiteRT", ".tflite", "ai_edge_litert"),
    Client("TensorFlow Lite", ".tflite", "tensorflow", function="tensorflow_lite"),
    Client("tflite-runtime", ".tflite", "tflite_runtime"),
    Client("TensorFlow Lite Micro", ".tflite", "tflite_micro"),
    Client("LiteRT.js", ".tflite", "@litertjs/core", BROWSER),
    Client("MediaPipe", ".tflite", "mediapipe"),
    Client("Task Library", ".tflite", "tflite_support", function="task_library"),
]


def _has(python: str, package: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], check=False, capture_output=True).returncode == 0


def _output(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise RuntimeError((clean_lines(done.stderr) or [f"exit status {done.returncode}"])[-1][:200])
    return done.stdout


def _in_browser(code: str, node_modules: Path, *arguments: Any) -> Any:
    """What a function gives in a page whose files are those of the packages and of this folder; no server is there."""
    from playwright.sync_api import Route, sync_playwright

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix("http://localhost/")
        if path == "clients.mjs":
            route.fulfill(path=_SCRIPT, content_type="text/javascript")
        elif path.startswith("node_modules/"):
            kind = "application/wasm" if path.endswith(".wasm") else "text/javascript"
            route.fulfill(path=node_modules / path.removeprefix("node_modules/"), content_type=kind)
        else:
            route.fulfill(body=_PAGE, content_type="text/html")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(BROWSER), args=["--no-sandbox"])
        try:
            page = browser.new_page()
            page.route("**/*", answer)
            page.goto("http://localhost/")
            return page.evaluate(code, list(arguments))
        finally:
            browser.close()


def main(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run, with exports")],
    clips: Annotated[int, typer.Option(min=1, help="of the test split")] = 100,
    python: Annotated[list[str] | None, typer.Option(help="of another environment, with clients in it")] = None,
    node_modules: Annotated[
        Path | None, typer.Option(help="with onnxruntime-node, onnxruntime-web, @litertjs/core")
    ] = None,
) -> None:
    """How clients that nobody here wrote run a run's exports."""
    printed = options.table(f"{clips} clips", ["export", "file", "client"], ["as the original", "largest difference"])
    for row in measure(run, clips, [sys.executable, *(python or [])], node_modules):
        printed.add_row(*row)
    Console().print(printed)


def measure(
    run: Path, count: int, pythons: Sequence[str] = (sys.executable,), node_modules: Path | None = None
) -> Iterator[tuple[str, ...]]:
    """(export, file, client, clips with the original's label, largest difference of a score) of each.

    Of a client that is installed nowhere, there is one row.

    Raises:
        KwsError: `run` is no finished run, its clips are gone, or it has no exports.
    """
    from kws_data.splits import TESTING
    from kws_experiments.experiment.experiment import Experiment
    from kws_experiments.export import check
    from kws_experiments.export.load import load_run
    from kws_experiments.runs.folder import RunFolder

    folder = RunFolder(run)
    experiment = Experiment(folder.read_config())
    places = sorted(record.parent for record in folder.exports.glob(f"[!.]*/{RECORD}"))
    exports = [(place, read_artifact(place)) for place in places]
    if not exports:
        raise KwsError(f"'{run}' has no exports: kws export '{run}' --format tflite")
    experiment.start_tensorflow(intra_op=1, inter_op=1)
    length = exports[0][1].clip_samples
    source = check.run_clips(folder, experiment, length)
    chosen = check.Clips(source, TESTING, source.ids(TESTING)[:count])
    waveforms, original = np.concatenate(list(chosen.waveforms())), load_run(run, length)
    scores = original.infer(waveforms)
    for client in CLIENTS:
        files = [(place, export, file) for place, export in exports for file in export.files if client.takes(file)]
        at = client.found(pythons, node_modules)
        if at is None:
            yield "", "", client.name, "not installed", ""
            continue
        for place, export, file in files:
            expected = find_format(export.format).own_scores(scores, original.labels, export.labels)
            try:
                result = client.scores(at, place / file.file, file, _inputs(export, file, waveforms))
                compared = check.compared(expected, _softmax(file, result), expected.argmax(axis=1))
                agreement = len(waveforms) - compared["disagreements"], f"{compared['largest_difference']:.2g}"
            except Exception as error:  # of whatever kind: each client has its own
                agreement = "fails", " ".join(str(error).split())[:80]
            yield export.title, file.file, client.name, *map(str, agreement)


def _inputs(export: Artifact, file: ModelFile, waveforms: np.ndarray) -> np.ndarray:
    """The clips as a model takes them."""
    from kws_experiments.export import front_end

    inputs = waveforms
    if file.takes == "features":
        inputs = front_end.rebuilt(export.front_end, export.clip_samples, {})(waveforms)
        inputs = inputs.reshape(len(inputs), *file.input.shape[1:])
    return file.input.quantized(inputs)


def _softmax(file: ModelFile, found: np.ndarray) -> np.ndarray:
    """Scores of what a model gave: a SavedModel gives logits."""
    from scipy.special import softmax

    return softmax(found, axis=1) if file.output.name == "predictions" else file.output.dequantized(found)


if __name__ == "__main__":
    options.run(main)
