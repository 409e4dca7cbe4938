"""`kws export --mlperf-tiny`, beside what MLPerf Tiny's scripts do with their own network, written anew here."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kws_data.errors import KwsError
from kws_experiments.export.export_run import export_run
from kws_experiments.export.formats.base import Options
from kws_experiments.export.load import load_export, load_run
from tests.kws_experiments.export.test_export_models import exported
from tests.untrained import LABELS, real_waveforms, untrained_run

OURS = ["_silence_", "_unknown_", "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
# get_dataset.py: the order of TensorFlow Datasets' speech_commands
THEIRS = ["down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "_silence_", "_unknown_"]
REFERENCE = ["experiment=mlperf_tiny", "dataset=folder", "dataset.path=/nowhere", "split=speaker"]


@pytest.fixture(scope="module")
def clips(real_data: Path) -> np.ndarray:
    """60 real clips: [clips, 16000] float32."""
    return real_waveforms(real_data, 60, every=58)


@pytest.fixture(scope="module")
def run(clips: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("mlperf") / "run", *REFERENCE, labels=OURS, clips=clips)


def their_features(clips: np.ndarray) -> np.ndarray:
    """As get_dataset.py prepares `mfcc`, by tf.signal: [clips, 49, 10, 1]."""
    scaled = clips / clips.max(axis=1, keepdims=True)
    spectrum = tf.abs(tf.signal.stft(scaled, 480, 320))
    mel = tf.signal.linear_to_mel_weight_matrix(40, spectrum.shape[-1], 16000, 20.0, 4000.0)
    return tf.signal.mfccs_from_log_mel_spectrograms(tf.math.log(spectrum @ mel + 1e-6))[..., :10, None].numpy()


def their_predictions(model: Path, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As eval_quantized_model.py: the index of the highest output of each clip, and all outputs."""
    interpreter = tf.lite.Interpreter(str(model))
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = source["quantization"]
    outputs = []
    for clip in features[:, np.newaxis]:
        if source["dtype"] == np.int8:
            clip = np.trunc(clip / scale + zero_point).astype(np.int8)  # theirs cuts off where ours rounds
        interpreter.set_tensor(source["index"], clip)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(result["index"])[0])
    return np.argmax(outputs, axis=1), np.array(outputs)


def test_their_evaluation_finds_what_the_run_finds(run: Path, clips: np.ndarray) -> None:
    expected = load_run(run).scores(clips)[:, [OURS.index(label) for label in THEIRS]]
    features = their_features(clips)
    assert len(set(expected.argmax(axis=1))) > 4, "the clips' labels are to differ"

    out, artifact = exported(run, "mlperf_tiny")
    found, outputs = their_predictions(out / "kws_model.tflite", features)
    np.testing.assert_allclose(outputs, expected, atol=2e-3)  # the single precision of a spectrum divided by a maximum
    assert (found == expected.argmax(axis=1)).mean() > 0.98
    assert artifact.labels == (out / "labels.txt").read_text().split() == THEIRS
    np.testing.assert_allclose(load_export(out, artifact, artifact.files[0]).scores(clips), expected, atol=2e-5)

    # evaluate.py, with the Keras model: no class of this project is needed
    model = keras.models.load_model(out / "kws_model.h5", custom_objects={})
    assert model.input_shape == (None, 49, 10, 1)
    assert all(type(layer).__module__.startswith("keras.") for layer in model._flatten_layers())
    truth = expected.argmax(axis=1)
    measured = model.evaluate(features, truth, verbose=0, return_dict=True)
    assert measured["sparse_categorical_accuracy"] > 0.98
    np.testing.assert_allclose(model.predict(features, verbose=0), outputs, atol=1e-5)


def test_the_int8_network_takes_the_runners_inputs(run: Path, clips: np.ndarray) -> None:
    out, artifact = exported(run, "mlperf_tiny", "int8")
    (file,) = artifact.files
    assert (file.input.shape, file.input.dtype, file.output.shape) == ([1, 49, 10, 1], "int8", [1, 12])
    assert (np.float32(file.input.scale), file.input.zero_point) == (np.float32(0.5847029089927673), 83)
    assert set(file.operators) <= {  # the reference submission's resolver
        "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "RESHAPE", "SOFTMAX"
    }  # fmt: skip
    assert artifact.notes == []
    expected = load_run(run).scores(clips)[:, [OURS.index(label) for label in THEIRS]]
    found, _ = their_predictions(out / "kws_model.tflite", their_features(clips))
    assert (found == expected.argmax(axis=1)).mean() > 0.6  # drawn weights separate little, which coarse steps blur


def test_operators_beyond_the_reference_submissions_are_named(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", *REFERENCE, "model=tc_resnet8", labels=OURS)
    _, artifact = exported(run, "mlperf_tiny")
    assert artifact.notes == ["the reference submission's resolver lacks ADD"]


@pytest.mark.parametrize(
    ("labels", "overrides", "message"),
    [
        (LABELS, [], "needs task=keywords12, and the run's labels are _silence_, _unknown_, yes, no"),
        (OURS, ["features=mfcc"], "needs features._target_=kws_data.features.mfcc.MlperfTinyMfcc, and the run has kws"),
        (OURS, ["features.hop_ms=10"], "needs features.hop_ms=20, and the run has 10: train with features=mfcc_mlperf"),
        (OURS, ["features.normalise=true"], "needs features.normalise=False, and the run has True"),
        (OURS, ["clip_ms=null"], "needs clip_ms=1000, and the run has None"),
        (OURS, ["sample_rate=8000"], "needs features.sample_rate=16000, and the run has 8000"),
    ],
)
def test_runs_that_do_not_fit_are_refused(
    labels: list[str], overrides: list[str], message: str, tmp_path: Path
) -> None:
    run = untrained_run(tmp_path / "run", *REFERENCE, *overrides, labels=labels)
    with pytest.raises(KwsError, match=message) as caught:
        export_run(run, Options("mlperf_tiny"), check=False)
    assert "\n" not in str(caught.value)
    assert not (run / "exports").exists()
