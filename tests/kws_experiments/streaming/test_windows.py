"""A stream gets the scores of its windows one by one, however its samples arrive and whatever is computed once."""

from __future__ import annotations

from typing import Any

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
    WindowScorer,
    frames_once,
)
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


def test_a_causal_network_scores_as_its_windows_do_until_the_first_is_over() -> None:
    """Afterwards, it knows what came before a window; every hop: tests/kws_models/test_streaming.py."""
    features = layer("log_mel")
    net = network("mixconv", *features.output_shape_for(SAMPLE_RATE), filters=8)
    windows, samples = frames_once(features, net, LABELS, SAMPLE_RATE, 640), sound()
    assert windows is not None
    assert windows.network_stream.form.streams
    ends, scores = score(windows, chunks(samples, 1, 700, 3000))
    by_window = whole_model(features, net).scores(windows_of(samples, 640))
    np.testing.assert_allclose(scores[0], by_window[0], atol=2e-5)
    assert ends.tolist() == list(range(SAMPLE_RATE, len(samples) + 1, 640))
    assert not np.allclose(scores[-1], by_window[-1], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("ds_cnn_s_causal", {"filters": 8, "num_blocks": 1}),
        ("bc_resnet_1_causal", {}),
        ("mixconv", {"filters": 8}),
    ],
)
def test_a_hop_at_a_time_scores_as_many_at_once(name: str, sizes: dict[str, Any]) -> None:
    """As from a microphone, by another engine than a file's."""
    features = layer("log_mel")
    net = network(name, *features.output_shape_for(SAMPLE_RATE), **sizes)
    live, file = (frames_once(features, net, LABELS, SAMPLE_RATE, 640) for _ in range(2))
    assert live is not None
    assert file is not None
    ends, scores = score(live, chunks(sound(), 640))
    assert live.network_stream._step is not None
    expected_ends, expected = score(file, [sound()])
    assert file.network_stream._step is None
    assert ends.tolist() == expected_ends.tolist()
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    # and in any order of the two
    both = frames_once(features, net, LABELS, SAMPLE_RATE, 640)
    assert both is not None
    np.testing.assert_allclose(score(both, chunks(sound(), 640, 16000, 640, 640))[1], expected, atol=2e-5)


def test_a_network_that_tensorflow_lite_does_not_take_streams_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> bytes:
        raise ValueError("no such operator")

    monkeypatch.setattr("kws_experiments.export.tflite_stream.converted", refuse)
    features = layer("log_mel")
    net = network("mixconv", *features.output_shape_for(SAMPLE_RATE), filters=8)
    live, file = (frames_once(features, net, LABELS, SAMPLE_RATE, 640) for _ in range(2))
    assert live is not None
    assert file is not None
    with caplog.at_level("INFO"):
        scores = score(live, chunks(sound(), 640))[1]
    assert caplog.messages == [
        "each hop runs in TensorFlow, as TensorFlow Lite cannot run this network: ValueError: no such operator"
    ]
    np.testing.assert_allclose(scores, score(file, [sound()])[1], atol=2e-5)


def test_hops_that_do_not_fit_frames_or_windows() -> None:
    features = layer("log_mel")
    net = network("single_fc", *features.output_shape_for(SAMPLE_RATE))
    assert frames_once(features, net, LABELS, SAMPLE_RATE, 700) is None
    assert frames_once(features, net, LABELS, 300, 160) is None  # a window shorter than a frame
    for hop in (0, 16001):
        with pytest.raises(KwsError, match=r"--hop-ms: must be from one sample to the model's window of 1000 ms"):
            EachWindow(whole_model(features, net), hop)


def test_clips_of_any_length_slide_by_the_second() -> None:
    features = layer("log_mel_20ms")
    net = network("ds_cnn_s", None, 40, filters=8, num_blocks=1)
    windows = FramesOnce(features, net, LABELS, SAMPLE_RATE, 640)
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
