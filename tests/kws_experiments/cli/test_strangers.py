"""Folders from strangers: each command refuses with one line what would run their code, and nothing of it runs."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from kws_data.errors import KwsError
from kws_experiments.config.compose import fingerprint
from kws_experiments.export.artifact import Artifact, ModelFile, Port, content_hash
from kws_experiments.runs.finished import FinishedRun
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.seal import seal
from kws_experiments.runs.trust import SIGNATURE, sign
from kws_experiments.training.start_from import find_origin
from tests.conftest import ROOT, SAMPLE_RATE, MakeFolder, tone
from tests.kws_experiments.config.test_allowed import write_model
from tests.kws_experiments.conftest import Kws
from tests.kws_experiments.test_train import only_run, train, two_words

HARMLESS = ROOT / "tests" / "data" / "run_of_0.1.0"
STAGE = "augment.waveform.audiomentations.transform.transforms.1"


@dataclasses.dataclass
class Stranger:
    """A run's folder, made so that only the check of what it names stands in the way.

    Attributes:
        run: it.
        canary: the file that code from it would make.
    """

    run: RunFolder
    canary: Path

    def set(self, key: str, value: Any) -> None:
        config = yaml.safe_load(self.run.config.read_text())
        node = config
        *parents, last = key.split(".")
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
        node[int(last) if isinstance(node, list) else last] = value
        self.run.config.write_text(yaml.safe_dump(config))
        self.settle()

    def settle(self) -> None:
        """Make the records fit the files."""
        self.run.write_record(
            files=seal(self.run), fingerprint=fingerprint(yaml.safe_load(self.run.config.read_text()))
        )

    def evil_module(self, folder: Path) -> None:
        (folder / "evil.py").write_text(f"open({str(self.canary)!r}, 'w')\n\ndef model(**given):\n    return None\n")

    def session(self, **values: Any) -> None:
        content = json.loads(self.run.environment.read_text())
        content["sessions"][-1] |= values
        self.run.environment.write_text(json.dumps(content))
        self.settle()


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stranger:
    shutil.copytree(HARMLESS / "run", tmp_path / "stranger")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    made = Stranger(RunFolder(tmp_path / "stranger"), tmp_path / "canary")
    made.set("dataset.path", str(HARMLESS / "clips"))
    soundfile.write(tmp_path / "clip.wav", tone(440), SAMPLE_RATE)
    return made


def names(key: str, target: str, **arguments: Any) -> Callable[[Stranger], str]:
    """A configuration that names something at a key; the end of the line that refuses it."""

    def change(stranger: Stranger) -> str:
        stranger.set(key, {"_target_": target, **arguments} | ({"command": touch(stranger)} if not arguments else {}))
        return f"{key} names {target}"

    return change


def touch(stranger: Stranger) -> str:
    return f"touch {stranger.canary}"


class Pickled:
    """What makes the canary when it is loaded."""

    def __init__(self, stranger: Stranger) -> None:
        self.command = touch(stranger)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def pickled(target: str) -> Callable[[Stranger], str]:
    def change(stranger: Stranger) -> str:
        file = stranger.run.path / "data.pkl"
        file.write_bytes(pickle.dumps(Pickled(stranger)))
        stranger.set("dataset", {"_target_": target, "_args_": [str(file)]})
        return f"dataset names {target}"

    return change


def module_in(where: str) -> Callable[[Stranger], str]:
    def change(stranger: Stranger) -> str:
        stranger.evil_module(stranger.run.path if where == "run" else Path.cwd())
        stranger.set("model._target_", "evil.model")
        return "model names evil.model"

    return change


def interpolation(stranger: Stranger) -> str:
    stranger.set("dataset.path", "${oc.env:PATH}")
    return "dataset.path holds an interpolation, ${oc.env:PATH}"


def pretrained_in(name: str) -> Callable[[Stranger], str]:
    def change(stranger: Stranger) -> str:
        stranger.set("pretrain", {"name": name, "trainer": {"epochs": 1}})
        return f"pretrain.name leads out of runs/ to {name}"

    return change


def forged(stranger: Stranger) -> str:
    """Signed by another key."""
    stranger.set("model._target_", "evil.model")
    sign(stranger.run.path)
    signature = json.loads((stranger.run.path / SIGNATURE).read_text())
    (stranger.run.path / SIGNATURE).write_text(json.dumps(signature | {"hmac": "0" * 64}))
    return "model names evil.model"


def swapped(stranger: Stranger) -> str:
    """Signed here, and another model put into it."""
    sign(stranger.run.path)
    described = {"module": "evil", "class_name": "Net", "config": {}, "registered_name": "evil>Net"}
    return model(described)(stranger)


def model(described: dict[str, Any]) -> Callable[[Stranger], str]:
    def change(stranger: Stranger) -> str:
        write_model(stranger.run.model, described)
        stranger.settle()
        return f"it names {described['module']}.{described['class_name']}"

    return change


def link(name: str, told: str) -> Callable[[Stranger], str]:
    """A part of the folder that is a link to something outside."""

    def change(stranger: Stranger) -> str:
        secret = stranger.run.path.parent / "secret"
        secret.mkdir()
        (secret / "mine.txt").write_text("a secret")
        part = stranger.run.path / name
        if part.is_file():
            part.unlink()
        part.symlink_to(secret / "mine.txt" if part.suffix else secret)
        return told

    return change


LINK = "it is a link to something outside its folder"
CONFIGS: dict[str, Callable[[Stranger], str]] = {
    **{
        f"os.system at {key}": names(key, "os.system")
        for key in (
            "dataset", "task", "split", "features", "model", "optimizer", "schedule", "trainer", "loggers.mine",
            "augment.waveform.mine", "augment.features.mine", "augment.waveform.audiomentations", STAGE,
            f"{STAGE}.p", "dataset.path", "model.weight_decay", "noise.dirs", "threads.intra_op",
        )
    },
    **{f"{target} as the data set": pickled(target) for target in ("pandas.read_pickle", "joblib.load", "numpy.load")},
    "builtins.eval": names("model", "builtins.eval", source="open('canary', 'w')"),
    "a module's own import": names("dataset", "kws_data.sources.extract.subprocess.run"),
    "a package's own import": names("split", "kws_data.audio.soundfile.os.system"),
    "this project's other functions": names("dataset", "kws_data.storage.atomic.remove", path="/"),
    "hydra.utils.instantiate": names("model", "hydra.utils.instantiate", config={"_target_": "os.system"}),
    "hydra.utils.get_method": names(STAGE, "hydra.utils.get_method", path="os.system"),
    "audiomentations.Lambda": names(STAGE, "audiomentations.Lambda", transform={"_target_": "os.getcwd"}),
    "a Lambda layer": names("model", "keras.layers.Lambda", function="x"),
    "a module in the run's folder": module_in("run"),
    "a module in the current folder": module_in("here"),
    "an interpolation": interpolation,
    "a logger of the pre-training": names(
        "pretrain.loggers.mine", "kws_experiments.training.mlflow_log.MLflowLog", tracking_uri="x", experiment="x"
    ),
    "a pre-training elsewhere": pretrained_in("../../../canary"),
    "a pre-training in the root folder": pretrained_in("/canary"),
    "a forged signature": forged,
    "a link to read": link("labels.txt", LINK),
    "a link to write to": link("exports", LINK),
    "a link deep inside": link("data/set_aside.csv", LINK),
}  # fmt: skip
MODELS: dict[str, Callable[[Stranger], str]] = {
    "a Lambda layer in the model": model({"module": "keras.layers", "class_name": "Lambda", "config": {}}),
    "a SavedModel in the model": model({"module": "keras.layers", "class_name": "TFSMLayer", "config": {}}),
    "a class of another module": model(
        {"module": "evil", "class_name": "Net", "config": {}, "registered_name": "evil>Net"}
    ),
    "a model put into a signed run": swapped,
}


def refused(kws: Kws, stranger: Stranger, *command: object, status: int = 1) -> str:
    """The one line of a command that refuses; nothing was run, and nothing made outside the folder."""
    before = sorted(stranger.run.path.parent.rglob("*"))
    result = kws(*command)
    assert result.status == status, result.out
    (line,) = result.err.strip().splitlines()
    assert sorted(stranger.run.path.parent.rglob("*")) == before
    assert not stranger.canary.exists()
    return line


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_from_elsewhere_runs_nothing(case: str, kws: Kws, stranger: Stranger) -> None:
    told = CONFIGS[case](stranger)
    run, clip = stranger.run.path, stranger.run.path.parent / "clip.wav"
    lines = [
        refused(kws, stranger, "label", run, clip),
        refused(kws, stranger, "evaluate", run),
        refused(kws, stranger, "export", run, "--format", "tflite"),
        refused(kws, stranger, "report", run),
        refused(kws, stranger, "stream", run, clip),
        refused(kws, stranger, "demo", run),
        refused(kws, stranger, "make-stream", run, "--out", run.parent / "stream"),
    ]
    if (run / "labels.txt").is_symlink() or (run / "data" / "set_aside.csv").is_symlink():
        told = LINK  # what was linked is not what was sealed, either
    else:
        lines.append(refused(kws, stranger, "reproduce", run, status=2))
    with pytest.raises(KwsError) as caught:
        find_origin(str(run))
    assert kws("runs", run.parent).status == 0  # it lists what is there, and builds nothing
    assert not stranger.canary.exists()
    print(f"{case}: {lines[0]}")
    for line in (*lines, str(caught.value)):
        assert told in line
        assert "--trust (or KWS_TRUST=1) allows it" in line
        assert "a secret" not in line


@pytest.mark.parametrize("case", MODELS)
def test_a_model_from_elsewhere_runs_nothing(case: str, kws: Kws, stranger: Stranger) -> None:
    told = MODELS[case](stranger)
    run, clip = stranger.run.path, stranger.run.path.parent / "clip.wav"
    for command in (["label", run, clip], ["stream", run, clip], ["demo", run]):
        line = refused(kws, stranger, *command)
        assert told in line
    print(f"{case}: {line}")


def test_a_run_from_elsewhere_logs_nowhere(kws: Kws, stranger: Stranger) -> None:
    """Whoever finishes it, adds a word to it, or repeats it."""
    pytest.importorskip("mlflow")
    elsewhere = stranger.run.path.parent / "elsewhere"
    logger = {
        "_target_": "kws_experiments.training.mlflow_log.MLflowLog", "tracking_uri": str(elsewhere), "experiment": "x",
    }  # fmt: skip
    stranger.set("loggers.mlflow", logger)
    stranger.run.write_record(status="trained")
    assert kws("report", stranger.run.path).status == 0
    assert not elsewhere.exists()
    assert FinishedRun.open(stranger.run.path).config["loggers"] == {}
    sign(stranger.run.path)
    assert FinishedRun.open(stranger.run.path).config["loggers"] == {"mlflow": logger}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics.json", {"accuracy": "<b>x"}),
        ("cost.json", {"parameters": [1]}),
        ("new_words.json", {"words": "x", "false_accept_rate": 0.01}),
        ("new_words.json", {"words": {"shazam": {"clips": "<u>5", "windows": None}}, "false_accept_rate": "x"}),
    ],
)
def test_values_of_other_types_are_one_line(kws: Kws, stranger: Stranger, file: str, content: dict[str, Any]) -> None:
    path = stranger.run.path / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | content))
    assert "its files hold something else than those of a run do" in refused(kws, stranger, "report", stranger.run.path)


def test_a_pickle_beside_the_model_is_not_read(kws: Kws, stranger: Stranger) -> None:
    with zipfile.ZipFile(stranger.run.model, "a") as archive:
        archive.writestr("assets/model.pkl", pickle.dumps(Pickled(stranger)))
    stranger.settle()

    assert kws("label", stranger.run.path, stranger.run.path.parent / "clip.wav").status == 0
    assert not stranger.canary.exists()


def test_arrays_are_read_without_pickle(kws: Kws, stranger: Stranger) -> None:
    for file in (stranger.run.path / "worst_clips.npz", stranger.run.training.best):
        content = io.BytesIO()
        np.savez(content, **{"clips": np.array([Pickled(stranger)]), "v0": np.array([Pickled(stranger)])})
        file.write_bytes(content.getvalue())

    line = refused(kws, stranger, "report", stranger.run.path)
    print(f"npz with a pickle: {line}")
    assert "worst_clips.npz' is missing or damaged" in line


def test_what_a_harmless_run_names_needs_no_trust(kws: Kws, stranger: Stranger) -> None:
    assert kws("label", stranger.run.path, stranger.run.path.parent / "clip.wav").status == 0
    assert not (stranger.run.path / SIGNATURE).exists()


def test_with_trust_it_runs(kws: Kws, stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger.evil_module(Path.cwd())
    monkeypatch.syspath_prepend(Path.cwd())
    stranger.set("dataset._target_", "evil.model")
    command = ["make-stream", stranger.run.path, "--out", "stream"]
    refused(kws, stranger, *command)

    with pytest.raises(AttributeError):  # None is no data set
        kws(*command, "--trust")

    assert stranger.canary.exists()


def export(stranger: Stranger, **changes: Any) -> Path:
    """An export that only the check of what it names keeps from being opened."""
    folder = stranger.run.path.parent / "export"
    folder.mkdir()
    (folder / "model.tflite").write_bytes(b"model")
    size, sha256 = content_hash(folder / "model.tflite")
    port = Port("waveform", [1, SAMPLE_RATE], "float32")
    file = ModelFile("model.tflite", "waveform", port, port, bytes=size, sha256=sha256)
    artifact = Artifact(
        format="tflite", quantize="none", run={}, labels=["yes", "no"], sample_rate=SAMPLE_RATE,
        clip_samples=SAMPLE_RATE, front_end={"config": {"_target_": "kws_data.features.log_mel.LogMel"}},
        thresholds={}, thresholds_from="", data_licence=None, data_citation=None, versions={}, files=[file], notes=[],
    )  # fmt: skip
    dataclasses.replace(artifact, **changes).write(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"front_end": {"config": {"_target_": "os.system"}}}, "features names os.system"),
        (
            {"front_end": {"config": {"_target_": "kws_data.features.log_mel.keras.Model"}}},
            "features names",
        ),
        ({"front_end": {"config": {"window_ms": {"_target_": "os.system"}}}}, "features.window_ms names os.system"),
        ({"front_end": {"config": "${oc.env:PATH}"}}, "features holds an interpolation"),
        ({"requires": "evil"}, "requires names evil"),
        ({"format": "saved_model"}, "it is a saved_model, a program that can read and write files"),
    ],
)
def test_an_export_from_elsewhere_runs_nothing(kws: Kws, stranger: Stranger, changes: Any, told: str) -> None:
    folder = export(stranger, **changes)
    stranger.evil_module(Path.cwd())

    for command in (["label", folder], ["label", folder / "model.tflite"], ["stream", folder]):
        line = refused(kws, stranger, *command, stranger.run.path.parent / "clip.wav")
        assert told in line
        assert "--trust (or KWS_TRUST=1) allows it" in line
    print(f"export, {told}: {line}")


@pytest.mark.parametrize("name", ["../clip.wav", "/etc/hostname", "..", ".", "", "below/model.tflite"])
def test_an_export_s_model_lies_in_its_folder(kws: Kws, stranger: Stranger, name: str) -> None:
    folder = export(stranger)
    record = json.loads((folder / "export.json").read_text())
    record["files"][0]["file"] = name
    (folder / "export.json").write_text(json.dumps(record))

    line = refused(kws, stranger, "label", folder, stranger.run.path.parent / "clip.wav")

    assert f"'{name}' is not in the export's folder" in line


@pytest.mark.slow
def test_a_saved_model_that_writes_a_file_is_not_opened(kws: Kws, stranger: Stranger) -> None:
    import tensorflow as tf

    class Writes(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, SAMPLE_RATE])])
        def __call__(self, waveform: tf.Tensor) -> dict[str, tf.Tensor]:
            tf.io.write_file(str(stranger.canary), "ran")
            return {"predictions": waveform[:, :2]}

    folder = export(stranger, format="saved_model")
    tf.saved_model.save(Writes(), str(folder / "saved_model"))
    record = json.loads((folder / "export.json").read_text())
    record["files"][0] |= {"file": "saved_model", "sha256": content_hash(folder / "saved_model")[1]}
    (folder / "export.json").write_text(json.dumps(record))
    command = ["label", folder, stranger.run.path.parent / "clip.wav"]

    refused(kws, stranger, *command)

    assert kws(*command, "--trust").status == 0
    assert stranger.canary.exists()


@pytest.mark.slow
def test_a_tflite_model_with_tensorflow_s_operators_is_not_run(kws: Kws, stranger: Stranger) -> None:
    """The interpreter of TensorFlow's package would run them, be it to write a file."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([1, SAMPLE_RATE])])
    def writes(waveform: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.raw_ops.WriteFile(filename=str(stranger.canary), contents="ran")]):
            return tf.nn.relu(waveform[:, :2])

    converter = tf.lite.TFLiteConverter.from_concrete_functions([writes.get_concrete_function()])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    folder = export(stranger)
    (folder / "model.tflite").write_bytes(converter.convert())
    record = json.loads((folder / "export.json").read_text())
    record["files"][0]["sha256"] = content_hash(folder / "model.tflite")[1]
    (folder / "export.json").write_text(json.dumps(record))

    line = refused(kws, stranger, "label", folder, stranger.run.path.parent / "clip.wav")

    assert "it has custom operators, which are not run" in line


