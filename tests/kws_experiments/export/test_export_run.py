"""`kws export` on a run that was trained on real clips, as typed."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile

from kws_experiments.export.artifact import read_artifact
from kws_experiments.export.load import load_scorer
from kws_experiments.runs.listening import Listening
from kws_experiments.runs.saved_model import load_model
from tests.conftest import ROOT, SAMPLE_RATE
from tests.kws_experiments.test_train import SMALL, only_run, train
from tests.untrained import LABELS, some_waveforms, untrained_run

pytestmark = [pytest.mark.slow, pytest.mark.both_stacks]

# All in one process, since each start of TensorFlow takes seconds; kws export itself is run once
EXPORTS = [("saved_model", "none"), ("tflite", "none"), ("onnx", "none")]
DRIVER = f"""
from pathlib import Path
from kws_experiments.export.export_run import export_run
from kws_experiments.export.formats.base import Options
for format, quantize in {EXPORTS}:
    export_run(Path(RUN), Options(format, quantize))
"""

# The exported SavedModel where this project is not installed
ALONE = """
import json, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("kws_data", "kws_models", "kws_experiments"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
names = json.loads(sys.argv[3])
by_name = [model(tf.constant(name)) for name in names]
one_by_one = [result["predictions"][0] for result in by_name]
np.testing.assert_array_equal(model(tf.constant(names))["predictions"], one_by_one)
at_once = model(np.load(sys.argv[2]))
served = model.signatures["serving_default"](waveform=np.load(sys.argv[2]))
assert set(at_once) == {"predictions", "class_ids", "class_names"} == set(served)
np.testing.assert_array_equal(at_once["predictions"], served["predictions"])
for result in by_name:
    assert result["predictions"].shape[0] == 1
tf.debugging.assert_near(tf.concat([result["predictions"] for result in by_name], 0), at_once["predictions"], atol=1e-4)
for bad in (tf.constant([[float("nan")]]), tf.constant("/nowhere.wav"), tf.constant(sys.argv[4])):
    try:
        model(bad)
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        print(" ".join(str(error).split()))
    else:
        raise AssertionError(bad)
print(json.dumps({"ids": at_once["class_ids"].numpy().tolist(), "names": [name.decode() for name in
      at_once["class_names"].numpy()], "predictions": at_once["predictions"].numpy().tolist()}))
"""


def process(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=500, **options)


def kws(*arguments: str, status: int = 0, **options: Any) -> str:
    environment = {**os.environ, "COLUMNS": "160", "PYTHONPATH": str(ROOT)}
    done = process("-m", "kws_experiments.cli.main", *arguments, env=environment, **options)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("module_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KWS_DATA", str(folder))
        yield folder


@pytest.fixture(scope="module")
def run(real_data: Path, module_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on real clips, and its exports."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, "dataset=folder", f"dataset.path={real_data}", "split=lists", *SMALL, "task.words=[yes,no,stop]",
          "model.filters=16", "trainer.epochs=6", "optimizer.learning_rate=0.01")  # fmt: skip
    run = only_run(folder)
    done = process("-c", f"RUN = {str(run)!r}\n{DRIVER}", cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr
    return run


@pytest.fixture(autouse=True)
def own_cache(cache: Path, module_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoded clips are the module's, not each test's."""
    monkeypatch.setenv("KWS_DATA", str(module_cache))


def test_float_exports_agree_on_every_clip(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("saved_model-none", "tflite-none", "onnx-none"):
        artifact = read_artifact(run / "exports" / name)
        assert artifact.run["fingerprint"] == run.name
        for file in artifact.files:
            assert file.check["clips"] == metrics["clips"]
            assert file.check["disagreements"] == 0
            assert file.check["accuracy"] == file.check["original"]["accuracy"] == metrics["accuracy"]
            assert file.check["largest_difference"] < 1e-4
        assert artifact.thresholds == Listening.read(run).thresholds
        assert artifact.sensitivities == ["clips"]
        assert (run / "exports" / name / "listening.json").read_bytes() == (run / "listening.json").read_bytes()


def test_what_is_written_says_what_was_compared(run: Path) -> None:
    own = pd.read_parquet(run / "predictions.parquet")
    for folder in (run / "exports").glob("[!.]*"):
        artifact = read_artifact(folder)
        table = pd.read_parquet(folder / "predictions.parquet")
        assert (table["model.keras predicted"] == own["predicted"]).all()
        assert (table["label"] == own["label"]).all()
        for file in artifact.files:
            agreement = (table[f"{file.file} predicted"] == own["predicted"]).mean()
            assert file.check["agreement"] == pytest.approx(agreement)
            assert file.bytes > 1000
            assert file.check["latency_ms"] > 0


def test_int8_for_microcontrollers_as_typed(run: Path, real_data: Path) -> None:
    printed = kws("export", str(run), "--format", "tflite", "--quantize", "int8")

    folder = run / "exports" / "tflite-int8"
    assert str(folder) in printed.splitlines()
    assert "network.tflite" in printed
    artifact = read_artifact(folder)
    network = artifact.files[1]
    assert (network.input.dtype, network.output.dtype) == ("int8", "int8")
    assert network.input.shape == [1, artifact.front_end["frames"], artifact.front_end["bins"]]
    for file in artifact.files:
        assert file.check["accuracy"] > file.check["original"]["accuracy"] - 0.05
        assert file.check["agreement"] > 0.9
    name = f"train_{run.name[:6]}_int8"
    header = (folder / f"{name}.h").read_text()
    assert artifact.c_name == name
    assert f"{name}_input_zero_point = {network.input.zero_point}," in header
    assert f"{name}_model_len = {network.bytes}," in header
    assert f'#include "{name}.h"' in (folder / f"{name}.c").read_text()
    assert artifact.thresholds_from == "the scores of model.tflite on the validation clips"


def test_every_form_of_the_run_scores_the_same(run: Path, real_data: Path) -> None:
    paths = sorted((real_data / "yes").glob("*.wav"))[:10] + sorted((real_data / "stop").glob("*.wav"))[:10]
    waveforms = np.zeros((20, SAMPLE_RATE), np.float32)
    for row, path in zip(waveforms, paths, strict=True):
        samples, _ = soundfile.read(path, dtype="float32")
        row[: len(samples)] = samples
    original = load_scorer(run)
    expected = original.scores(waveforms)
    for name in ("saved_model-none", "tflite-none", "tflite-none/network.tflite", "onnx-none", "onnx-none/model.onnx"):
        scorer = load_scorer(run / "exports" / name)
        assert (scorer.labels, scorer.sample_rate) == (original.labels, SAMPLE_RATE)
        np.testing.assert_allclose(scorer.scores(waveforms), expected, atol=1e-5)
        np.testing.assert_allclose(scorer.scores(waveforms[:2, :1]), original.scores(waveforms[:2, :1]), atol=1e-5)


def test_saved_model_without_this_package(run: Path, real_data: Path, tmp_path: Path) -> None:
    whole = [path for path in sorted((real_data / "no").glob("*.wav")) if soundfile.info(path).frames == SAMPLE_RATE]
    paths = whole[:8]
    waveforms = np.stack([soundfile.read(path, dtype="float32")[0] for path in paths])
    np.save(tmp_path / "waveforms.npy", waveforms)
    soundfile.write(tmp_path / "fast.wav", waveforms[0], 2 * SAMPLE_RATE)

    model = run / "exports" / "saved_model-none" / "saved_model"
    names = json.dumps([str(path) for path in paths])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = process(
        "-I", "-c", ALONE, str(model), str(tmp_path / "waveforms.npy"), names, str(tmp_path / "fast.wav"),
        cwd=tmp_path, env=environment,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    nan, nowhere, fast, answer = done.stdout.splitlines()
    assert "waveform : Tensor had NaN" in nan
    assert "No such file" in nowhere
    assert "the file must have 16000 samples a second" in fast
    answer = json.loads(answer)
    labels = (run / "labels.txt").read_text().splitlines()
    expected = load_scorer(run).scores(waveforms)
    exponents = np.exp(answer["predictions"])
    np.testing.assert_allclose(exponents / exponents.sum(axis=1, keepdims=True), expected, atol=1e-5)
    assert answer["ids"] == expected.argmax(axis=1).tolist()
    assert answer["names"] == [labels[index] for index in answer["ids"]]


def test_on_a_full_disk_the_older_export_stays(run: Path) -> None:
    folder = run / "exports" / "tflite-none"
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

    printed = kws("export", str(run), "--format", "tflite", "--no-check", status=1, preexec_fn=little_room)

    assert "File too large" in printed
    assert "Traceback" not in printed
    assert sum(line.startswith("error: ") for line in printed.splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not list((run / "exports").glob("*.tmp*"))


def test_benchmark_tells_what_a_quantized_front_end_costs(run: Path) -> None:
    done = process("-m", "benchmarks.quantized_front_end", str(run), cwd=ROOT, env=os.environ | {"COLUMNS": "120"})
    assert done.returncode == 0, done.stdout + done.stderr
    clips = json.loads((run / "metrics.json").read_text())["clips"]
    rows = {name: [float(value) for value in values] for name, *values in cells(done.stdout)}
    same = {name: values[1] for name, values in rows.items()}
    assert same["nothing"] == clips
    assert same["network, float16"] >= 0.99 * clips
    assert min(same["network, int8"], same["network, int8, reference kernels"]) > 0.9 * clips
    assert same["front end and network, int8"] < same["network, int8"]
    assert same["front end and network, dynamic"] <= same["network, dynamic"]


def test_benchmark_compares_clients_clip_by_clip(run: Path) -> None:
    environment = os.environ | {"COLUMNS": "160", "PYTHONPATH": str(ROOT)}
    done = process("-m", "benchmarks.clients", str(run), "--clips", "20", cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {(export, client): (same, apart) for export, _, client, same, apart in cells(done.stdout)}
    for row in (
        ("onnx, none", "onnxruntime"), ("saved_model, none", "TensorFlow's session"), ("tflite, none", "LiteRT"),
    ):  # fmt: skip
        assert rows[row][0] == "20"
        assert float(rows[row][1]) < 1e-4


def cells(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if line[:1] == "│"]


def test_mistakes_are_one_line(run: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ([str(run), "--format", "h5"], "error: --format must be one of"),
        ([str(tmp_path), "--format", "onnx"], "holds no run: give the folder of a run"),
    ):
        printed = kws("export", *arguments, status=1)
        assert message in printed
        assert len(printed.strip().splitlines()) == 1


def test_a_bare_process_loads_a_run_with_its_labels(tmp_path: Path) -> None:
    path = untrained_run(tmp_path / "run")
    np.save(tmp_path / "clips.npy", some_waveforms(3))
    code = """
import sys, kws_experiments
assert not {"keras", "tensorflow", "numpy", "pandas"} & set(sys.modules), "import kws_experiments must stay light"
trained = kws_experiments.load("run")
import numpy as np
clips = np.load("clips.npy")
np.save("logits.npy", trained.model(clips))
np.save("scores.npy", trained.scores(clips[:, :15000]))
print(trained.labels, trained.thresholds, trained.sample_rate, trained.clip_samples)
"""
    done = process("-c", code, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{LABELS} {{'yes': 0.5, 'no': 0.75}} 16000 16000\n"
    assert done.stderr == ""
    expected = load_model(path)(some_waveforms(3))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy").sum(axis=1), 1, rtol=1e-5)


def test_the_converter_ends_with_a_killed_export_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = untrained_run(tmp_path / "run")
    command = [sys.executable, "-m", "kws_experiments.cli.main", "export", str(path), "--format=tflite", "--no-check"]
    with subprocess.Popen(command, cwd=ROOT) as exporting:
        children: list[psutil.Process] = []
        while not children and exporting.poll() is None:
            children = psutil.Process(exporting.pid).children()
            time.sleep(0.05)
        exporting.kill()
    assert psutil.wait_procs(children, 20)[1] == []
    assert children
    assert list(path.rglob("*.tmp"))

    assert process(*command[1:], cwd=ROOT).returncode == 0
    assert not list(path.rglob("*.tmp*"))
