"""Every family of models and every front end, in every format: the same scores as the original's."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

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

    export = exported(run, "tflite", "int8")
    for scores in scores_of(export, waveforms):
        # drawn weights separate clips by little, which coarse steps blur; learned ones are checked elsewhere
        assert np.corrcoef(scores.ravel(), expected.ravel())[0, 1] > 0.5
    network = export[1].files[-1]
    assert (network.input.dtype, network.output.dtype) == ("int8", "int8")
    # later converters keep one split of a GRU in float
    if family != "mhatt_rnn" or version("tensorflow").startswith(
        "2.16"
    ):  # later converters keep a GRU's split in float
        assert not {"QUANTIZE", "DEQUANTIZE"} & set(network.operators)


def test_every_model_belongs_to_a_family_above() -> None:
    for path in (ROOT / "conf" / "model").glob("*.yaml"):
        assert any(path.stem.startswith(family) for family in FAMILIES), path.stem


SMALL = ["model=ds_cnn_s", "model.filters=16", "model.num_blocks=2", "features=log_mel_20ms"]


@pytest.mark.parametrize(("format", "quantize"), [("tflite", "float16"), ("tflite", "dynamic"), ("onnx", "dynamic")])
def test_smaller_weights_change_little(format: str, quantize: str, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", *SMALL, "model.filters=64")
    waveforms = some_waveforms()
    expected = load_run(run).scores(waveforms)
    _, whole = exported(run, format)
    level = logging.getLogger().level
    export = exported(run, format, quantize)
    assert logging.getLogger().level == level  # converters log to the root logger, whose other users go on
    assert export[1].files[-1].bytes < 0.9 * whole.files[-1].bytes
    for scores in scores_of(export, waveforms):
        np.testing.assert_allclose(scores, expected, atol=0.002 if quantize == "float16" else 0.05)
        assert not np.array_equal(scores, expected)


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
    np.testing.assert_allclose(scores, expected, atol=1e-6)


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
