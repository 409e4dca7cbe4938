import warnings
from pathlib import Path
from typing import Any

import hydra.utils
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tensorflow.lite.experimental.microfrontend.python.ops.audio_microfrontend_op import audio_microfrontend
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kws_data.features.base import FeatureLayer
from kws_data.features.log_mel import LogMel
from kws_data.features.log_spectrogram import LogSpectrogram
from kws_data.features.mel import dct_weights, mel_weights
from kws_data.features.mfcc import Mfcc
from kws_data.features.micro import MicroFrontend
from kws_data.features.stft import Stft

CONF = Path(__file__).parents[3] / "conf" / "features"

# REFERENCE: a second at 16 kHz.
SHAPES = {
    "stft": (124, 129),
    "log_spectrogram": (98, 257),
    "mfcc": (98, 40),
    "average": (98, 43),
    "mfcc_hello_edge": (49, 10),
    "mfcc_mlperf_tiny": (49, 10),
    "log_mel": (98, 40),
    "log_mel_20ms": (49, 40),
    "micro": (49, 40),
}
every_feature = pytest.mark.parametrize("name", SHAPES)


def make(name: str, sample_rate: int = 16000, **overrides: Any) -> FeatureLayer:
    root = OmegaConf.create({"sample_rate": sample_rate})
    root.features = OmegaConf.merge(OmegaConf.load(CONF / f"{name}.yaml"), overrides)
    return hydra.utils.instantiate(root.features)


LAYERS = {name: make(name) for name in SHAPES}
DYNAMIC = {name: tf.function(LAYERS[name], input_signature=[tf.TensorSpec([None, None])]) for name in SHAPES}


def noise(clips: int, samples: int = 16000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (clips, samples)).astype(np.float32)


@pytest.fixture(scope="session")
def real_clips(real_data: Path) -> np.ndarray:
    """Every 100th clip of one second: [clips, 16000] float32."""
    paths = sorted(real_data.glob("[a-z]*/*.wav"))[::100]
    clips = [tf.audio.decode_wav(path.read_bytes())[0][:, 0].numpy() for path in paths]
    return np.stack([clip for clip in clips if len(clip) == 16000])


def spectrogram(clip: np.ndarray, window: int = 480, step: int = 160) -> tf.Tensor:
    """The original's power spectrogram of [samples]: [1, frames, bins]."""
    return tf.raw_ops.AudioSpectrogram(input=clip[:, None], window_size=window, stride=step, magnitude_squared=True)


def in_deviations(got: Any, want: Any) -> float:
    """The largest difference, in standard deviations of what is wanted."""
    return float(np.max(np.abs(np.asarray(got) - np.asarray(want))) / np.std(want))


def test_one_config_per_layer_of_the_table() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == set(SHAPES)


@every_feature
def test_shape_of_a_second(name: str) -> None:
    layer = LAYERS[name]
    assert layer(noise(2)).shape == (2, *SHAPES[name])
    assert layer.output_shape_for(16000) == SHAPES[name]
    assert layer.num_bins == SHAPES[name][1]


@pytest.mark.parametrize(
    ("name", "window", "step", "count"), [("mfcc", 480, 160, 40), ("mfcc_hello_edge", 640, 320, 10)]
)
def test_mfcc_agrees_with_the_ops(real_clips: np.ndarray, name: str, window: int, step: int, count: int) -> None:
    want = []
    for clip in real_clips:
        power = spectrogram(clip, window, step)
        want.append(tf.raw_ops.Mfcc(spectrogram=power, sample_rate=16000, dct_coefficient_count=count)[0].numpy())
    assert in_deviations(LAYERS[name](real_clips), want) < 1e-3


@pytest.mark.parametrize("sample_rate", [8000, 11025, 22050])
def test_mfcc_agrees_with_the_ops_at_other_rates_and_bands(sample_rate: int) -> None:
    layer = make("mfcc", sample_rate, lower_hz=90, upper_hz=3500, num_mel_bins=26, num_coefficients=13)
    clip = noise(1, sample_rate)
    want = tf.raw_ops.Mfcc(
        spectrogram=spectrogram(clip[0], layer.frame_length, layer.frame_step),
        sample_rate=sample_rate,
        lower_frequency_limit=90,
        upper_frequency_limit=3500,
        filterbank_channel_count=26,
        dct_coefficient_count=13,
    )
    assert in_deviations(layer(clip), want) < 1e-3


