"""A network's streaming form gives what the network gives, on real clips and at every hop."""

from functools import cache

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from keras import layers

from kws_experiments.reports.model_table import choose
from kws_models.inputs import feature_image
from kws_models.streaming import NetworkStream, StreamingForm
from tests.conftest import SAMPLE_RATE
from tests.kws_models.networks import VARIANTS, features_of, from_config, shake, small
from tests.untrained import tell_apart

FRAMES = 98
# Networks of which more than the windows' frames is kept; the frames between two outputs of what runs on the stream
CAUSAL = {
    "bc_resnet_1_causal": 1, "ds_cnn_s_causal": 2, "matchboxnet_3x1x64_causal": 1, "mixconv": 3, "tc_resnet8_causal": 8,
}  # fmt: skip
OWN_WINDOWS = {"cnn4": 16, "low_latency_svdf": 1}
CHANGES = {"cnn4": {"filters": [4, 4, 4, 4]}}


@pytest.fixture(scope="module")
def clips(real_data):
    """Eight clips of a second, [8, samples] float32."""
    found = np.zeros((8, SAMPLE_RATE), np.float32)
    for index, word in enumerate(("yes", "no", "up", "stop", "go", "left", "on", "right")):
        samples, _ = soundfile.read(sorted((real_data / word).glob("*.wav"))[index], dtype="float32")
        found[index, : len(samples)] = samples[:SAMPLE_RATE]
    return found


@cache
def front_end(name):
    return choose(name).experiment.features


def network_and_recording(name, clips):
    """A network of its config's size whose logits of these clips differ, and the frames of four of them in a row."""
    features = front_end(name)
    keras.utils.set_random_seed(0)
    network = from_config(name, features.output_shape_for(SAMPLE_RATE), 4, **CHANGES.get(name, {}))
    tell_apart(network, features, clips)
    return network, features(clips[:4].reshape(1, -1)).numpy()[0]


