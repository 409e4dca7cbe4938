"""A stream gets the scores of its windows one by one, however its samples arrive and whatever is computed once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_data.errors import KwsError
from kws_data.features.base import FeatureLayer
from kws_experiments.config.compose import compose, instantiate
from kws_experiments.export.scorer import Facts, KerasScorer
from kws_experiments.streaming.listener import Listener
from kws_experiments.streaming.recognize import RecognizerSettings
from kws_experiments.streaming.windows import (
    EachWindow,
    FramesOnce,
    FrameStream,
    NetworkWindows,
    WindowScorer,
    frames_once,
)
from kws_models.causal import CausalStream, NotCausalError
from kws_models.sliding import SlidingWindows
from tests.conftest import ROOT, SAMPLE_RATE

FEATURES = sorted(path.stem for path in (ROOT / "conf" / "features").glob("*.yaml"))
SHARED = {name: name not in ("micro", "mfcc_mlperf_tiny") for name in FEATURES}
LABELS = ["_silence_", "_unknown_", "yes", "no"]
SECONDS = 1.7


def sound(seconds: float = SECONDS) -> np.ndarray:
    """Noise whose level and colour change, so that no two windows are alike."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.1, round(seconds * SAMPLE_RATE))
    time = np.arange(len(noise)) / SAMPLE_RATE
    return ((noise + 0.2 * np.sin(3000 * time**2)) * (0.1 + np.sin(5 * time) ** 2)).astype(np.float32)


def layer(name: str) -> FeatureLayer:
    return instantiate(compose([f"features={name}"]), "features")


def network(name: str, frames: int, bins: int, **settings: object):
    import keras

    keras.utils.set_random_seed(1)
    config = compose([f"model={name}", *(f"model.{key}={value}" for key, value in settings.items())])
    return instantiate(config, "model", input_shape=(frames, bins), num_labels=len(LABELS))


def whole_model(features: FeatureLayer, net) -> KerasScorer:
    import keras

    waveform = keras.Input((SAMPLE_RATE,))
    return KerasScorer(keras.Model(waveform, net(features(waveform))), Facts(LABELS, SAMPLE_RATE, SAMPLE_RATE))


def chunks(samples: np.ndarray, *sizes: int) -> list[np.ndarray]:
    """The samples in chunks of these sizes, repeated until all are used."""
    ends = np.cumsum(np.resize(sizes, len(samples)))
    return np.split(samples, ends[ends < len(samples)])


