"""`kws export --format esphome`: the model and the manifest, beside what ESPHome has and pymicro-wakeword does."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from scipy.special import expit

from kws_data.catalog import UNKNOWN
from kws_data.errors import KwsError
from kws_experiments.export.artifact import Artifact
from kws_experiments.export.convert import convert
from kws_experiments.export.export_run import export_run
from kws_experiments.export.formats import esphome
from kws_experiments.export.formats.base import Options, Request, find_format
from kws_experiments.export.load import load_export, load_run
from kws_experiments.export.tflite_stream import EXTERNAL, INTERNAL, STATES
from kws_experiments.runs.listening import Listening
from tests.kws_experiments.export.test_export_run import kws
from tests.kws_experiments.test_train import only_run, train
from tests.untrained import LABELS, real_waveforms, untrained_run

CAUSAL = ["model=mixconv", "features=micro", "features.hop_ms=10"]
# streaming_model.cpp, register_streaming_ops_
ESPHOME_HAS = {
    "ADD", "ASSIGN_VARIABLE", "AVERAGE_POOL_2D", "CALL_ONCE", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED", "LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL", "PACK", "PAD", "QUANTIZE", "READ_VARIABLE", "RESHAPE",
    "SPLIT_V", "STRIDED_SLICE", "VAR_HANDLE",
}  # fmt: skip
TUNED = {
    name: {
        "settings": {"average_window_ms": 200.0, "suppression_ms": 500.0},
        "thresholds": {"yes": threshold, "no": 0.5},
        "false_accepts_per_hour_asked": rate,
    }
    for name, threshold, rate in (("low", 0.99995, 0.5), ("medium", 0.8125, 2.0), ("high", 0.5, 10.0))
}


@pytest.fixture(scope="module")
def clips(real_data: Path) -> np.ndarray:
    """30 real clips: [clips, 16000] float32."""
    return real_waveforms(real_data, 30, every=115)


@pytest.fixture(scope="module")
def run(clips: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("esphome") / "run", *CAUSAL, clips=clips)


@pytest.fixture(scope="module")
def export(run: Path, clips: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    """What `kws export --word yes` writes, without the manifest."""
    out = tmp_path_factory.mktemp("export")
    artifact = convert(Request(run, out, "esphome", "int8", 16000, clips, word="yes"))
    artifact.write(out)
    return out, artifact


def margin_of(scores: np.ndarray, word: int) -> np.ndarray:
    """Of softmax scores: how far a word's logit is above the largest other one."""
    logits = np.log(scores)
    return logits[:, word] - np.delete(logits, word, axis=1).max(axis=1)