def of_all_so_far(name, network, frames, ends):
    """Logits of a causal network on all frames up to each end, its average over the last window's."""
    whole = from_config(name, frames.shape, 4, **CHANGES.get(name, {}))
    whole.set_weights(network.get_weights())
    pooling = next(layer for layer in whole.layers if isinstance(layer, layers.GlobalAveragePooling2D))
    maps = keras.Model(whole.input, pooling.input)(frames[None]).numpy()[0].mean(axis=1)
    last = [end // CAUSAL[name] for end in ends]
    length = network.input_shape[1] // CAUSAL[name]
    means = np.stack([maps[end - length : end].mean(axis=0) for end in last])
    return whole.layers[-1](means).numpy()


def pieces(frames, *sizes):
    ends = np.cumsum(np.resize(sizes, len(frames)))
    return np.split(frames, ends[ends < len(frames)])


@pytest.mark.parametrize(
    ("name", "hop"),
    [*((name, 4) for name in (*CAUSAL, *OWN_WINDOWS)), ("ds_cnn_s_causal", 7), ("tc_resnet8_causal", 16), ("cnn4", 16)],
)
def test_a_stream_has_the_networks_logits_at_every_hop(name, hop, clips):
    network, frames = network_and_recording(name, clips)
    window = network.input_shape[1]
    ends = range(window, len(frames) + 1, hop)
    expected = network(np.stack([frames[end - window : end] for end in ends])).numpy()
    if name in CAUSAL:
        by_window, expected = expected, of_all_so_far(name, network, frames, ends)
        np.testing.assert_allclose(expected[0], by_window[0], rtol=0, atol=1e-5 * np.ptp(expected))
    assert np.ptp(expected, axis=0).max() > 1

    stream = NetworkStream(network, window, hop)
    parts = pieces(frames, 50, 3, 120, 7)
    logits = [stream.feed(part) for part in parts]
    found = np.concatenate(logits)
    if name == "cnn4":  # which is late by less than its stride
        assert len(expected) - len(found) <= 1
    else:
        counts, seen = (np.cumsum([len(part) for part in of]).tolist() for of in (logits, parts))
        assert counts == [sum(end <= count for end in ends) for count in seen]  # no sooner and no later
    assert stream.form.streams
    assert stream.form.causal == (name in CAUSAL)
    np.testing.assert_allclose(found, expected[: len(found)], rtol=0, atol=1e-5 * np.ptp(expected))
    one_by_one = NetworkStream(network, window, hop)
    found = np.concatenate([one_by_one.feed(frame[None]) for frame in frames[: window + 2 * hop]])
    np.testing.assert_allclose(found, expected[: len(found)], rtol=0, atol=1e-5 * np.ptp(expected))
    assert len(found) >= 2


@pytest.mark.parametrize("name", CAUSAL)
def test_a_step_is_the_network_on_a_clip(name, clips):
    """The step by itself, as exports have it: from zeros to a clip's last whole step, and on with its states."""
    network, _ = network_and_recording(name, clips)
    features = front_end(name)(clips)
    form = StreamingForm(network, features.shape[1], CAUSAL[name])
    assert form.stride == form.step_frames == CAUSAL[name]
    step = tf.function(form.step)
    expected = network(features).numpy()
    for clip, logits in zip(features[:3], expected, strict=False):
        states = list(form.states)
        for start in range(0, form.first_frames, form.step_frames):
            found, states = step(clip[None, start : start + form.step_frames], states)
        np.testing.assert_allclose(found[0], logits, rtol=0, atol=1e-5 * np.ptp(expected))


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_network_does_not_look_ahead(name):
    network = small(name, (FRAMES, 20))
    pooling = next(layer for layer in network.layers if isinstance(layer, layers.GlobalAveragePooling2D))
    maps = keras.Model(network.input, pooling.input)
    frames = features_of(1, FRAMES, 20)
    changed = frames.copy()
    changed[:, 64:] += 1
    before, after = maps(frames).numpy(), maps(changed).numpy()
    known = 64 // StreamingForm(network, FRAMES, 8).stride
    np.testing.assert_array_equal(before[:, :known], after[:, :known])
    assert not np.allclose(before[:, known], after[:, known])


@pytest.mark.parametrize("name", VARIANTS)
def test_which_networks_stream(name):
    """The others run on windows of frames, and say which layer makes them."""
    network = small(name, (FRAMES, 257 if name in ("cnn4", "simple_audio") else 40))
    form = StreamingForm(network, FRAMES, 16)
    assert (form.streams, form.causal) == (name in {**CAUSAL, **OWN_WINDOWS}, name in CAUSAL)
    if not form.streams:
        assert any(reason in form.reason for reason in ("'same' padding", "needs the window's frames"))
        assert [state.shape[1:2] for state in form.states] == [(FRAMES - 16,)]


@pytest.mark.parametrize("name", [*CAUSAL, "ds_cnn_s", "low_latency_svdf", "mhatt_rnn", "res8"])
def test_networks_for_clips_of_any_length_stream_by_the_window(name):
    fixed, any_length = shake(small(name, (48, 20))), small(name, (None, 20))
    any_length.set_weights(fixed.get_weights())
    frames = features_of(80, 20)
    expected, found = (NetworkStream(network, 48, 4).feed(frames) for network in (fixed, any_length))
    assert len(found) == 9
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


# --- networks of one's own


class Ours(keras.Model):
    """No graph of layers."""

    def __init__(self):
        inputs = keras.Input((20, 6))
        super().__init__(inputs, layers.Dense(3)(layers.Flatten()(inputs)))

    def call(self, x, training=None):
        return super().call(2 * x, training=training)


def unequal_paths(x):
    """One path ends two frames before the other."""
    return layers.Add()([layers.Conv1D(4, 3)(x), layers.Cropping1D((0, 2))(layers.Dense(4)(x))])


def zeros_through_a_bias(x):
    return layers.Conv1D(4, 3)(layers.Dense(4)(layers.ZeroPadding1D((2, 0))(x)))


def zeros_too_late(x):
    """Before the stream's first frame, the second convolution would see what the first makes of no frames."""
    return layers.Conv1D(4, 3)(layers.ZeroPadding1D((2, 0))(layers.Conv1D(4, 3)(x)))


def more_zeros_than_frames(x):
    return layers.Conv1D(4, 3)(layers.ZeroPadding1D((5, 0))(x))


def valid_and_cropped(x):
    """As in residual networks without padding."""
    x = layers.Conv1D(4, 3, activation="relu")(x)
    return layers.Add()([layers.Conv1D(4, 5)(x), layers.Cropping1D((4, 0))(x)])


def over_time(x):
    return keras.ops.mean(x, axis=1, keepdims=True) + x


def of_all_kinds(x):
    x = layers.Dense(6, activation="tanh")(x) * 2.0
    x = keras.ops.silu(layers.Concatenate()([x[..., :2], layers.Rescaling(2.0)(x[..., 2:])]))
    return layers.MaxPooling1D(2, strides=1)(layers.SeparableConv1D(4, 3)(x))


@pytest.mark.parametrize(
    ("body", "streams"),
    [
        (unequal_paths, True), (zeros_through_a_bias, False), (zeros_too_late, False), (more_zeros_than_frames, False),
        (valid_and_cropped, True), (over_time, False), (of_all_kinds, True),
        (layers.LSTM(4, return_sequences=True), False),
    ],
)  # fmt: skip
def test_any_graph_has_its_windows_logits(body, streams):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((20, 6))
    network = shake(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(body(inputs)))))
    check_windows(network, streams)


def check_windows(network, streams):
    frames = features_of(60, 6)
    stream = NetworkStream(network, 20, 2)
    expected = network(np.stack([frames[start : start + 20] for start in range(0, 41, 2)]))
    np.testing.assert_allclose(stream.feed(frames), expected, rtol=1e-4, atol=1e-5)
    assert (stream.form.streams, stream.form.causal) == (streams, False)


def test_a_class_of_ones_own_runs_on_windows():
    check_windows(shake(Ours()), streams=False)


def test_two_windows_of_one_stream_and_two_averages():
    """Both end with the same frame."""
    inputs = keras.Input((20, 6))
    x = feature_image(inputs)
    x = layers.Conv2D(4, (3, 2), activation="relu")(x)
    logits = layers.Dense(3)(layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]))
    check_windows(shake(keras.Model(inputs, logits)), streams=True)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_network_streams_once_it_was_loaded_as_before(name, tmp_path):
    network = from_config(name, (FRAMES, 40), 4)
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    before, after = StreamingForm(network, FRAMES, 8), StreamingForm(loaded, FRAMES, 8)
    assert [state.shape for state in after.states] == [state.shape for state in before.states]
    assert after.reason == before.reason


def test_sums_take_the_place_of_more_frames_than_they_are():
    """For a stream in float; in int8, where each step rounds them, a network lost 15 points of accuracy."""
    network = small("low_latency_svdf", (FRAMES, 20))  # 8 units of 2 filters of 20 frames
    for step, sums, kept in ((4, False, (16, 16)), (4, True, (4, 8)), (7, True, (2, 8)), (1, True, (19, 16))):
        assert StreamingForm(network, FRAMES, step, sums=sums).states[0].shape == (1, *kept), (step, sums)
    assert NetworkStream(network, FRAMES, 4).form.states[0].shape == (1, 4, 8)
