"""What an export's folder holds, reading it back, and the messages where something is wrong."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import math
import pickle
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_data.clip_format import AudioRules, ClipFormat
from kws_data.errors import KwsError
from kws_experiments.config.compose import compose
from kws_experiments.export import convert, table, tflm
from kws_experiments.export.artifact import Artifact, ModelFile, Port, content_hash, read_artifact
from kws_experiments.export.c_source import c_source, c_string, own_prefix
from kws_experiments.export.check import compared
from kws_experiments.export.export_run import export_run
from kws_experiments.export.formats.base import Format, Options, Request, find_format, format_names
from kws_experiments.export.formats.tflite import converter
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
FRONT_END = {
    "config": {"_target_": "kws_data.features.micro.MicroFrontend"},
    "frame_length": 480, "frame_step": 320, "fft_size": 512, "frames": 49, "bins": 10, "scale": 10 / 256,
}  # fmt: skip


def loudness() -> Scorer:
    """Scores that show what came in."""
    facts = Facts(LABELS, SAMPLE_RATE, 4, {"yes": 0.5})
    return Scorer(facts, lambda inputs: np.abs(inputs).sum(axis=1, keepdims=True) * [[1, 2, 3]])


EXPORT = Artifact(
    format="tflite", quantize="int8", run={"name": "train", "fingerprint": "0123456789ab"}, labels=LABELS,
    sample_rate=SAMPLE_RATE, clip_samples=SAMPLE_RATE, front_end=FRONT_END, thresholds={"yes": 0.5, "no": 0.7},
    thresholds_from="", data_licence=None, data_citation=None, versions={}, notes=[], files=[INT8], c_name="words",
)  # fmt: skip


def artifact(folder: Path, content: bytes = b"model") -> Artifact:
    """An export on disk, its model no model."""
    folder.mkdir(parents=True)
    (folder / INT8.file).write_bytes(content)
    size, sha256 = content_hash(folder / INT8.file)
    written = dataclasses.replace(EXPORT, files=[dataclasses.replace(INT8, bytes=size, sha256=sha256)])
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


def test_c_source_has_the_sensitivities_of_a_tuned_run() -> None:
    settings = {"average_window_ms": 300.0, "suppression_ms": 250.0, "release": 0.8, "repeat_ms": 1000.0}
    tuned = {name: {"settings": settings, "thresholds": {"yes": level, "no": 0.5}}
             for name, level in (("low", 0.875), ("high", 0.25))}  # fmt: skip
    clips = {"clips": {"thresholds": {"yes": 0.5, "no": 0.7}}}

    text = c_source(b"x", EXPORT, Listening(clips | tuned, {"hop_ms": 40.0}))

    for name, value in (("hop_ms", 40), ("average_window_ms", 300), ("suppression_ms", 250), ("repeat_ms", 1000)):
        assert float(re.search(rf"float words_{name} = (\S+)f;", text["words.h"])[1]) == value
    for name, level in (("low", 0.875), ("high", 0.25)):
        assert f"extern const float words_thresholds_{name}[3];" in text["words.h"]
        limits = re.search(rf"words_thresholds_{name}\[\] = \{{(.*)\}}", text["words.c"])[1].replace("f", "").split(",")
        assert list(map(float, limits)) == [2.0, level, 0.5]  # no score reaches that of silence
    assert c_source(b"x", EXPORT, Listening(clips)) == c_source(b"x", EXPORT)


@given(threshold=st.floats(0, 1), output=st.integers(-128, 127))
def test_a_score_reaches_the_c_sources_threshold_where_it_reaches_the_own(threshold: float, output: int) -> None:
    text = c_source(b"x", dataclasses.replace(EXPORT, thresholds={"yes": threshold}))["words.c"]
    silence, yes, no = map(int, re.search(r"words_thresholds\[\] = \{(.*)\}", text)[1].split(","))
    score = float(INT8.output.dequantized(np.array([output], np.int8))[0])
    assert (output >= yes) == (score >= threshold)
    assert output < silence
    assert output < no


# C source


@given(st.text())
def test_strings_survive_c(text: str) -> None:
    literal = c_string(text)
    assert re.fullmatch(r'"([^"\\?\n]|\\[0-7]{3})*"', literal)
    octal = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), literal[1:-1].encode("ascii"))
    assert octal == text.encode()


# Each translation unit includes both headers; the second one would be skipped if the guards were the same
USES_BOTH = r"""
#include <stddef.h>
#include <stdio.h>
#include "first.h"
#include "second.h"
#include "first.h"
const unsigned char* other_unit(void);
#ifdef MAIN
int main(void) {
  char sized[first_num_labels];
  fwrite(first_model, 1, first_model_len, stdout);
  printf("|end|");
  fwrite(second_model, 1, second_model_len, stdout);
  printf("|end|%d %d %d\n", (int)((size_t)first_model % 16), other_unit() == first_model, (int)sizeof(sized));
  printf("%.9g %d %.9g\n", first_input_scale, first_input_zero_point, first_front_end_scale);
  for (int i = 0; i < first_num_labels; i++) printf("%s %d\n", first_labels[i], first_thresholds[i]);
  for (int i = 0; i < second_num_labels; i++) printf("%s %g\n", second_labels[i], second_thresholds[i]);
  printf("%d %d %d %d\n", first_sample_rate, first_window_samples, first_hop_samples, first_clip_samples);
  return first_input_frames != 49 || first_input_bins != 10 || first_output_zero_point != -128;
}
#else
const unsigned char* other_unit(void) { return first_model; }
#endif
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("language", ["c", "c++"])
def test_two_exports_compile_into_one_program_each_array_once(language: str, tmp_path: Path) -> None:
    models = [np.random.default_rng(seed).integers(0, 256, 1001 + seed, np.uint8).tobytes() for seed in (0, 1)]
    labels = ["_silence_", "größe", 'a "?" \\ b']
    first = dataclasses.replace(EXPORT, c_name="first", labels=labels, thresholds={"größe": 0.5}, data_licence="*/")
    ports = Port("features", [1, 49, 10], "float32"), Port("scores", [1, 3], "float32")
    files = [ModelFile("network.tflite", "features", *ports)]
    second = dataclasses.replace(EXPORT, c_name="second", files=files, thresholds={"no": 0.25})
    for model, export in zip(models, (first, second), strict=True):
        for name, text in c_source(model, export).items():
            (tmp_path / name).write_text(text)
    (tmp_path / "use.c").write_text(USES_BOTH)
    (tmp_path / "main.c").write_text("#define MAIN\n" + USES_BOTH)
    command = [
        "cc",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-x",
        language,
        "main.c",
        "use.c",
        "first.c",
        "second.c",
        "-o",
        "use",
    ]
    subprocess.run([*command, *(["-lstdc++"] if language == "c++" else [])], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "use"], capture_output=True, check=True).stdout
    *contents, rest = printed.split(b"|end|")
    once, scales, *rows = rest.decode().splitlines()
    assert contents == models
    assert once == "0 1 3"
    assert scales == f"{np.float32(0.1194):.9g} -27 {np.float32(10 / 256):.9g}"
    assert rows == [
        "_silence_ 128", "größe 0", 'a "?" \\ b 128', "_silence_ 2", "yes 2", "no 0.25", "16000 480 320 16000",
    ]  # fmt: skip