def test_the_model_is_of_the_form_that_esphome_loads(export: tuple[Path, Artifact]) -> None:
    out, artifact = export
    (file,) = artifact.files
    assert (file.file, file.takes, artifact.labels) == ("yes.tflite", "frames", ["_unknown_", "yes"])
    assert set(file.operators) <= ESPHOME_HAS
    interpreter = Interpreter(str(out / "yes.tflite"))
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (source["shape"].tolist(), source["dtype"]) == ([1, 3, 40], np.int8)
    assert (result["shape"].tolist(), result["dtype"]) == ([1, 1], np.uint8)
    assert result["quantization"] == (1 / 256, 0)
    # micro_wake_word.cpp, generate_features_: what the front end gives → int8, whatever the model says
    raw = np.arange(0, 671)
    theirs = np.clip((256 * raw + 333) // 666 - 128, -128, 127)
    ours = file.input.quantized((raw * 10 / 256).astype(np.float32))
    assert np.abs(theirs - ours).max() <= 1


def test_scores_are_those_of_the_run(run: Path, export: tuple[Path, Artifact], clips: np.ndarray) -> None:
    out, artifact = export
    softmax = load_run(run).scores(clips)
    expected = expit(margin_of(softmax, LABELS.index("yes")))
    assert np.ptp(expected) > 0.5, "the clips' scores are to differ"
    own = find_format("esphome").own_scores(softmax, LABELS, artifact.labels)
    np.testing.assert_allclose(own, np.stack([1 - expected, expected], axis=1), atol=1e-5)

    scorer = load_export(out, artifact, artifact.files[0])
    found = scorer.scores(clips)
    np.testing.assert_array_equal(found, scorer.scores(clips), err_msg="a clip's state went on to the next one")
    assert found.shape == (len(clips), 2)
    assert np.corrcoef(found[:, 1], expected)[0, 1] > 0.8  # drawn weights separate little, which coarse steps blur


def test_the_head_is_the_sigmoid_of_a_difference_without_subtracting() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((7,))
    network = keras.Model(inputs, keras.layers.Dense(5, bias_initializer="normal", name="logits")(inputs))
    rows = np.random.default_rng(0).normal(0, 3, (20, 7)).astype(np.float32)
    expected = expit(margin_of(tf.nn.softmax(network(rows)).numpy(), 2))
    margins = esphome.margins(network, 2)
    found = [esphome.score(margins(row[None])).numpy() for row in rows]
    np.testing.assert_allclose(np.ravel(found), expected, atol=1e-5)
    assert found[0].shape == (1, 1)


def test_the_manifest_has_the_tuned_values(tmp_path: Path, export: tuple[Path, Artifact]) -> None:
    _, artifact = export
    (file,) = artifact.files
    measured = dataclasses.replace(
        artifact, files=[dataclasses.replace(file, micro={"peak": {"bytes": 5000}, "arena": 20_000})]
    )
    Listening({"clips": {"thresholds": {}}} | TUNED).write(tmp_path)
    find_format("esphome").write_extras(measured, tmp_path)
    manifest = json.loads((tmp_path / "yes.json").read_text())
    assert manifest == {
        "type": "micro", "wake_word": "yes", "author": "train 0123456789ab", "model": "yes.tflite",
        "trained_languages": [], "version": 2,
        "micro": {
            "probability_cutoff": 0.8125,
            "feature_step_size": 10,
            "sliding_window_size": 7,  # steps of 30 ms within 200 ms: at 0, 30, …, 180
            "tensor_arena_size": 25_000,
            "minimum_esphome_version": "2024.7.0",
        },
    }  # fmt: skip
    find_format("esphome").write_extras(
        dataclasses.replace(artifact, files=[dataclasses.replace(file, micro={"peak": {"bytes": 5000}})]), tmp_path
    )
    assert json.loads((tmp_path / "yes.json").read_text())["micro"]["tensor_arena_size"] > 40_000


@pytest.mark.parametrize("word", ["export", "listening", "signature"])
def test_a_words_files_are_not_others_of_the_export(word: str, tmp_path: Path, export: tuple[Path, Artifact]) -> None:
    _, artifact = export
    tuned = {name: values | {"thresholds": {word: 0.5}} for name, values in TUNED.items()}
    Listening({"clips": {"thresholds": {}}} | tuned).write(tmp_path)
    find_format("esphome").write_extras(dataclasses.replace(artifact, labels=["_unknown_", word]), tmp_path)
    assert json.loads((tmp_path / f"{word}_.json").read_text())["wake_word"] == word
    assert Listening.read(tmp_path).tuned == tuned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--word is missing: --format esphome takes one of yes, no$"),
        ({"word": "stop"}, "--word 'stop' is no keyword of the run: --format esphome takes one of yes, no$"),
        ({"word": "_unknown_"}, "--word '_unknown_' is no keyword of the run"),
        ({"word": "yes"}, "--format esphome needs sensitivities for long audio: kws tune '"),
        ({"word": "yes", "quantize": "none"}, "--quantize with esphome must be one of int8, got 'none'"),
        ({"word": "yes", "c_name": "x"}, "--c-name goes with --format tflite"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, str], message: str, run: Path) -> None:
    with pytest.raises(KwsError, match=message) as caught:
        export_run(run, Options("esphome", **options))
    assert "\n" not in str(caught.value)
    assert not (run / "exports").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["features=log_mel"], "needs features._target_=kws_data.features.micro.MicroFrontend, and the run has kws"),
        (["features=micro"], "needs features.hop_ms=10, and the run has 20: train with features=micro features.hop_"),
    ],
)
def test_runs_with_another_front_end_are_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", *overrides)
    with pytest.raises(KwsError, match=message):
        export_run(run, Options("esphome", word="yes"))
    assert not (run / "exports").exists()


def test_a_network_that_needs_whole_windows_is_refused(tmp_path: Path, clips: np.ndarray) -> None:
    run = untrained_run(tmp_path / "run", "model=ds_cnn_s", "features=micro", "features.hop_ms=10")
    with pytest.raises(KwsError, match=r"ds_cnn does not run on a stream, since conv2d.* puts zeros behind .*_causal"):
        convert(Request(run, tmp_path, "esphome", "int8", 16000, clips, word="yes"))


