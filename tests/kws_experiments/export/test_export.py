"""What an export's folder holds, reading it back, and the messages where something is wrong."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_data.clip_format import ClipFormat
from kws_data.errors import KwsError
from kws_experiments.config.compose import compose
from kws_experiments.export import convert, table
from kws_experiments.export.artifact import Artifact, ModelFile, Port, content_hash, read_artifact
from kws_experiments.export.c_header import c_header, c_string
from kws_experiments.export.check import compared
from kws_experiments.export.export_run import export_run
from kws_experiments.export.formats.base import Format, Request, find_format, format_names
from kws_experiments.export.load import load_scorer
from kws_experiments.export.scorer import Facts, Scorer, fitted
from kws_experiments.runs.folder import RunFolder, write_text
from kws_experiments.runs.listening import Listening
from tests.conftest import SAMPLE_RATE

LABELS = ["_silence_", "yes", "no"]
INT8 = ModelFile(
    "network.tflite",
    "features",
    Port("features", [1, 49, 10], "int8", 0.1194, -27),
    Port("scores", [1, 3], "int8", 1 / 256, -128),
    operators=["CONV_2D", "SOFTMAX"],
)
FRONT_END = {"config": {"_target_": "kws_data.features.log_mel.LogMel"}}


def loudness() -> Scorer:
    """Scores that show what came in."""
    facts = Facts(LABELS, SAMPLE_RATE, 4, {"yes": 0.5})
    return Scorer(facts, lambda inputs: np.abs(inputs).sum(axis=1, keepdims=True) * [[1, 2, 3]])


def artifact(folder: Path, content: bytes = b"model") -> Artifact:
    """An export on disk, its model no model."""
    folder.mkdir(parents=True)
    (folder / INT8.file).write_bytes(content)
    size, sha256 = content_hash(folder / INT8.file)
    written = Artifact(
        format="tflite", quantize="int8", run={"name": "train", "fingerprint": "0123456789ab"}, labels=LABELS,
        sample_rate=SAMPLE_RATE, clip_samples=SAMPLE_RATE, front_end=FRONT_END, thresholds={"yes": 0.5, "no": 0.7},
        thresholds_from="", data_licence=None, data_citation=None, versions={}, notes=[],
        files=[dataclasses.replace(INT8, bytes=size, sha256=sha256)],
    )  # fmt: skip
    written.write(folder)
    return written


# what comes in


@given(samples=st.integers(1, 50), clip_samples=st.none() | st.integers(1, 50))
def test_waveforms_are_padded_or_cut_at_their_end(samples: int, clip_samples: int | None) -> None:
    waveforms = np.arange(1, 2 * samples + 1, dtype=np.float32).reshape(2, samples)
    result = fitted(waveforms, clip_samples)
    kept = min(samples, result.shape[1])
    assert result.shape == (2, clip_samples or samples)
    np.testing.assert_array_equal(result[:, :kept], waveforms[:, :kept])
    assert not result[:, kept:].any()


@pytest.mark.parametrize(
    ("waveforms", "message"),
    [
        (np.zeros(16), r"must be \[batch, samples\] with at least one sample, got \[16\]"),
        (np.zeros((1, 0)), "at least one sample"),
        (np.array([[0.0, np.nan]]), "not finite"),
        (np.array([[np.inf]]), "not finite"),
    ],
)
def test_waveforms_that_cannot_be_scored_are_refused(waveforms: np.ndarray, message: str) -> None:
    with pytest.raises(KwsError, match=message):
        loudness().scores(waveforms)


def test_any_length_and_no_clip_at_all_is_scored() -> None:
    scorer = loudness()
    assert scorer.scores(np.ones((2, 1))).tolist() == [[1, 2, 3]] * 2
    assert scorer.scores(np.ones((1, 99))).tolist() == [[4, 8, 12]]
    assert scorer.scores(np.ones((0, 4))).shape == (0, 3)
    assert (scorer.labels, scorer.sample_rate, scorer.clip_samples) == (LABELS, SAMPLE_RATE, 4)
    assert scorer.thresholds == {"yes": 0.5}


# integers


@given(st.floats(-20, 20, width=32), st.floats(0.01, 1), st.integers(-128, 127))
def test_quantized_values_are_the_nearest_possible(value: float, scale: float, zero_point: int) -> None:
    port = Port("features", [1], "int8", scale, zero_point)
    whole = port.quantized(np.array([value], np.float32))
    back = float(port.dequantized(whole)[0])
    lowest, highest = (-128 - zero_point) * scale, (127 - zero_point) * scale
    assert whole.dtype == np.int8
    assert abs(back - min(max(value, lowest), highest)) <= 0.5001 * scale + 1e-5


def test_the_header_has_the_sensitivities_of_a_tuned_run() -> None:
    settings = {"average_window_ms": 300.0, "suppression_ms": 250.0, "release": 0.8, "repeat_ms": 1000.0}
    tuned = {name: {"settings": settings, "thresholds": {"yes": level, "no": 0.5}}
             for name, level in (("low", 0.875), ("high", 0.25))}  # fmt: skip
    clips = {"clips": {"thresholds": {"yes": 0.5, "no": 0.7}}}
    header = functools.partial(c_header, b"x", INT8, labels=LABELS, thresholds=clips["clips"]["thresholds"], about=[])

    text = header(listening=Listening(clips | tuned, {"hop_ms": 40.0}))

    for name, value in (("hop_ms", 40), ("average_window_ms", 300), ("suppression_ms", 250), ("repeat_ms", 1000)):
        assert float(re.search(rf"float g_{name} = (\S+)f;", text)[1]) == value
    for name, level in (("low", 0.875), ("high", 0.25)):
        limits = re.search(rf"g_thresholds_{name}\[\] = \{{(.*)\}}", text)[1].replace("f", "").split(",")
        assert list(map(float, limits)) == [2.0, level, 0.5]  # no score reaches that of silence
    assert header(listening=Listening(clips)) == header()


@given(threshold=st.floats(0, 1), output=st.integers(-128, 127))
def test_a_score_reaches_the_headers_threshold_where_it_reaches_the_own(threshold: float, output: int) -> None:
    text = c_header(b"x", INT8, labels=LABELS, thresholds={"yes": threshold}, about=[])
    silence, yes, no = map(int, re.search(r"g_thresholds\[\] = \{(.*)\}", text)[1].split(","))
    score = float(INT8.output.dequantized(np.array([output], np.int8))[0])
    assert (output >= yes) == (score >= threshold)
    assert output < silence
    assert output < no


# the C header


@given(st.text())
def test_strings_survive_c(text: str) -> None:
    literal = c_string(text)
    assert re.fullmatch(r'"([^"\\?\n]|\\[0-7]{3})*"', literal)
    octal = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), literal[1:-1].encode("ascii"))
    assert octal == text.encode()


USES_HEADER = r"""
#include <stdio.h>
#include "network.h"
int main(void) {
  fwrite(g_model, 1, g_model_len, stdout);
  printf("|end|%d\n%.9g %d\n", (int)((size_t)g_model % 16), g_input_scale, g_input_zero_point);
  for (int i = 0; i < g_num_labels; i++) printf("%s %d\n", g_labels[i], g_thresholds[i]);
  return g_input_frames != 49 || g_input_bins != 10 || g_output_zero_point != -128 || g_output_scale != 1.0f / 256;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_header_compiles_to_the_models_bytes(language: str, tmp_path: Path) -> None:
    model = np.random.default_rng(0).integers(0, 256, 1001, np.uint8).tobytes()
    labels = ["_silence_", "größe", 'a "?" \\ b']
    text = c_header(model, INT8, labels=labels, thresholds={"größe": 0.5}, about=["made */ here"])
    (tmp_path / "network.h").write_text(text)
    (tmp_path / "use.src").write_text(USES_HEADER)
    command = ["cc", "-Wall", "-Werror", "-x", language, "use.src", "-o", "use"]
    subprocess.run([*command, *(["-lstdc++"] if language == "c++" else [])], cwd=tmp_path, check=True)
    content, _, rest = subprocess.run([tmp_path / "use"], capture_output=True, check=True).stdout.partition(b"|end|")
    aligned, quantization, *rows = rest.decode().splitlines()
    assert content == model
    assert aligned == "0"
    assert quantization == f"{np.float32(0.1194):.9g} -27"
    assert rows == ["_silence_ 128", "größe 0", 'a "?" \\ b 128']


def test_a_float_models_header_has_no_quantization() -> None:
    ports = Port("features", [1, 49, 10], "float32"), Port("scores", [1, 3], "float32")
    file = ModelFile("network.tflite", "features", *ports)
    text = c_header(b"x", file, labels=LABELS, thresholds={"no": 0.25}, about=[])
    assert "scale" not in text
    assert "g_thresholds[] = {2.000000000e+00f, 2.000000000e+00f, 2.500000000e-01f};" in text


# on disk


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = artifact(tmp_path / "exports" / "tflite-int8")
    assert read_artifact(tmp_path / "exports" / "tflite-int8") == written
    assert (tmp_path / "exports" / "tflite-int8" / "labels.txt").read_text() == "_silence_\nyes\nno\n"


def test_an_export_cuts_longer_files_as_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    written = dataclasses.replace(artifact(folder), clip_from="loudest")
    written.write(folder)
    assert read_artifact(folder).facts.clip_form == ClipFormat(SAMPLE_RATE, SAMPLE_RATE, "loudest")
    record = json.loads((folder / "export.json").read_text())
    del record["clip_from"]  # of an earlier version, which took the start
    (folder / "export.json").write_text(json.dumps(record))
    assert read_artifact(folder).facts.clip_from == "start"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("export.json", "{", "export.json' is missing or damaged: export the run again"),
        ("export.json", "[]", "export.json' is missing or damaged"),
        ("export.json", '{"schema_version": 1, "files": []}', "export.json' is missing or damaged"),
        ("export.json", '{"schema_version": 9}', "export.json' has schema version 9, not 1: export the run again"),
        ("labels.txt", None, "labels.txt' is missing or damaged"),
        ("labels.txt", "up\ndown\n", r"labels.txt' names other labels \(up, down, …\) than export.json beside it"),
        ("network.tflite", None, "network.tflite': No such file"),
        ("network.tflite", "mode", r"network.tflite' is not what was exported \(4 of 5 bytes\): export the run again"),
    ],
)
def test_damaged_exports_are_one_line(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    artifact(tmp_path / "export")
    (tmp_path / "export" / name).unlink()
    if content is not None:
        (tmp_path / "export" / name).write_text(content)
    with pytest.raises(KwsError, match=message) as caught:
        load_scorer(tmp_path / "export")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "holds no run: give the folder of a run, or of an export"),
        ("alone.tflite", r"there is no export.json beside it"),
        ("export/labels.txt", r"labels.txt' is no model of this export, which has network.tflite"),
        (".", "holds no run: give the folder of a run"),
        ("export", r"network.tflite' can't be loaded"),
        ("foreign", r"export.json': format must be one of onnx, saved_model, tflite, got 'h5'"),
    ],
)
def test_what_cannot_be_opened_is_one_line(path: str, message: str, tmp_path: Path) -> None:
    artifact(tmp_path / "export")
    dataclasses.replace(artifact(tmp_path / "foreign"), format="h5").write(tmp_path / "foreign")
    (tmp_path / "alone.tflite").write_bytes(b"model")
    with pytest.raises(KwsError, match=message):
        load_scorer(tmp_path / path)