def test_the_header_has_the_resolvers_lines() -> None:
    """Of micro_mutable_op_resolver.h, those whose names are written in ways of their own."""
    methods = {
        "ADD": "AddAdd", "ADD_N": "AddAddN", "AVERAGE_POOL_2D": "AddAveragePool2D", "BATCH_MATMUL": "AddBatchMatMul",
        "CONV_2D": "AddConv2D", "CUMSUM": "AddCumSum", "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
        "FULLY_CONNECTED": "AddFullyConnected", "L2_NORMALIZATION": "AddL2Normalization", "L2_POOL_2D": "AddL2Pool2D",
        "PADV2": "AddPadV2", "RELU6": "AddRelu6", "SPACE_TO_BATCH_ND": "AddSpaceToBatchNd", "SPLIT_V": "AddSplitV",
        "SVDF": "AddSvdf", "TRANSPOSE_CONV": "AddTransposeConv",
    }  # fmt: skip
    file = dataclasses.replace(INT8, operators=list(methods), micro={"arena": 12_340})
    header = c_source(b"x", dataclasses.replace(EXPORT, files=[file]))["words.h"]
    assert "words_arena_bytes = 12340," in header
    assert f"tflite::MicroMutableOpResolver<{len(methods)}> resolver;" in header
    assert re.findall(r"resolver\.(\w+)\(\);", header) == list(methods.values())


@pytest.mark.parametrize(
    ("state", "how"),
    [("internal", "MicroResourceVariables::Create(allocator, 12)"), ("external", "other 12 inputs are states")],
)
def test_the_header_says_how_a_streaming_form_keeps_its_states(state: str, how: str) -> None:
    export = dataclasses.replace(EXPORT, streaming={"state": state, "states": 12})
    header = c_source(b"x", export)["words.h"]
    assert "the stream's next words_input_frames frames" in header
    assert how in header