@pytest.mark.slow
@pytest.mark.parametrize("program", ["label", "verify", "export", "train"])
def test_what_lies_in_the_current_folder_is_not_imported(stranger: Stranger, program: str) -> None:
    """Neither by the command nor by a process that it starts: converter, workers of joblib and of audiomentations."""
    for name in (
        "random",
        "logging",
        "evil",
        "kws_models",
        "keras",
        "json",
        "secrets",
        "sitecustomize",
        "numexpr",
        "bottleneck",
        "simplejson",
        "socks",
        "jax",
        "lz4",
    ):  # the last six are not installed
        Path(f"{name}.py").write_text(f"open({str(stranger.canary)!r}, 'a').write({name!r})\n")
    run, clips = str(stranger.run.path), str(HARMLESS / "clips")
    Path("empty").mkdir()
    command = {
        "label": ["label", run, clips],
        "verify": ["data", "verify", clips],
        "export": ["export", run, "--format", "tflite", "--no-check"],
        "train": ["train", "trainer=quick", "dataset=folder", "dataset.path=empty"],  # ends after TensorFlow's start
    }[program]
    many = "import kws_data.storage.parallel as p; p.SMALL_JOB = 1"  # so that joblib's workers start
    code = f"import sys; {many}; sys.argv[0] = 'kws'; from kws_experiments.cli.main import main; main()"

    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *command], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert done.returncode == 0 or "no usable clip" in done.stdout, done.stderr
    assert not stranger.canary.exists(), stranger.canary.read_text()