ELSEWHERE = os.environ.get("KWS_ESPHOME_PYTHON", "")  # of an environment with esphome and pymicro-wakeword

DETECT = """
import json, sys
import numpy as np
from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures

model, audio = MicroWakeWord.from_config(sys.argv[1]), np.load(sys.argv[2])
times, quiet = [], 100
for index, features in enumerate(MicroWakeWordFeatures().process_streaming(audio.tobytes())):
    detected = model.process_streaming(features)
    if detected and quiet >= 50:
        times.append(10 * index)
    quiet = 0 if detected else quiet + 1
print(json.dumps(times))
"""
VALIDATE = """
import json, sys
from esphome.components import micro_wake_word
micro_wake_word._validate_manifest_version(json.load(open(sys.argv[1])))
"""


def elsewhere(code: str, *arguments: Path) -> str:
    done = subprocess.run([ELSEWHERE, "-c", code, *arguments], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def recording(data: Path, *words: str) -> tuple[np.ndarray, int]:
    """Test clips of these words, up to 12 of each, with pauses: samples int16, and how many clips."""
    listed = (data / "testing_list.txt").read_text().split()
    pause = np.random.default_rng(0).normal(0, 10, 24_000)
    parts, count = [pause], 0
    for word in words:
        for name in [name for name in listed if name.startswith(f"{word}/")][:12]:
            parts += [soundfile.read(data / name, dtype="int16")[0], pause]
            count += 1
    return np.concatenate(parts).astype(np.int16), count


@pytest.fixture(scope="module")
def trained(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a network that streams, on real clips."""
    folder = tmp_path_factory.mktemp("trained")
    train(
        folder, "dataset=folder", f"dataset.path={real_data}", "split=lists", *CAUSAL, "task.words=[yes,no]",
        "optimizer.learning_rate=0.003", "schedule=cosine", "trainer.epochs=40", "report=false",
    )  # fmt: skip
    return only_run(folder)


@pytest.mark.slow
def test_in_int8_a_stream_is_within_a_point_of_the_network_for_clips(
    trained: Path, real_data: Path, tmp_path: Path
) -> None:
    words = [path.parent.name for path in sorted(real_data.glob("[a-z]*/*.wav"))[::2]]
    clips, labels = real_waveforms(real_data, len(words), every=2), load_run(trained).labels
    truth = np.array([labels.index(word if word in labels else UNKNOWN) for word in words])
    accuracy = {}
    for state in (None, *STATES):
        out = tmp_path / str(state)
        out.mkdir()
        artifact = convert(Request(trained, out, "tflite", "int8", 16000, clips[::6], state=state))
        artifact.write(out)
        file = next(file for file in artifact.files if file.takes == "frames" or file.file == "network.tflite")
        right = load_export(out, artifact, file).scores(clips).argmax(axis=1) == truth
        assert right[np.isin(words, ["yes", "no"])].mean() > 0.8
        accuracy[state] = 100 * right.mean()
    assert accuracy[INTERNAL] == pytest.approx(accuracy[None], abs=1)
    assert accuracy[EXTERNAL] == pytest.approx(accuracy[None], abs=1)


@pytest.mark.slow
@pytest.mark.skipif(not ELSEWHERE, reason="KWS_ESPHOME_PYTHON: no Python with esphome and pymicro-wakeword")
def test_pymicro_wakeword_detects_the_word_and_esphome_takes_the_manifest(
    trained: Path, real_data: Path, tmp_path: Path
) -> None:
    kws("tune", str(trained), "--minutes", "3")
    kws("export", str(trained), "--format", "esphome", "--word", "yes")

    manifest = trained / "exports" / "esphome-int8-yes" / "yes.json"
    elsewhere(VALIDATE, manifest)
    yes, count = recording(real_data, "yes")
    np.save(tmp_path / "yes.npy", yes)
    assert len(json.loads(elsewhere(DETECT, manifest, tmp_path / "yes.npy"))) >= count / 2
    others, count = recording(real_data, "no", "up", "left", "stop")
    np.save(tmp_path / "others.npy", others)
    assert len(json.loads(elsewhere(DETECT, manifest, tmp_path / "others.npy"))) <= count / 20