def test_each_exports_names_in_c_are_its_own() -> None:
    assert own_prefix("train", "0123456789ab", "int8") == "train_012345_int8"
    assert own_prefix("train", "0123456789ab", "none") == "train_012345_float"
    assert own_prefix("train", "0123456789ab", "int8", "internal") == "train_012345_int8_streaming"
    assert own_prefix("train", "0123456789ab", "int8", "external") == "train_012345_int8_streaming_external"
    assert own_prefix("Größe 1/2", None, "int8") == "gr_e_1_2_int8"
    assert own_prefix("12 words", None, "none") == "kws_12_words_float"


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


def test_an_export_takes_the_files_that_its_run_takes(tmp_path: Path) -> None:
    rules = AudioRules(max_rate=48_000, levels="clip", muted="keep")
    folder = tmp_path / "export"
    dataclasses.replace(artifact(folder), audio=dataclasses.asdict(rules)).write(folder)
    assert read_artifact(folder).facts.clip_form.rules == rules
    record = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(record | {"audio": {"levels": "loud"}}))
    with pytest.raises(KwsError, match=r"export.json' is missing or damaged: export the run again"):
        read_artifact(folder)
    del record["audio"]  # of an earlier version
    (folder / "export.json").write_text(json.dumps(record))
    assert read_artifact(folder).facts.rules == AudioRules()


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
        ("foreign", r"export.json': format must be one of esphome, mlperf_tiny, onnx, saved_model, tflite, got 'h5'"),
    ],
)
def test_what_cannot_be_opened_is_one_line(path: str, message: str, tmp_path: Path) -> None:
    artifact(tmp_path / "export")
    dataclasses.replace(artifact(tmp_path / "foreign"), format="h5").write(tmp_path / "foreign")
    (tmp_path / "alone.tflite").write_bytes(b"model")
    with pytest.raises(KwsError, match=message):
        load_scorer(tmp_path / path)


@pytest.mark.parametrize(
    "change",
    [
        {"clip_samples": 8}, {"clip_samples": None}, {"labels": ["yes", "no"]}, {"takes": "features"},
        {"takes": "features", "front_end": {}}, {"takes": "features", "clip_samples": SAMPLE_RATE},
        {"takes": "features", "front_end": {"config": {"_target_": FRONT_END["config"]["_target_"], "num_mels": "x"}}},
        {"clip_samples": "16"}, {"clip_samples": -1}, {"sample_rate": 0}, {"files": []}, {"thresholds": {"yes": "x"}},
        {"labels": [1, 2, 3]}, {"labels": 3},
    ],
)  # fmt: skip
def test_a_model_that_is_not_as_its_record_says_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    import tensorflow as tf

    model = converter(lambda waveform: tf.nn.softmax(waveform[:, :3]), [1, 16], "waveform").convert()
    written = artifact(tmp_path / "export", model)
    whole = [dataclasses.replace(written.files[0], takes="waveform")]
    right = dataclasses.replace(written, clip_samples=16, files=whole)
    right.write(tmp_path / "export")
    assert load_scorer(tmp_path / "export").scores(np.zeros((2, 9))).shape == (2, 3)
    changed = change | ({"files": [dataclasses.replace(whole[0], takes=change["takes"])]} if "takes" in change else {})
    changed.pop("takes", None)
    record = json.loads((tmp_path / "export" / "export.json").read_text())
    record |= json.loads(json.dumps(changed, default=dataclasses.asdict))
    (tmp_path / "export" / "export.json").write_text(json.dumps(record))
    if isinstance(record["labels"], list):
        (tmp_path / "export" / "labels.txt").write_text("\n".join(map(str, record["labels"])) + "\n")
    with pytest.raises(KwsError, match="export the run again") as caught:
        load_scorer(tmp_path / "export")
    assert "\n" not in str(caught.value)


# the comparison


def test_comparison_counts_clips() -> None:
    original = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    exported = np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.3, 0.7]])
    result = compared(original, exported, truth=np.array([0, 1, 1, 1]))
    assert result == {"accuracy": 0.5, "agreement": 0.75, "disagreements": 1, "largest_difference": 0.5}