def test_a_repetition_sets_no_variable_that_runs_code(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch, kws: Kws
) -> None:
    hostile = {
        "LD_PRELOAD": "/tmp/evil.so", "PYTHONSTARTUP": "/tmp/evil.py", "PYTHONPATH": "/tmp/evil", "PATH": "/tmp/evil",
        "PYTHONHOME": "/tmp/evil", "LD_LIBRARY_PATH": "/tmp", "KWS_TRUST": "1", "GIT_SSH_COMMAND": "evil",
        "OMP_TOOL_LIBRARIES": "/tmp/evil.so", "XLA_FLAGS": "--xla_dump_to=/tmp/evil", "NCCL_NET_PLUGIN": "evil",
        "CUDA_INJECTION64_PATH": "/tmp/evil.so", "OPENBLAS_CORETYPE": "/tmp/evil", "MKL_CBWR": "x\nLD_PRELOAD=y",
        "OMP_NUM_THREADS": "3",
    }  # fmt: skip
    stranger.session(variables=hostile, python_path="/tmp/evil", working_directory="/nowhere")
    monkeypatch.setenv("OMP_SCHEDULE", "static")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    seen: dict[str, Any] = {}
    monkeypatch.setattr(os, "execve", lambda path, command, environment: seen.update(environment, command=command))
    before = dict(os.environ)

    kws("reproduce", stranger.run.path, "--out", stranger.run.path.parent / "again")

    assert "-P" in seen.pop("command")
    assert seen.pop("PYTHONPATH").split(os.pathsep) == [str(ROOT), "/mine"]
    changed = {name: seen.get(name) for name in {*before, *seen} - {"PYTHONPATH"} if before.get(name) != seen.get(name)}
    changed = {name: value for name, value in changed.items() if name not in ("COLUMNS", "KERAS_BACKEND")}
    gone = {name for name, value in changed.items() if value is None}  # this machine's, which the run did not have
    assert "OMP_SCHEDULE" in gone
    assert all(name.startswith(("OMP_", "OPENBLAS_", "MKL_")) for name in gone)
    allowed = {"OMP_NUM_THREADS": "3", "PYTHONSAFEPATH": "1", "KWS_TRUST": "0", "GRPC_VERBOSITY": "ERROR"}
    assert {name: value for name, value in changed.items() if name not in gone}.items() <= allowed.items()
    assert changed["OMP_NUM_THREADS"] == "3"