def test_average_agrees_with_the_original(real_clips: np.ndarray) -> None:
    power = np.concatenate([spectrogram(clip) for clip in real_clips])
    want = tf.nn.avg_pool2d(power[..., None], [1, 6], [1, 6], "SAME")[..., 0]
    assert in_deviations(LAYERS["average"](real_clips), want) < 1e-4


@pytest.mark.parametrize("pool_bins", [1, 2, 5, 100, 257])
def test_average_pads_as_same_does(pool_bins: int) -> None:
    layer = make("average", pool_bins=pool_bins)
    spectrum = make("average", pool_bins=1)(noise(1))
    want = tf.nn.avg_pool2d(spectrum[..., None], [1, pool_bins], [1, pool_bins], "SAME")[..., 0]
    assert in_deviations(layer(noise(1)), want) < 1e-4


def test_log_spectrogram_agrees_with_the_op(real_clips: np.ndarray) -> None:
    want = tf.math.log(spectrogram(real_clips[0]) + 0.01)
    assert in_deviations(LAYERS["log_spectrogram"](real_clips[:1]), want) < 1e-4


@pytest.mark.parametrize(("length", "step"), [(255, 128), (256, 100), (1, 1)])
def test_stft_agrees_with_tf_signal(length: int, step: int) -> None:
    clips = noise(3, 2000)
    want = tf.abs(tf.signal.stft(clips, length, step))
    assert in_deviations(Stft(frame_length=length, frame_step=step)(clips), want) < 1e-5


def tf_signal_mfcc(clips: np.ndarray) -> tf.Tensor:
    scaled = clips / tf.reduce_max(clips, axis=1, keepdims=True)
    mel = tf.signal.linear_to_mel_weight_matrix(40, 257, 16000, 20.0, 4000.0)
    bands = tf.tensordot(tf.abs(tf.signal.stft(scaled, 480, 320, 512)), mel, 1)
    return tf.signal.mfccs_from_log_mel_spectrograms(tf.math.log(bands + 1e-6))[..., :10]


def test_mlperf_tiny_agrees_with_tf_signal(real_clips: np.ndarray) -> None:
    clips = real_clips[real_clips.max(axis=1) > 1e-3]
    assert in_deviations(LAYERS["mfcc_mlperf_tiny"](clips), tf_signal_mfcc(clips)) < 1e-3


def test_mlperf_tiny_ignores_the_level_and_survives_silence() -> None:
    layer, clip = LAYERS["mfcc_mlperf_tiny"], noise(1)
    assert in_deviations(layer(clip / 8), layer(clip)) < 1e-4
    silence = layer(np.zeros((1, 16000), np.float32)).numpy()
    np.testing.assert_allclose(silence[0, :, 0], np.log(1e-6) * np.sqrt(2 * 40), rtol=1e-5)
    np.testing.assert_allclose(silence[0, :, 1:], 0, atol=1e-4)


@pytest.mark.parametrize(("name", "window", "step"), [("log_mel", 480, 160), ("log_mel_20ms", 640, 320)])
def test_log_mel_agrees_with_tf_signal(name: str, window: int, step: int) -> None:
    fft_size = {480: 512, 640: 1024}[window]
    mel = tf.signal.linear_to_mel_weight_matrix(40, fft_size // 2 + 1, 16000, 20.0, 7600.0)
    power = tf.abs(tf.signal.stft(noise(2), window, step, fft_size)) ** 2
    want = tf.math.log(tf.tensordot(power, mel, 1) + 1e-6)
    assert in_deviations(LAYERS[name](noise(2)), want) < 1e-3


def test_micro_is_the_op_on_int16() -> None:
    pcm = np.random.default_rng(0).integers(-20000, 20000, (3, 16000), np.int16)
    want = [
        audio_microfrontend(
            tf.constant(clip),
            sample_rate=16000,
            window_size=30,
            window_step=20,
            num_channels=40,
            upper_band_limit=7500.0,
            lower_band_limit=125.0,
            enable_pcan=True,
            out_type=tf.float32,
        )
        for clip in pcm
    ]
    got = LAYERS["micro"](pcm.astype(np.float32) / 32768)
    np.testing.assert_array_equal(got, np.stack(want) * np.float32(10 / 256))
    assert in_deviations(make("micro", enable_pcan=False)(pcm / 32768), np.stack(want) * 10 / 256) > 0.1


KINDS = {
    "silence": lambda n: np.zeros(n),
    "square": lambda n: np.where(np.arange(n) // 20 % 2, -1.0, 1.0),
    "dc": lambda n: np.full(n, -1.0),
    "denormal": lambda n: np.where(np.arange(n) % 3, 1e-41, -1e-41),
    "loud below zero": lambda n: np.where(np.arange(n) == 0, 1e-30, -1.0),
    "noise": lambda n: np.random.default_rng(n).uniform(-1, 1, n),
    "impulse": lambda n: np.eye(1, n, n // 2)[0],
}


@every_feature
@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), max_size=20),
    samples=st.one_of(st.integers(1, 1000), st.integers(1, 48000)),
)
@settings(max_examples=25, deadline=None)
def test_any_waveform_gives_finite_features(name: str, kinds: list[str], samples: int) -> None:
    waveform = np.array([KINDS[kind](samples) for kind in kinds], np.float32).reshape(-1, samples)
    features = DYNAMIC[name](waveform)
    assert features.shape == (len(kinds), *LAYERS[name].output_shape_for(samples))
    assert np.isfinite(features).all()


