"""Every family of models and every front end, in every format: the same scores as the original's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kws_experiments.export.artifact import Artifact, load_export, load_run, read_artifact
from kws_experiments.export.convert import convert
from kws_experiments.export.export_run import described
from kws_experiments.folder import RunFolder
from tests.conftest import ROOT
from tests.untrained import some_waveforms, untrained_run

pytestmark = pytest.mark.slow

# One of each kind of network, as small as its kind allows
FAMILIES = {
    "bc_resnet": ["model=bc_resnet_1"],
    "cnn4": ["model=cnn4", "features=log_spectrogram", "model.filters=[4,4,8,8]"],
    "conv": ["model=conv", "features=mfcc", "model.filters=[8,8]"],
    "low_latency_conv": ["model=low_latency_conv", "features=mfcc"],
    "low_latency_svdf": ["model=low_latency_svdf", "features=mfcc", "model.units=64"],
    "ds_cnn": ["model=ds_cnn_s", "features=mfcc_hello_edge"],
    "matchboxnet": ["model=matchboxnet_3x1x64", "features=mfcc"],
    "mhatt_rnn": ["model=mhatt_rnn", "features=log_mel_20ms", "clip_ms=300", "model.rnn_units=16"],
    "res": ["model=res8_narrow", "features=mfcc"],
    "simple_audio": ["model=simple_audio", "features=stft"],
    "single_fc": ["model=single_fc", "features=average"],
    "tc_resnet": ["model=tc_resnet8", "features=mfcc_mlperf_tiny"],
    "tiny_conv": ["model=tiny_conv", "features=log_mel", "features.normalise=true"],
    "tiny_embedding_conv": ["model=tiny_embedding_conv", "features=log_mel"],
}


def exported(run: Path, format: str, quantize: str = "none", clip_samples: int | None = None) -> tuple[Path, Artifact]:
    """`kws export` without its child process and without data."""
    folder = RunFolder(run)
    config = folder.read_config()
    clip_samples = clip_samples or round(config["clip_ms"] * 16)
    out = folder.exports / f"{format}-{quantize}"
    out.mkdir(parents=True)
    request = {"run": str(run), "out": str(out), "format": format, "quantize": quantize, "calibration": None}
    if quantize == "int8":
        request["calibration"] = str(run / "calibration.npy")
        np.save(run / "calibration.npy", some_waveforms(60, clip_samples))
    result = convert(request | {"clip_samples": clip_samples})
    artifact = described(folder, config, clip_samples, format, quantize, result, out)
    artifact.write(out)
    return out, read_artifact(out)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_scores_as_the_original(family: str, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", *FAMILIES[family])
    original = load_run(run)
    waveforms = some_waveforms(samples=original.clip_samples or 16000)
    expected = original.scores(waveforms)
    assert np.ptp(expected, axis=0).max() > 0.01, "the clips' scores are to differ"

    for format, names in (("tflite", ["model.tflite", "network.tflite"]), ("onnx", ["model.onnx"])):
        out, artifact = exported(run, format)
        assert [file.file for file in artifact.files] == names
        for file in artifact.files:
            np.testing.assert_allclose(load_export(out, artifact, file).scores(waveforms), expected, atol=2e-5)

    out, artifact = exported(run, "tflite", "int8")
    for file in artifact.files:
        scores = load_export(out, artifact, file).scores(waveforms)
        np.testing.assert_allclose(scores, expected, atol=0.1)
        assert np.corrcoef(scores.ravel(), expected.ravel())[0, 1] > 0.98
    network = artifact.files[-1]
    assert (network.input.dtype, network.output.dtype) == ("int8", "int8")
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(network.operators)


def test_every_model_belongs_to_a_family_above() -> None:
    for path in (ROOT / "conf" / "model").glob("*.yaml"):
        assert any(path.stem.startswith(family) for family in FAMILIES), path.stem