# the comparison


def test_comparison_counts_clips() -> None:
    original = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    exported = np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.3, 0.7]])
    result = compared(original, exported, truth=np.array([0, 1, 1, 1]))
    assert result == {"accuracy": 0.5, "agreement": 0.75, "disagreements": 1, "largest_difference": 0.5}


def test_table_has_the_original_and_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = artifact(tmp_path / "export")
    assert table.rows(written) == [("network.tflite", "features", "–", "–", "0.0 kB", "–")]
    own = {"accuracy": 0.925, "bytes": 100_000, "latency_ms": 1.0}
    check = {"split": "testing", "clips": 50, "accuracy": 0.9, "disagreements": 2, "latency_ms": 0.123, "original": own}
    checked = dataclasses.replace(written, files=[dataclasses.replace(INT8, bytes=2000, check=check)])
    assert table.rows(checked) == [
        ("model.keras", "waveform", "92.5%", "", "100.0 kB", "1.00"),
        ("network.tflite", "features", "90.0%", "48 of 50", "2.0 kB", "0.12"),
    ]
    table.show(checked, tmp_path)
    assert "testing split, 50 clips" in capsys.readouterr().out


# choices, before any work


def test_formats_are_found_by_their_files() -> None:
    assert format_names() == ["onnx", "saved_model", "tflite"]
    for name in format_names():
        found = find_format(name)
        assert isinstance(found, Format)
        assert found.name == name
        assert found.quantizations[0] == "none"