@every_feature
def test_a_clip_does_not_depend_on_its_neighbours(name: str) -> None:
    clips = noise(40)
    together = DYNAMIC[name](clips).numpy()
    clips[:33] = np.nan if name != "micro" else 1.0  # an int16 has no NaN
    np.testing.assert_allclose(DYNAMIC[name](clips)[33:], together[33:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(LAYERS[name](clips[36:37])[0], together[36], rtol=1e-5, atol=1e-5)


@every_feature
def test_short_clips_are_zero_padded_to_one_frame(name: str) -> None:
    layer, clip = LAYERS[name], noise(2, 100)
    padded = np.pad(clip, [(0, 0), (0, layer.frame_length - 100)])
    np.testing.assert_array_equal(layer(clip), layer(padded))
    assert layer(clip).shape[1] == 1


def test_num_frames_of_ints_arrays_and_tensors() -> None:
    lengths, frames = [-5, 0, 479, 480, 639, 640, 16000], [1, 1, 1, 1, 1, 2, 98]
    layer = LAYERS["mfcc"]
    assert [layer.num_frames(n) for n in lengths] == frames
    np.testing.assert_array_equal(layer.num_frames(np.array(lengths)), frames)
    np.testing.assert_array_equal(layer.num_frames(tf.constant(lengths)), frames)


@every_feature
def test_inside_tf_data(name: str) -> None:
    clips = noise(10)
    dataset = tf.data.Dataset.from_tensor_slices(clips).batch(4).map(make(name, normalise=True), num_parallel_calls=2)
    assert dataset.element_spec.shape.as_list() == [None, *SHAPES[name]]
    np.testing.assert_allclose(np.concatenate(list(dataset)), LAYERS[name](clips), rtol=1e-4, atol=1e-4)


@every_feature
def test_inside_a_saved_model(name: str, tmp_path: Path) -> None:
    layer = make(name, normalise=True)
    layer.adapt([noise(4, seed=1)])
    inputs = keras.Input((None,))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(layer(inputs)))
    clips = noise(12)
    want = model(clips)
    assert model.compute_output_shape((3, 16000)) == (3, layer.num_bins)

    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "model.keras")(clips), want, rtol=1e-4, atol=1e-4)
    model.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(saved.serve(clips), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "micro"])
def test_a_single_clip_converts_to_tflite(name: str) -> None:
    function = tf.function(make(name)).get_concrete_function(tf.TensorSpec([1, 16000]))
    model = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(function)]).convert()
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], noise(1))
    interpreter.invoke()
    features = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert in_deviations(features, LAYERS[name](noise(1))) < 1e-4


@every_feature
def test_config_round_trip(name: str) -> None:
    layer = make(name, normalise=True, **({"frame_step": 100} if name == "stft" else {"hop_ms": 15}))
    twin = type(layer).from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    np.testing.assert_array_equal(twin(noise(1)), layer(noise(1)))


def test_features_stay_float32_under_a_mixed_policy() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        features = LogMel()(noise(1))
    finally:
        keras.config.set_dtype_policy("float32")
    assert features.dtype == tf.float32


@every_feature
def test_adapted_features_have_zero_mean_and_unit_variance(name: str) -> None:
    layer = make(name, normalise=True)
    clips = noise(30)
    layer.adapt([clips[:7], clips[7:8], clips[8:]])
    rows = layer(clips).numpy().reshape(-1, layer.num_bins).astype(np.float64)
    varies = LAYERS[name](clips).numpy().reshape(-1, layer.num_bins).var(axis=0) > 1e-6
    assert varies.any()
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(rows.var(axis=0)[varies], 1, rtol=1e-2)


