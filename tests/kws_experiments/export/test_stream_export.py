"""A network's streaming form in TensorFlow Lite, call by call, and in TensorFlow Lite Micro."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from kws_data.errors import KwsError
from kws_experiments.cli.main import app
from kws_experiments.export.artifact import Artifact, read_artifact
from kws_experiments.export.convert import convert
from kws_experiments.export.export_run import export_run
from kws_experiments.export.formats.base import Options, Request
from kws_experiments.export.load import load_export, load_run
from kws_experiments.export.tflite_stream import in_calls
from tests.kws_experiments.export.test_export import run_folder
from tests.untrained import LABELS, some_waveforms, untrained_run

STREAMING = {
    "bc_resnet_1_causal": [],
    "cnn4": ["features=log_spectrogram", "model.filters=[4,4,8,8]"],
    "ds_cnn_s_causal": ["features=mfcc_hello_edge"],
    "low_latency_svdf": ["features=mfcc", "model.units=64"],
    "matchboxnet_3x1x64_causal": ["features=mfcc"],
    "mixconv": [],
    "tc_resnet8_causal": ["features=mfcc"],
}


def exported(
    run: Path, state: str, quantize: str = "none", hop_ms: float | None = None, calibration: int = 10
) -> tuple[Path, Artifact]:
    out = run / "exports" / f"tflite-{quantize}-{state}"
    out.mkdir(parents=True)
    clips = some_waveforms(calibration) if quantize == "int8" else None
    convert(Request(run, out, "tflite", quantize, 16000, clips, state=state, hop_ms=hop_ms)).write(out)
    return out, read_artifact(out)


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("name", STREAMING)
def test_a_streaming_export_scores_clips_as_the_original(name: str, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", f"model={name}", *STREAMING[name])
    waveforms = some_waveforms()
    expected = load_run(run).scores(waveforms)
    in_int8 = []
    for state in ("internal", "external"):
        out, artifact = exported(run, state)
        (file,) = artifact.files
        assert (file.file, file.takes) == ("stream.tflite", "frames")
        assert file.input.shape == [1, artifact.streaming["frames"], artifact.streaming["bins"]]
        np.testing.assert_allclose(load_export(out, artifact, file).scores(waveforms), expected, atol=2e-5)

        out, artifact = exported(run, state, "int8")
        (file,) = artifact.files
        in_int8.append(load_export(out, artifact, file).scores(waveforms))
        assert (file.input.dtype, file.output.dtype) == ("int8", "int8")
        if name != "cnn4":  # before a pooling, the converter leaves a state in float
            assert "DEQUANTIZE" not in file.operators  # QUANTIZE joins the scales of mixconv's halves
        assert ("VAR_HANDLE" in file.operators) == (state == "internal")
        assert all(before == after for before, after in file.states)  # an output is the next call's input as it is
        assert bool(file.states) == (state == "external")
        if "arena" in file.micro:  # where TensorFlow Lite Micro is installed
            assert file.micro["same_label"] >= 0.95 * file.micro["clips"]
    np.testing.assert_allclose(*in_int8, atol=0.1)
    assert np.corrcoef(in_int8[0].ravel(), expected.ravel())[0, 1] > 0.5  # see test_export_models


@pytest.mark.slow
def test_micro_gives_the_scores_of_a_float_stream(tmp_path: Path) -> None:
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="for Linux on x86-64")
    run = untrained_run(tmp_path / "run", "model=mixconv")
    out, artifact = exported(run, "internal", hop_ms=60)
    assert (artifact.streaming["hop_ms"], artifact.streaming["frames"], artifact.streaming["calls"]) == (60, 6, 16)
    scorer = load_export(out, artifact, artifact.files[0])
    micro = runtime.Interpreter.from_file(out / "stream.tflite", arena_size=1_000_000)
    for waveform in some_waveforms(4):
        micro.reset()
        for call in scorer.prepare(waveform[None])[0]:
            micro.set_input(call[None], 0)
            micro.invoke()
        np.testing.assert_allclose(micro.get_output(0), load_run(run).scores(waveform[None]), atol=2e-5)
    assert artifact.labels == LABELS


@pytest.mark.slow
def test_networks_that_do_not_stream_and_hops_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "ordinary", "model=ds_cnn_s", "model.filters=8")
    with pytest.raises(KwsError, match=r"ds_cnn does not run on a stream, .* \('same' padding\).*ds_cnn_s_causal"):
        exported(run, "internal")
    run = untrained_run(tmp_path / "causal", "model=mixconv")
    for state, hop_ms in (("internal", 40), ("external", 0), ("external2", 3000)):
        with pytest.raises(KwsError, match=f"--hop-ms: must be a multiple of 30 up to .* got {hop_ms}"):
            exported(run, state, hop_ms=hop_ms)


@pytest.mark.parametrize(
    ("lead", "calls", "first"), [(0, 3, [0, 1]), (1, 3, [-1, 0]), (0, 6, [0, 1])]
)  # zeros before; all frames; more than there are
def test_clips_become_calls(lead: int, calls: int, first: list[int]) -> None:
    frames = np.arange(1, 11, dtype=np.float32).reshape(1, 10, 1)
    found = in_calls(frames, {"frames": 2, "calls": calls, "lead": lead})
    assert found.shape == (1, calls, 2, 1)
    assert (found[0, 0, :, 0] - 1).tolist() == first
    assert np.count_nonzero(found) == min(2 * calls - lead, 10)


def test_options_of_a_stream_that_make_no_sense(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    with pytest.raises(KwsError, match="--state must be internal or external, got 'outside'"):
        export_run(run, Options("tflite", state="outside"))
    for format, quantize in (("onnx", "none"), ("saved_model", "none"), ("tflite", "float16")):
        with pytest.raises(KwsError, match="--streaming goes with --format tflite and --quantize none or int8"):
            export_run(run, Options(format, quantize, state="internal"))
    result = CliRunner().invoke(app, ["export", str(run), "--format", "tflite", "--hop-ms", "40"])
    assert "--state, --hop-ms: go with --streaming" in str(result.exception)
    assert not (run / "exports").exists()