@functools.cache
def default_config() -> dict[str, Any]:
    return compose([])


def run_folder(path: Path, clip_ms: int | None = 1000, status: str = "done") -> Path:
    folder = RunFolder(path)
    folder.write_config(default_config() | {"clip_ms": clip_ms})
    folder.write_record(status=status)
    write_text(folder.labels, "yes\n")
    write_text(folder.thresholds, json.dumps({"thresholds": {}}))
    write_text(folder.model, "weights")
    return path


@pytest.mark.parametrize(
    ("choice", "clip_ms", "message"),
    [
        ({"format": "h5"}, 1000, "--format must be one of onnx, saved_model, tflite, got 'h5'"),
        ({"format": "onnx", "quantize": "int8"}, 1000, "--quantize with onnx must be one of none, dynamic, got 'int8'"),
        ({"format": "saved_model", "quantize": "float16"}, 1000, "--quantize with saved_model must be one of none"),
        ({"format": "tflite", "clip_ms": 500}, 1000, r"the run's clips have one length already \(clip_ms=1000\)"),
        ({"format": "tflite"}, None, r"--clip-ms: this run keeps its clips' lengths .* --clip-ms 1000"),
        ({"format": "tflite", "clip_ms": math.nan}, None, "--clip-ms must be a number from 10 to 60000, got nan"),
        ({"format": "saved_model", "clip_ms": 1000}, None, "--clip-ms: a SavedModel takes clips of any length"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, choice: dict[str, Any], clip_ms: int | None, message: str) -> None:
    with pytest.raises(KwsError, match=message):
        export_run(run_folder(tmp_path / "run", clip_ms), **choice)
    assert not (tmp_path / "run" / "exports").exists()


def test_runs_that_cannot_be_exported_are_refused(tmp_path: Path) -> None:
    run_folder(tmp_path / "unfinished", status="training")
    (run_folder(tmp_path / "without model") / "model.keras").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("a: 1\n")
    (run_folder(tmp_path / "no configuration") / "config.yaml").write_text("a: 1\n")
    for name, message in (
        ("unfinished", "holds no finished run: the same training command finishes it"),
        ("other", r"other' holds no run: give the folder of a run"),
        ("no configuration", "this is not a training's configuration: KeyError: 'seed'"),
        ("without model", r"model' holds no model.keras: give the folder of a finished run"),
        ("", r"' holds no run: give the folder of a run"),
    ):
        with pytest.raises(KwsError, match=message):
            export_run(tmp_path / name, format="onnx")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # pretend that nothing is installed
    with pytest.raises(KwsError, match=r"--format onnx needs tf2onnx and onnxruntime: pip install -e '.\[onnx\]'"):
        export_run(run_folder(tmp_path / "run"), format="onnx")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("none", None),
        ("data elsewhere", "it takes data from other files, which are not read"),
        ("data elsewhere, in a constant", "it takes data from other files, which are not read"),
        ("an operator of its own", "evil"),
        ("no model", r"\w"),
    ],
)
def test_onnx_models_are_one_file_of_known_operators(tmp_path: Path, harm: str, message: str | None) -> None:
    import onnx
    from onnx import helper

    (tmp_path / "secret").write_bytes(np.full(2, 7, np.float32).tobytes())
    weights = onnx.numpy_helper.from_array(np.ones(2, np.float32), "weights")
    if harm.startswith("data elsewhere"):
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="../secret")
    nodes = [helper.make_node("Add", ["waveform", "weights"], ["scores"])]
    if harm.endswith("constant"):
        nodes.insert(0, helper.make_node("Constant", [], ["weights"], value=weights))
    if harm == "an operator of its own":
        nodes[0].op_type, nodes[0].domain = "Run", "evil"
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 2]) for name in ("waveform", "scores")]
    graph = helper.make_graph(nodes, "graph", ports[:1], ports[1:], [] if harm.endswith("constant") else [weights])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("evil", 1)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    (tmp_path / "export").mkdir()
    model = tmp_path / "export" / "model.onnx"
    model.write_bytes(b"no model" if harm == "no model" else content)

    if message is None:
        assert find_format("onnx").load(model)(np.zeros((1, 2), np.float32)).tolist() == [[1.0, 1.0]]
        return
    with pytest.raises(ValueError, match=message):
        find_format("onnx").load(model)


