"""Every family of models and every front end, in every format: the same scores as the original's."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
import soundfile
from scipy.special import softmax

from kws_experiments.export.artifact import Artifact, read_artifact
from kws_experiments.export.convert import convert
from kws_experiments.export.formats.base import Request
from kws_experiments.export.load import load_export, load_run
from kws_experiments.export.scorer import run_facts
from kws_experiments.runs.folder import RunFolder
from tests.conftest import ROOT, SAMPLE_RATE
from tests.untrained import LABELS, some_waveforms, untrained_run

pytestmark = [pytest.mark.slow, pytest.mark.both_stacks]

SHORT = ["features=log_mel_20ms", "clip_ms=300"]  # for recurrent layers, which are written out frame by frame

# One of each kind of network, as small as its kind allows
FAMILIES = {
    "bc_resnet": ["model=bc_resnet_1"],
    "cnn4": ["model=cnn4", "features=log_spectrogram", "model.filters=[4,4,8,8]"],
    "conv": ["model=conv", "features=mfcc"],
    "low_latency_conv": ["model=low_latency_conv", "features=mfcc"],
    "low_latency_svdf": ["model=low_latency_svdf", "features=mfcc", "model.units=64"],
    "ds_cnn": ["model=ds_cnn_s", "features=mfcc_mlperf_tiny"],
    "matchboxnet": ["model=matchboxnet_3x1x64", "features=mfcc"],
    "mixconv": ["model=mixconv"],
    "mhatt_rnn": ["model=mhatt_rnn", *SHORT, "model.rnn_units=16", "model.rnn_layers=1"],
    "res": ["model=res8_narrow", "features=mfcc"],
    "simple_audio": ["model=simple_audio", "features=stft"],
    "single_fc": ["model=single_fc", "features=average"],
    "tc_resnet": ["model=tc_resnet8", "features=mfcc"],
    "tiny_conv": ["model=tiny_conv", "features=log_mel", "features.normalise=true"],
    "tiny_embedding_conv": ["model=tiny_embedding_conv", "features=log_mel"],
}


def exported(
    run: Path, format: str, quantize: str = "none", clip_samples: int | None = None, decode: str = "wav"
) -> tuple[Path, Artifact]:
    """`kws export` without its child process and without data."""
    clip_samples = clip_samples or run_facts(run).clip_samples
    out = RunFolder(run).exports / f"{format}-{quantize}"
    out.mkdir(parents=True)
    calibration = some_waveforms(30, clip_samples or 16000) if quantize == "int8" else None
    convert(Request(run, out, format, quantize, clip_samples, calibration, decode)).write(out)
    return out, read_artifact(out)


def scores_of(export: tuple[Path, Artifact], waveforms: np.ndarray) -> list[np.ndarray]:
    """Of each of its models."""
    out, artifact = export
    return [load_export(out, artifact, file).scores(waveforms) for file in artifact.files]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_scores_as_the_original(family: str, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", *FAMILIES[family])
    original = load_run(run)
    waveforms = some_waveforms(samples=original.clip_samples or 16000)
    expected = original.scores(waveforms)
    assert np.ptp(expected, axis=0).max() > 0.3, "the clips' scores are to differ"

    for format, names in (("tflite", ["model.tflite", "network.tflite"]), ("onnx", ["model.onnx"])):
        export = exported(run, format)
        assert [file.file for file in export[1].files] == names
        for scores in scores_of(export, waveforms):
            np.testing.assert_allclose(scores, expected, atol=2e-5)

    level = logging.getLogger().level
    export = exported(run, "tflite", "int8")
    for scores in [*scores_of(export, waveforms), *scores_of(exported(run, "onnx", "int8"), waveforms)]:
        # drawn weights separate clips by little, which coarse steps blur; learned ones are checked elsewhere
        assert np.corrcoef(scores.ravel(), expected.ravel())[0, 1] > 0.5
    assert logging.getLogger().level == level  # converters log to the root logger, whose other users go on
    network = export[1].files[-1]
    assert (network.input.dtype, network.output.dtype) == ("int8", "int8")
    # later converters keep one split of a GRU in float
    if family != "mhatt_rnn" or version("tensorflow").startswith("2.16"):
        assert not {"QUANTIZE", "DEQUANTIZE"} & set(network.operators)


def test_every_model_belongs_to_a_family_above() -> None:
    for path in (ROOT / "conf" / "model").glob("*.yaml"):
        assert any(path.stem.startswith(family) for family in FAMILIES), path.stem


SMALL = ["model=ds_cnn_s", "model.filters=16", "model.num_blocks=2", "features=log_mel_20ms"]


@pytest.mark.parametrize("quantize", ["float16", "dynamic"])
def test_smaller_weights_change_little(quantize: str, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", *SMALL, "model.filters=64")
    waveforms = some_waveforms()
    expected = load_run(run).scores(waveforms)
    _, whole = exported(run, "tflite")
    export = exported(run, "tflite", quantize)
    assert export[1].files[-1].bytes < 0.9 * whole.files[-1].bytes
    for scores in scores_of(export, waveforms):
        np.testing.assert_allclose(scores, expected, atol=0.002 if quantize == "float16" else 0.05)
        assert not np.array_equal(scores, expected)


@pytest.mark.parametrize("features", ["log_mel_20ms", "micro"])
def test_onnx_int8_scores_do_not_depend_on_the_other_clips(features: str, real_data: Path, tmp_path: Path) -> None:
    out, artifact = exported(untrained_run(tmp_path / "run", *SMALL, f"features={features}"), "onnx", "int8")
    scorer = load_export(out, artifact, artifact.files[0])
    clips = [sorted((real_data / word).glob("*.wav"))[0] for word in ("yes", "no", "stop", "go")]
    waveforms = np.zeros((12, SAMPLE_RATE), np.float32)
    for row, clip in enumerate(clips):
        samples, _ = soundfile.read(clip, dtype="float32")
        waveforms[row, : len(samples)] = samples
    waveforms[4:8] = 0.01 * waveforms[:4]
    waveforms[8:] = some_waveforms(4)
    alone = np.concatenate([scorer.scores(clip[np.newaxis]) for clip in waveforms])
    np.testing.assert_array_equal(scorer.scores(waveforms), alone)
    np.testing.assert_array_equal(scorer.scores(waveforms[::-1])[::-1], alone)


def table(buffer: bytes, position: int = 0) -> flatbuffers.table.Table:
    offset = flatbuffers.encode.Get(flatbuffers.packer.uoffset, buffer, position)
    return flatbuffers.table.Table(buffer, position + offset)


def field(found: flatbuffers.table.Table, slot: int, kind: str = "table") -> Any:
    """A field by its place in the schema: a string, a number, a table, or the first table of a vector."""
    position = found.Pos + found.Offset(4 + 2 * slot)
    if kind in ("Uint8", "Int8", "Uint32"):
        return found.Get(getattr(flatbuffers.number_types, f"{kind}Flags"), position)
    if kind == "string":
        return found.String(position).decode()
    return table(found.Bytes, found.Vector(position - found.Pos) if kind == "vector" else position)


@pytest.mark.parametrize("model", [["model=ds_cnn_s", "features=log_mel"], ["model=tiny_conv", "features=micro"]])
def test_an_int8_export_says_what_it_takes_in_tensorflow_lite_micro(model: list[str], tmp_path: Path) -> None:
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="for Linux on x86-64")
    out, artifact = exported(untrained_run(tmp_path / "run", *model), "tflite", "int8")
    micro, network = artifact.files[-1].micro, out / "network.tflite"
    assert micro["clips"] == micro["same_label"] == 30
    assert micro["identical"] >= 28  # LiteRT rounds fully connected layers otherwise now and then, by one step
    assert micro["activations"] == micro["peak"]["bytes"]
    assert 0 < micro["arena"] - micro["activations"] < 20_000
    assert runtime.Interpreter.from_file(network, arena_size=micro["arena"] + 1000)
    with pytest.raises(RuntimeError):
        runtime.Interpreter.from_file(network, arena_size=micro["arena"] - 1000)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_tflite_files_name_their_ports_and_labels(quantize: str, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from tensorflow.lite.python import schema_py_generated as schema

    out, artifact = exported(untrained_run(tmp_path / "run", *SMALL), "tflite", quantize)
    for file, takes, kind in zip(artifact.files, ("waveform", "features"), (4, 1), strict=True):
        interpreter = Interpreter(str(out / file.file))
        signatures = {"serving_default": {"inputs": [takes], "outputs": ["scores"]}}
        assert interpreter.get_signature_list() == file.signatures == signatures
        (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
        assert (source["name"], result["name"]) == (takes, "scores") == (file.input.name, file.output.name)
        run_signature = interpreter.get_signature_runner()
        clip = np.zeros(file.input.shape, file.input.dtype)
        assert run_signature(**{takes: clip})["scores"].shape == (1, len(LABELS))

        # metadata_schema.fbs: what MediaPipe and the Task Library look for, by the places of its fields
        content = (out / file.file).read_bytes()
        model = schema.Model.GetRootAsModel(content, 0)
        entries = {model.Metadata(index).Name(): model.Metadata(index) for index in range(model.MetadataLength())}
        metadata = model.Buffers(entries[b"TFLITE_METADATA"].Buffer()).DataAsNumpy().tobytes()
        assert metadata[4:8] == b"M001"
        subgraph = field(table(metadata), 3, "vector")
        taken, given = field(subgraph, 2, "vector"), field(subgraph, 3, "vector")
        assert (field(taken, 0, "string"), field(given, 0, "string")) == (takes, "scores")
        about = field(taken, 3)
        assert field(about, 0, "Uint8") == kind
        if takes == "waveform":
            audio = field(about, 1)
            assert (field(audio, 0, "Uint32"), field(audio, 1, "Uint32")) == (SAMPLE_RATE, 1)
        label_file = field(given, 6, "vector")
        assert (field(label_file, 0, "string"), field(label_file, 2, "Int8")) == ("labels.txt", 2)
        with zipfile.ZipFile(out / file.file) as archive:
            assert archive.read("labels.txt").decode().splitlines() == LABELS
            assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED

        for index in range(model.BuffersLength()):  # the schema's force_align, which kernels on devices rely on
            if model.Buffers(index).DataLength():
                table_of = model.Buffers(index)._tab
                assert table_of.Vector(table_of.Offset(4)) % 16 == 0


def test_onnx_files_say_what_they_take_and_give(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    run = untrained_run(tmp_path / "run", *SMALL, "features.normalise=true")
    for quantize in ("none", "int8"):
        out, artifact = exported(run, "onnx", quantize)
        about = onnxruntime.InferenceSession(out / "model.onnx").get_modelmeta().custom_metadata_map
        assert {key: json.loads(value) for key, value in about.items()} == {
            "labels": LABELS, "sample_rate": SAMPLE_RATE, "front_end": artifact.front_end,
        }  # fmt: skip


@pytest.mark.parametrize("quantize", ["float16", "dynamic", "int8"])
def test_the_front_end_inside_stays_in_float(quantize: str, tmp_path: Path) -> None:
    """Quantized along with the network, the quietest clips would lose all that is in them."""
    run = untrained_run(tmp_path / "run", *SMALL)
    waveforms = some_waveforms(40) * np.logspace(0, -3, 40, dtype=np.float32)[:, np.newaxis]
    whole, network = scores_of(exported(run, "tflite", quantize), waveforms)
    np.testing.assert_allclose(whole, network, atol=0.02)


def test_a_front_end_that_cannot_be_converted_stays_outside_and_is_named(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", *SMALL, "features=micro", "features.normalise=true")
    waveforms = some_waveforms()
    expected = load_run(run).scores(waveforms)
    for format, title in (("tflite", "TensorFlow Lite"), ("onnx", "ONNX")):
        out, artifact = exported(run, format)
        (file,) = artifact.files
        assert (file.file, file.takes) == (f"network.{format}", "features")
        reason = f"the front end (MicroFrontend) can't be converted to {title}, so that {file.file} takes features: "
        assert artifact.notes[0].startswith(reason)
        (scores,) = scores_of((out, artifact), waveforms)
        np.testing.assert_allclose(scores, expected, atol=2e-5)
    out, artifact = exported(run, "saved_model")
    assert artifact.requires == ["tensorflow.lite.experimental.microfrontend.python.ops.audio_microfrontend_op"]
    assert artifact.requires[0] in artifact.notes[0]
    (scores,) = scores_of((out, artifact), waveforms)
    np.testing.assert_allclose(scores, expected, atol=2e-5)


def test_a_run_that_keeps_lengths(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", *SMALL, "clip_ms=null")
    waveforms = some_waveforms(4, 12000)
    for scores in scores_of(exported(run, "tflite", clip_samples=12000), waveforms):
        np.testing.assert_allclose(scores, load_run(run, 12000).scores(waveforms), atol=2e-5)
    out, artifact = exported(run, "saved_model")
    assert artifact.clip_samples is None
    scorer = load_export(out, artifact, artifact.files[0])
    for samples in (1, 3000, 12000):
        expected = load_run(run).scores(waveforms[:, :samples])
        np.testing.assert_allclose(scorer.scores(waveforms[:, :samples]), expected, atol=1e-6)


@pytest.mark.parametrize(("decode", "clip_ms"), [("wav", 1000), ("wav", None), ("all", 1000)])
def test_a_session_runs_a_saved_models_signatures(
    decode: str, clip_ms: int | None, real_data: Path, tmp_path: Path
) -> None:
    """Not only Python's loader finds the variables; a vector of file names may be of clips of any lengths."""
    if decode == "all":
        pytest.importorskip("tensorflow_io", reason="the stack without tensorflow-io")
    run = untrained_run(tmp_path / "run", *SMALL, f"clip_ms={'null' if clip_ms is None else clip_ms}")
    out, artifact = exported(run, "saved_model", decode=decode)
    samples = []
    for number in range(8):
        source = sorted((real_data / ("yes", "no")[number % 2]).glob("*.wav"))[number]
        samples.append(soundfile.read(source, dtype="float32")[0][: SAMPLE_RATE - 1000 * number])
        soundfile.write(tmp_path / f"{number}.wav", samples[number], SAMPLE_RATE)
    waveforms = np.stack([clip[: len(samples[-1])] for clip in samples])
    np.save(tmp_path / "waveforms.npy", waveforms)
    (tmp_path / "names.json").write_text(json.dumps([f"{number}.wav" for number in range(8)]))

    script = Path(__file__).with_name("in_session.py")
    arguments = [str(out), "waveforms.npy", "names.json", "results.npz"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-I", str(script), *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    results = np.load(tmp_path / "results.npz")
    original = load_run(run)
    by_names = np.concatenate([original.scores(clip[np.newaxis]) for clip in samples])
    expected = {"at_once": original.scores(waveforms), "by_names": by_names, "by_name": by_names[:1]}
    for way, scores in expected.items():
        np.testing.assert_allclose(softmax(results[f"{way} predictions"], axis=1), scores, atol=1e-5)
        names = [LABELS[index] for index in scores.argmax(axis=1)]
        assert [name.decode() for name in results[f"{way} class_names"]] == names
    assert artifact.files[0].signatures == {
        name: {"inputs": [given], "outputs": ["predictions", "class_ids", "class_names"]}
        for name, given in (("serving_default", "waveform"), ("file_names", "file_names"))
    }


def test_half_precision_is_exported_in_single(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", *SMALL, "trainer.precision=mixed_bfloat16")
    export, waveforms = exported(run, "tflite"), some_waveforms()
    np.testing.assert_allclose(scores_of(export, waveforms)[1], load_run(run).scores(waveforms), atol=0.03)
    assert "CAST" not in export[1].files[1].operators