MY_NET = """
import keras

@keras.saving.register_keras_serializable(package="mine")
class Mine(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def my_net(input_shape, num_labels):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), Mine(), keras.layers.Dense(num_labels)])
"""


@pytest.mark.slow
def test_one_s_own_code_is_used_in_one_s_own_runs_and_in_others_with_trust(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sweep's jobs, an export's converter, a repetition, and a training that starts from the run."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_nets.py").write_text(MY_NET)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path / "code")]))
    common = [each for each in two_words(make_folder()) if not each.startswith("model.")]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: my_nets.my_net\n")
    mine = [f"--config-dir={tmp_path}", "model=mine", "trainer=quick", *common]

    train(tmp_path, "-m", *mine, "seed=1")
    run = only_run(tmp_path)
    train(tmp_path, *mine, "seed=2", f"start_from={run}")

    def kws_says(*command: object) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "kws_experiments.cli.main", *map(str, command)],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr + done.stdout

    label = ["label", run, tmp_path / "clips" / "yes"]
    for command in (label, ["export", run, "--format", "tflite", "--no-check"], ["reproduce", run]):
        status, said = kws_says(*command)
        assert status == 0, said
    assert kws_says("label", run / "exports" / "tflite-none", tmp_path / "clips" / "yes")[0] == 0

    monkeypatch.setenv("KWS_STATE", str(tmp_path / "another user's"))
    status, said = kws_says(*label)
    assert status == 1
    assert "model names my_nets.my_net, which only your own runs" in said
    assert kws_says(*label, "--trust")[0] == 0
    assert "start_from: " in (said := train(tmp_path, *mine, "seed=3", f"start_from={run}", status=1))
    assert "model names my_nets.my_net" in said