# the child process

ABORTS = """#!/bin/sh
echo 'loading' >&2
echo 'LLVM ERROR: Failed to infer result type(s).' >&2
echo 'Fatal Python error: Aborted' >&2
echo 'Current thread' >&2
kill -ABRT $$
"""


@pytest.mark.parametrize(
    ("script", "message"),
    [(ABORTS, "signal SIGABRT: .*LLVM ERROR"), ("#!/bin/sh\nexit 7\n", "exit status 7$")],
)
def test_a_converter_that_aborts_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    converter = tmp_path / "converter"
    converter.write_text(script)
    converter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(converter))
    message = rf"converting to tflite \(quantize int8\) failed: the converter ended with {message}"
    with pytest.raises(KwsError, match=message) as caught:
        convert.convert_in_child(Request(tmp_path, tmp_path, "tflite", "int8", 16000), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_childs_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(request: Request) -> Artifact:
        raise RuntimeError(f"{request.format}: first line\nsecond line")

    (tmp_path / "request.pickle").write_bytes(pickle.dumps(Request(tmp_path, tmp_path, "onnx")))
    monkeypatch.setattr(convert, "convert", fail)
    monkeypatch.setattr(convert, "end_with", lambda parent: None)
    monkeypatch.setattr(sys, "argv", ["convert", str(tmp_path), "1"])
    convert.main()
    assert pickle.loads((tmp_path / "answer.pickle").read_bytes()) == "RuntimeError: onnx: first line"