def score(windows: WindowScorer, parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ends and scores of a stream that arrives in these parts."""
    scored = [windows.feed(part) for part in parts]
    return np.concatenate([part.ends for part in scored]), np.concatenate([part.scores for part in scored])


def windows_of(samples: np.ndarray, hop: int) -> np.ndarray:
    return np.stack([samples[at : at + SAMPLE_RATE] for at in range(0, len(samples) - SAMPLE_RATE + 1, hop)])


@given(st.integers(1, 7), st.integers(1, 9), st.lists(st.integers(0, 12), max_size=8))
def test_sliding_windows_are_those_of_the_whole(length: int, hop: int, sizes: list[int]) -> None:
    rows = np.arange(2 * sum(sizes)).reshape(-1, 2)
    sliding = SlidingWindows(length, hop)
    parts = np.split(rows, np.cumsum(sizes)[:-1]) if sizes else []
    assert [window.tolist() for part in parts for window in sliding.feed(part)] == [
        rows[at : at + length].tolist() for at in range(0, len(rows) - length + 1, hop)
    ]


@pytest.mark.parametrize("name", FEATURES)
def test_frames_are_independent_where_features_say_so(name: str) -> None:
    features = layer(name)
    samples = sound()
    own = features(windows_of(samples, 640)).numpy()
    stream = FrameStream(features)
    frames = np.concatenate([stream.feed(part) for part in chunks(samples, 777)])
    step = 640 // features.frame_step
    shared = np.stack([frames[step * index : step * index + own.shape[1]] for index in range(len(own))])
    same = np.allclose(shared, own, atol=1e-3, rtol=1e-3)
    assert same == features.frames_are_independent == SHARED[name]


@pytest.mark.parametrize("name", FEATURES)
def test_a_stream_scores_as_its_windows_one_by_one(name: str) -> None:
    features = layer(name)
    net = network("ds_cnn_s", *features.output_shape_for(SAMPLE_RATE), filters=8, num_blocks=1)
    scorer, samples = whole_model(features, net), sound()
    windows = frames_once(features, net, LABELS, SAMPLE_RATE, 640)
    assert (windows is not None) == SHARED[name]
    windows = windows or EachWindow(scorer, 640)

    ends, scores = score(windows, chunks(samples, 1, 700, 3000))

    np.testing.assert_allclose(scores, scorer.scores(windows_of(samples, 640)), atol=2e-5)
    assert ends.tolist() == list(range(SAMPLE_RATE, len(samples) + 1, 640))


def test_hops_that_do_not_fit_frames_or_windows() -> None:
    features = layer("log_mel")
    net = network("single_fc", *features.output_shape_for(SAMPLE_RATE))
    assert frames_once(features, net, LABELS, SAMPLE_RATE, 700) is None
    assert frames_once(features, net, LABELS, 300, 160) is None  # a window shorter than a frame
    for hop in (0, 16001):
        with pytest.raises(KwsError, match=r"--hop-ms: must be from one sample to the model's window of 1000 ms"):
            EachWindow(whole_model(features, net), hop)


@pytest.mark.parametrize(
    ("model", "features", "hop_frames", "options"),
    [
        ("low_latency_svdf", "mfcc", 1, {"units": 16}),
        ("low_latency_svdf", "mfcc", 4, {"units": 16, "memory_size": 20}),
        ("low_latency_svdf", "mfcc", 7, {"units": 16, "memory_size": 120}),
        ("cnn4", "log_spectrogram", 16, {"filters": "[4,4,4,4]"}),
        ("cnn4", "log_spectrogram", 48, {"filters": "[4,4,4,4]"}),
    ],
)
def test_causal_networks_run_frame_by_frame_as_they_do_on_windows(
    model: str, features: str, hop_frames: int, options: dict[str, object]
) -> None:
    front_end = layer(features)
    frames = front_end(sound(1.9)[None]).numpy()[0]
    net = network(model, *front_end.output_shape_for(SAMPLE_RATE), **options)
    for weights in net.trainable_variables:  # the example's tiny ones would make all logits alike
        weights.assign(weights * 10)
    starts = range(0, len(frames) - 98 + 1, hop_frames)
    offline = net(np.stack([frames[at : at + 98] for at in starts])).numpy()

    for sizes in ([len(frames)], [1] * len(frames), [50, 3, 120, 100]):
        stream = CausalStream(net, hop_frames)
        parts = chunks(frames, *sizes)
        logits = [stream.feed(part) for part in parts]
        np.testing.assert_allclose(np.concatenate(logits), offline, rtol=1e-4, atol=1e-4)
        seen = np.cumsum([len(part) for part in parts])
        counts = np.cumsum([len(part) for part in logits]).tolist()
        assert counts == [sum(at + 98 <= count for at in starts) for count in seen]  # no sooner and no later
    assert np.ptp(offline, axis=0).max() > 0.01


CAUSAL = {"low_latency_svdf": 1, "cnn4": 16}


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")))
def test_which_models_are_causal(name: str) -> None:
    """Only the models named in `kws_models.causal` run frame by frame; the others say why not."""
    net = network(name, 98, 257 if name in ("cnn4", "simple_audio") else 40)
    if name in CAUSAL:
        CausalStream(net, CAUSAL[name])
        return
    with pytest.raises(NotCausalError) as caught:
        CausalStream(net, 16)
    assert any(word in str(caught.value) for word in ("'same' padding", "spans the window", "simply follow"))


def test_svdf_steps_are_what_the_stream_computes() -> None:
    """`SVDF.step`, frame by frame, then the dense layers: the same logits."""
    features = layer("mfcc")
    frames = features(sound(1.3)[None]).numpy()[0]
    net = network("low_latency_svdf", 98, 40, units=16)
    svdf, *rest = net.layers[1:]
    state, stepped = svdf.initial_state(1), []
    for frame in frames:
        x, state = svdf.step(frame[None], state)
        for one in rest:
            x = one(x)
        stepped.append(x.numpy()[0])
    streamed = CausalStream(net, 1).feed(frames)
    np.testing.assert_allclose(streamed, stepped[97:], atol=1e-6)


def test_a_hop_that_strides_do_not_fit_is_refused() -> None:
    with pytest.raises(NotCausalError, match="a multiple of 16 frames apart, got 4"):
        CausalStream(network("cnn4", 98, 257, filters="[4,4,4,4]"), 4)


def test_clips_of_any_length_slide_by_the_second() -> None:
    features = layer("log_mel_20ms")
    net = network("ds_cnn_s", None, 40, filters=8, num_blocks=1)
    windows = FramesOnce(features, NetworkWindows(net, 49, 2), LABELS, SAMPLE_RATE, 640)
    _, scores = score(windows, chunks(sound(), 5000))

    import tensorflow as tf
    from scipy.special import softmax

    clips = features(windows_of(sound(), 640))
    logits = net({"features": clips, "num_frames": tf.fill([len(clips)], 49)}).numpy()
    np.testing.assert_allclose(scores, softmax(logits, axis=1), atol=2e-5)


@pytest.mark.parametrize(
    ("samples", "message"), [(np.full(9, np.nan), "not finite"), (np.zeros((9, 2)), "must be mono")]
)
def test_invalid_samples_are_refused(samples: np.ndarray, message: str) -> None:
    features = layer("log_mel")
    windows = frames_once(features, network("single_fc", 98, 40), LABELS, SAMPLE_RATE, 640)
    assert windows is not None
    with pytest.raises(KwsError, match=message):
        windows.feed(samples)


class Alternating(WindowScorer):
    """Scores 'yes' in the windows that end in the second half of every four seconds."""

    def __init__(self) -> None:
        super().__init__(LABELS, SAMPLE_RATE, SAMPLE_RATE, 640)
        self._sliding = SlidingWindows(SAMPLE_RATE, 640)
        self._count = 0

    def _feed(self, samples: np.ndarray) -> np.ndarray:
        count = len(self._sliding.feed(samples))
        ends = SAMPLE_RATE + 640 * np.arange(self._count, self._count + count)
        self._count += count
        return np.eye(4, dtype=np.float32)[np.where(ends % (4 * SAMPLE_RATE) >= 2 * SAMPLE_RATE, 2, 0)]


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=5))
def test_detections_do_not_depend_on_how_the_samples_arrive(sizes: list[int]) -> None:
    samples = np.zeros(9 * SAMPLE_RATE, np.float32)
    whole = Listener(Alternating())
    expected = whole.feed(samples) + whole.finish()
    assert [detection.word for detection in expected] == ["yes", "yes"]
    assert 2000 < expected[0].time_ms < 2500
    listener = Listener(Alternating())
    detections = [detection for part in chunks(samples, *sizes) for detection in listener.feed(part)]
    assert detections + listener.finish() == expected


def test_a_stream_of_one_sample_is_padded_to_a_window() -> None:
    listener = Listener(Alternating(), RecognizerSettings(average_window_ms=200))
    assert listener.feed(np.zeros(1, np.float32)) == []
    assert listener.finish() == []
    assert listener.windows._windows == 1 + 200 * 16 // 640