def test_adapting_leaves_out_the_padding() -> None:
    clips, padded = noise(2, 8000), LogMel(normalise=True)
    plain = LogMel(normalise=True)
    plain.adapt([clips])
    padded.adapt([(np.pad(clips, [(0, 0), (0, 8000)]), [8000, 8000])])
    np.testing.assert_allclose(padded.mean, plain.mean, rtol=1e-6)
    np.testing.assert_allclose(padded.variance, plain.variance, rtol=1e-6)


def test_adapting_a_far_offset_keeps_precision() -> None:
    layer = LogMel(normalise=True, log_offset=1e-6)
    quiet = noise(4) * 1e-6  # log of nearly the offset alone: large mean, tiny variance
    layer.adapt([quiet] * 3)
    rows = LogMel()(quiet).numpy().reshape(-1, 40).astype(np.float64)
    np.testing.assert_allclose(layer.variance, rows.var(axis=0), rtol=1e-4, atol=1e-12)


def test_adapting_needs_normalise_and_clips() -> None:
    with pytest.raises(ValueError, match=r"^normalise must be true"):
        LogMel().adapt([noise(1)])
    with pytest.raises(ValueError, match=r"^batches must hold"):
        LogMel(normalise=True).adapt([])


@pytest.mark.parametrize(
    ("layer", "arguments", "message"),
    [
        (LogMel, {"upper_hz": 9000}, r"upper_hz must be at most half of sample_rate \(8000 Hz\), got 9000"),
        (LogMel, {"sample_rate": 8000}, r"upper_hz must be at most half of sample_rate \(4000 Hz\), got 7600"),
        (LogMel, {"sample_rate": 0}, "sample_rate must be a whole number at least 1, got 0"),
        (LogMel, {"lower_hz": -1}, "lower_hz must be a number at least 0, got -1"),
        (LogMel, {"lower_hz": 7700}, r"lower_hz must be below upper_hz \(7600 Hz\), got 7700"),
        (LogMel, {"lower_hz": 20, "upper_hz": 25}, "upper_hz must be at least one FFT bin"),
        (LogMel, {"num_mel_bins": 0}, "num_mel_bins must be a whole number at least 1, got 0"),
        (LogMel, {"log_offset": 0}, "log_offset must be a number above 0, got 0"),
        (LogMel, {"window_ms": 0}, r"window_ms must be at least one sample long \(0.0625 ms\), got 0"),
        (LogMel, {"hop_ms": -10}, "hop_ms must be at least one sample long"),
        (LogMel, {"fft_size": 256}, r"fft_size must be null or at least the window \(480 samples\), got 256"),
        (LogSpectrogram, {"log_offset": -1}, "log_offset must be a number above 0, got -1"),
        (Mfcc, {"log_floor": 0}, "log_floor must be a number above 0, got 0"),
        (Mfcc, {"num_coefficients": 41}, r"num_coefficients must be from 1 to num_mel_bins \(40\), got 41"),
        (Stft, {"frame_length": 0}, "frame_length must be a whole number at least 1, got 0"),
        (Stft, {"frame_step": 0}, "frame_step must be a whole number at least 1, got 0"),
        (MicroFrontend, {"window_ms": 12.5}, "window_ms must be whole milliseconds, got 12.5"),
        (MicroFrontend, {"hop_ms": 40}, r"hop_ms must be at most window_ms \(30\), got 40"),
        (MicroFrontend, {"even_smoothing": 1.5}, "even_smoothing must be a number from 0 to 1, got 1.5"),
    ],
)
def test_bad_parameters_name_themselves(layer: type[FeatureLayer], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        layer(**arguments)


def test_a_constructor_warns_of_empty_bands() -> None:
    with pytest.warns(UserWarning, match="bands hold no FFT bin"):
        LogMel(num_mel_bins=200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in SHAPES:
            make(name)


def test_mel_bands_and_cosines_agree_with_tf_signal() -> None:
    bins, weights = mel_weights(1024, 22050, 30, 100.0, 8000.0)
    want = tf.signal.linear_to_mel_weight_matrix(30, 513, 22050, 100.0, 8000.0, dtype=tf.float64).numpy()
    full = np.zeros_like(want)
    full[bins] = weights
    np.testing.assert_allclose(full, want, atol=1e-9)
    log_mel = noise(1, 30).astype(np.float64)
    np.testing.assert_allclose(
        log_mel @ dct_weights(30, 12), tf.signal.mfccs_from_log_mel_spectrograms(log_mel)[:, :12], atol=1e-6
    )