def test_table_has_the_original_and_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = artifact(tmp_path / "export")
    assert table.rows(written) == [("network.tflite", "features", "–", "–", "0.0 kB", "", "–")]
    own = {"accuracy": 0.925, "bytes": 100_000, "latency_ms": 1.0}
    check = {"split": "testing", "clips": 50, "accuracy": 0.9, "disagreements": 2, "latency_ms": 0.123, "original": own}
    micro = {"peak": {"operator": "CONV_2D, 3 of 9", "bytes": 9000, "tensors": [[1, 9, 500], [1, 4500]]}}
    found = {"arena": 12_340, "activations": 9000, "clips": 100, "identical": 100, "largest_difference": 0}
    file = dataclasses.replace(INT8, bytes=2000, check=check, micro=micro | found)
    checked = dataclasses.replace(written, files=[file])
    assert table.rows(checked) == [
        ("model.keras", "waveform", "92.5%", "", "100.0 kB", "", "1.00"),
        ("network.tflite", "features", "90.0%", "48 of 50", "2.0 kB", "12.3 kB", "0.12"),
    ]
    table.show(checked, tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "testing split, 50 clips" in printed
    assert "activations take the most at CONV_2D, 3 of 9: 9.0 kB, 1×9×500 and 1×4500" in printed
    assert "bit for bit on 100 of 100 clips" in printed
    (row,) = table.rows(dataclasses.replace(written, files=[dataclasses.replace(INT8, micro=micro)]))
    assert row[5] == "not measured"


@pytest.mark.parametrize("harm", ["not installed", "no model"])
def test_an_arena_that_cannot_be_measured_is_one_line(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if harm == "not installed":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    elif not importlib.util.find_spec("tflite_micro"):
        pytest.skip("tflite-micro is for Linux on x86-64")
    (tmp_path / "network.tflite").write_bytes(b"no model")
    (reason,) = tflm.measured(tmp_path / "network.tflite", np.zeros((1, 49, 10), np.int8)).values()
    wanted = {"not installed": r"tflite-micro.*pip install -e '.\[tflm\]'", "no model": "does not run it"}[harm]
    assert re.search(wanted, str(reason))
    assert "\n" not in str(reason)


# choices, before any work


def test_formats_are_found_by_their_files() -> None:
    assert format_names() == ["esphome", "mlperf_tiny", "onnx", "saved_model", "tflite"]
    for name in format_names():
        found = find_format(name)
        assert isinstance(found, Format)
        assert found.name == name
        assert {"none", "int8"} & set(found.quantizations)


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
        ({"format": "h5"}, 1000, "--format must be one of esphome, mlperf_tiny, onnx, saved_model, tflite, got 'h5'"),
        ({"format": "onnx", "quantize": "dynamic"}, 1000, "with onnx must be one of none, int8, got 'dynamic'"),
        ({"format": "saved_model", "quantize": "float16"}, 1000, "--quantize with saved_model must be one of none"),
        ({"format": "tflite", "clip_ms": 500}, 1000, r"the run's clips have one length already \(clip_ms=1000\)"),
        ({"format": "onnx", "c_name": "words"}, 1000, "--c-name goes with --format tflite and --quantize none or int8"),
        ({"format": "tflite", "quantize": "dynamic", "c_name": "words"}, 1000, "--c-name goes with --format tflite"),
        ({"format": "tflite", "c_name": "my-words"}, 1000, "--c-name must be letters, digits and _, .* got 'my-words'"),
        ({"format": "tflite", "c_name": ""}, 1000, "--c-name must be letters, digits and _, .* got ''"),
        ({"format": "tflite"}, None, r"--clip-ms: this run keeps its clips' lengths .* --clip-ms 1000"),
        ({"format": "tflite", "clip_ms": math.nan}, None, "--clip-ms must be a number from 10 to 60000, got nan"),
        ({"format": "saved_model", "clip_ms": 1000}, None, "--clip-ms: a SavedModel takes clips of any length"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, choice: dict[str, Any], clip_ms: int | None, message: str) -> None:
    with pytest.raises(KwsError, match=message):
        export_run(run_folder(tmp_path / "run", clip_ms), Options(**choice))
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
            export_run(tmp_path / name, Options("onnx"))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # pretend that nothing is installed
    with pytest.raises(KwsError, match=r"--format onnx needs tf2onnx and onnxruntime: pip install -e '.\[onnx\]'"):
        export_run(run_folder(tmp_path / "run"), Options("onnx"))


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
    [(ABORTS, "SIGABRT: .*LLVM ERROR"), ("#!/bin/sh\nexit 7\n", "exit status 7$")],
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


def test_an_answer_that_finds_no_room_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of it would be an EOFError, which Typer shows as 'Aborted.'."""
    (tmp_path / "request.pickle").write_bytes(pickle.dumps(Request(tmp_path, tmp_path, "onnx")))
    monkeypatch.setattr(convert, "convert", lambda request: "x" * 10_000)
    monkeypatch.setattr(convert, "end_with", lambda parent: None)
    monkeypatch.setattr(sys, "argv", ["convert", str(tmp_path), "1"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            convert.main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "answer.pickle").exists()


def test_a_full_disk_is_not_the_converters_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = "OSError: [Errno 28] No space left on device: 'answer.pickle'"
    done = subprocess.CompletedProcess([], 1, "", f"Traceback\n{ended}\n")
    monkeypatch.setattr(convert.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(OSError, match="No space left on device") as caught:
        convert.convert_in_child(Request(tmp_path, tmp_path / "out", "onnx"), tmp_path)
    assert caught.value.filename == str(tmp_path)
