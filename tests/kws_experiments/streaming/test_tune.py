"""`kws tune`: what it chooses, on which clips, and what it keeps."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from kws_data.errors import KwsError
from kws_data.splits import VALIDATION
from kws_data.streams.plan import StreamSettings
from kws_data.streams.source import StreamSource
from kws_data.streams.speech import SPEECH
from kws_experiments.config.compose import compose
from kws_experiments.experiment.data import prepare_data
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.experiment.settings import TuneSettings
from kws_experiments.export.artifact import Artifact
from kws_experiments.runs.listening import Listening
from kws_experiments.streaming.curve import detect, smooth
from kws_experiments.streaming.matching import FALSE_ACCEPT, Spoken, match
from kws_experiments.streaming.open_source import with_speech
from kws_experiments.streaming.recognize import PER_WORD, RecognizerSettings
from kws_experiments.streaming.tune import Scored, choose, score
from kws_experiments.streaming.tune_export import tune_export
from kws_experiments.streaming.windows import WindowScorer
from tests.conftest import SAMPLE_RATE, MakeFolder
from tests.kws_experiments.conftest import Kws
from tests.kws_experiments.evaluation.test_evaluate_run import finished_folder

LABELS = ["_silence_", "_unknown_", "yes", "no"]


def some_scores(seed: int = 0, words: int = 300) -> Scored:
    """A word every four seconds: 'yes' is heard well, 'no' badly, and 'bed' is often taken for 'no'."""
    generator = np.random.default_rng(seed)
    times = np.arange(1000, 4000 * words, 40)
    logits = np.tile([4.0, 0, -2, -2], (len(times), 1))
    truth = []
    for number, word in enumerate(generator.choice(["yes", "no", "bed"], words)):
        begin = 4000 * number + 1500
        truth.append(Spoken(begin, begin + 500, word))
        during = (times > begin + 400) & (times < begin + 1200)
        level = {"yes": generator.normal(7, 2), "no": generator.normal(5.5, 1.5), "bed": generator.normal(2, 2)}[word]
        logits[during, LABELS.index("yes" if word == "yes" else "no")] = level
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    snr_db = np.repeat([0.0, 20.0], words // 2)
    return Scored(LABELS, times.tolist(), scores, truth, snr_db, words * 4 / 3600, 1000)


def counted(scored: Scored, settings: RecognizerSettings) -> tuple[int, int]:
    """(missed keywords, false accepts)."""
    found = detect(smooth(scored.times_ms, scored.scores, settings), LABELS, settings)
    matching = match(found, scored.truth, ["yes", "no"], 750)
    said = sum(word.word != "bed" for word in scored.truth)
    return said - matching.outcomes.count("correct"), matching.outcomes.count(FALSE_ACCEPT)


def test_sensitivities_keep_to_their_rates_and_say_what_they_miss() -> None:
    scored = some_scores()
    rates = (3.0, 30.0, 100.0)

    chosen = choose(scored, rates)

    assert list(chosen) == ["low", "medium", "high"]
    assert chosen == choose(scored, rates)
    misses = []
    for rate, values in zip(rates, chosen.values(), strict=True):
        measured = values["measured"]
        settings = RecognizerSettings(**values["settings"], thresholds=values["thresholds"])
        assert settings.rule == PER_WORD
        assert counted(scored, settings) == (measured["missed"], measured["false_accepts"])
        assert measured["false_accepts_per_hour"] <= rate
        assert values["false_accepts_per_hour_expected"] <= rate
        assert sum(row["missed"] for row in measured["by_snr"]) == measured["missed"]
        assert [row["snr_db"] for row in measured["by_snr"]] == [0, 20]
        misses.append(measured["miss_rate"])
    assert misses[0] > misses[1] > misses[2]
    assert chosen["medium"]["thresholds"]["no"] > chosen["medium"]["thresholds"]["yes"]
    assert len({json.dumps(values["settings"]) for values in chosen.values()}) == 1
    assert json.loads(json.dumps(chosen))["low"]["measured"]["shown"] is False


def test_a_rate_holds_over_words_and_running_speech_together_and_each_is_counted() -> None:
    scored = some_scores()
    assert all(values["measured"]["apart"] == {} for values in choose(scored, (3.0, 30.0, 100.0)).values())
    speech_ms = 900_000.0
    scored = replace(scored, speech_ms=speech_ms)

    for rate, values in zip((3.0, 30.0, 100.0), choose(scored, (3.0, 30.0, 100.0)).values(), strict=True):
        measured, apart = values["measured"], values["measured"]["apart"]
        settings = RecognizerSettings(**values["settings"], thresholds=values["thresholds"])
        found = detect(smooth(scored.times_ms, scored.scores, settings), LABELS, settings)
        in_words = [detection for detection in found if detection.time_ms < speech_ms]
        assert apart["words"]["false_accepts"] == match(in_words, scored.truth, ["yes", "no"], 750).outcomes.count(
            FALSE_ACCEPT
        )
        assert apart["words"]["hours"] == 0.25
        for what in ("false_accepts", "hours"):
            assert sum(part[what] for part in apart.values()) == pytest.approx(measured[what])
        assert measured["false_accepts_per_hour"] <= rate
    assert apart["words"]["false_accepts"] > 0
    assert apart["speech"]["false_accepts"] > 0


def test_a_rate_that_no_thresholds_keep_to_gets_the_highest() -> None:
    chosen = choose(some_scores(words=60), (0.001, 0.002, 0.003))
    for values in chosen.values():
        assert min(values["thresholds"].values()) > 0.9
        assert not values["measured"]["shown"]


def test_thresholds_per_word_miss_fewer_than_one_for_all_on_other_words() -> None:
    """At no more false accepts, on scores that nothing was chosen on."""
    chosen = choose(some_scores(0), (3.0, 30.0, 100.0))["medium"]
    settings = RecognizerSettings(**chosen["settings"], thresholds=chosen["thresholds"])
    other = some_scores(1, 600)
    missed, false_accepts = counted(other, settings)
    assert 30 / 3 < false_accepts / other.hours < 30 * 2
    for threshold in np.linspace(0.1, 0.99, 20):
        common = replace(settings, thresholds={}, detection_threshold=float(threshold))
        at_one = counted(other, common)
        assert at_one[1] > false_accepts or at_one[0] > missed


class Ears(WindowScorer):
    """Remembers the samples."""

    def __init__(self) -> None:
        super().__init__(LABELS, SAMPLE_RATE, SAMPLE_RATE, 640)
        self.samples: list[np.ndarray] = []
        self._count = 0

    def _feed(self, samples: np.ndarray) -> np.ndarray:
        self.samples.append(samples)
        before, self._count = self._count, self._count + len(samples)
        windows = [max(0, (count - SAMPLE_RATE) // 640 + 1) for count in (before, self._count)]
        return np.full((windows[1] - windows[0], 4), 0.25, np.float32)


@pytest.fixture
def source(make_folder: MakeFolder) -> StreamSource:
    overrides = ["dataset=folder", f"dataset.path={make_folder()}", "task=custom", "task.words=[yes,no]"]
    corpus = prepare_data(Experiment(compose([*overrides, "task.unknown=true", "split=speaker"]))).corpus
    return StreamSource.of_split(corpus, {"yes", "no"}, VALIDATION)


def test_streams_are_of_validation_clips_one_after_the_other(source: StreamSource) -> None:
    streams = TuneSettings(snrs_db=(0, 20), minutes=0.5, seed=3, repeat_percentage=0).streams()
    assert streams == [
        StreamSettings(0.5, (snr_db, snr_db), seed=seed, speech_percentage=0) for snr_db, seed in ((0, 3), (20, 4))
    ]
    corpus, ears = source.corpus, Ears()

    scored = score(source, ears, streams)

    clips = corpus.clips
    assert set(clips.loc[[*source.keywords, *source.unknown], "split"]) == {VALIDATION}
    samples = np.concatenate(ears.samples)
    assert len(samples) == 60 * SAMPLE_RATE
    assert scored.hours == pytest.approx(1 / 60)
    assert scored.times_ms[0] == 1000
    assert len(scored.times_ms) == len(scored.scores) == (59 * SAMPLE_RATE) // 640 + 1
    begins = np.array([word.time_ms for word in scored.truth])
    assert (np.diff(begins) > 0).all()
    assert set(scored.snr_db[begins > 30_000]) == {20}
    assert set(scored.snr_db[begins < 30_000]) == {0}
    for word in scored.truth:  # each is where it is said to be: the noise is as loud, or far quieter
        part = samples[round(16 * word.time_ms) : round(16 * word.end_ms)]
        assert np.sqrt(np.mean(part**2)) > 0.03


def test_a_tenth_of_the_words_is_said_twice_in_a_row(source: StreamSource) -> None:
    def twice(settings: TuneSettings) -> int:
        """Words that follow their like at once; between others is a second at least."""
        truth = score(source, Ears(), settings.streams()).truth
        return sum(one.word == two.word and two.time_ms - one.end_ms < 500 for one, two in pairwise(truth))

    assert twice(TuneSettings(snrs_db=(20,), minutes=3, repeat_percentage=0)) == 0
    assert 1 <= twice(TuneSettings(snrs_db=(20,), minutes=3)) <= 15
    assert twice(TuneSettings(snrs_db=(20,), minutes=3, repeat_percentage=100)) > 30


def test_streams_of_running_speech_follow_those_of_words(source: StreamSource, tmp_path: Path) -> None:
    """Six seconds of recordings are used again, and that they are so few is kept."""
    talk = np.random.default_rng(0).normal(0, 0.1, 6 * SAMPLE_RATE)
    (tmp_path / "talk").mkdir()
    soundfile.write(tmp_path / "talk" / "talk.wav", talk, SAMPLE_RATE)
    settings = TuneSettings(snrs_db=(0, 20), minutes=0.5, speech=str(tmp_path / "talk"), speech_minutes=0.25)
    both = with_speech(source, settings.speech, {"yes", "no"}, loop=True)

    scored = score(both, Ears(), settings.streams())

    assert scored.speech_ms == 60_000
    assert scored.hours == pytest.approx(1.5 / 60)
    assert scored.hours_of_words == pytest.approx(1 / 60)
    assert {word.word for word in scored.truth if word.time_ms >= 60_000} == {SPEECH}
    assert {word.word for word in scored.truth if word.time_ms < 60_000} <= {"yes", "no", "bed"}
    words = score(source, Ears(), replace(settings, speech=None).streams())
    assert words.truth == [word for word in scored.truth if word.time_ms < 60_000]  # they change nothing before them
    assert set(scored.snr_db[len(words.truth) :]) == {0, 20}
    assert both.speech is not None
    assert (both.speech.origin["recordings"], both.speech.origin["minutes"]) == (1, 0.1)


def test_no_stream_has_the_sentences_of_those_that_make_stream_makes() -> None:
    seeds = [stream.seed for stream in TuneSettings(speech="synthetic").streams()]
    assert len(set(seeds)) == 6
    assert max(seeds[3:]) < 0  # the default there is 0


def test_where_there_is_no_such_speech_a_line_says_so_before_anything_is_done(
    kws: Kws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    run = finished_folder(tmp_path / "run")
    for speech, message in (
        ("absent", "{}: no folder 'absent'; give a folder of recordings, or 'synthetic'"),
        ("synthetic", "install the extra, `pip install -e '.[speech]'`"),
    ):
        assert message.format("--speech") in kws("tune", run.path, "--speech", speech).error()
        with pytest.raises(KwsError) as caught:
            Experiment(compose(["tune=streams", f"tune.speech={speech}"])).check_without_tensorflow()
        assert message.format("tune.speech") in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.speech=5", "tune.speech must be null, synthetic or a folder, got 5"),
        ("tune.repeat_percentage=101", "tune.repeat_percentage must be a number from 0 to 100, got 101"),
        ("tune.speech_minutes=often", "tune.speech_minutes must be a number from 0.05 to 1440, got 'often'"),
        ("tune.snrs_db=5", "tune.snrs_db must be a list, got 5; write [5]"),
        ("tune.snrs_db=[]", "tune.snrs_db must be at least one number, got 'none'"),
        ("tune.seed=x", "tune.seed must be a whole number, got 'x'"),
    ],
)
def test_a_wrong_value_is_named_before_the_training(override: str, message: str) -> None:
    with pytest.raises(KwsError) as caught:
        Experiment(compose(["tune=streams", override])).check_without_tensorflow()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--false-accepts-per-hour", "2,1,10"), "--false-accepts-per-hour must be three rates, the lowest first"),
        (("--false-accepts-per-hour", "1,2"), "--false-accepts-per-hour must be three rates, the lowest first"),
        (
            ("--false-accepts-per-hour", "0,1,2"),
            "--false-accepts-per-hour must be a number from 0.001 to",
        ),
        (
            ("--false-accepts-per-hour", "few"),
            "must be numbers with commas between, got 'few'",
        ),
        (("--snr-db", "loud"), "--snr-db must be numbers with commas between"),
        (("--snr-db", "99"), "--snr-db must be"),
        (("--minutes", "0"), "--minutes must be a number from 0.05"),
        (("--repeat-percentage", "101"), "--repeat-percentage must be a number from 0 to 100"),
        (("--speech-minutes", "0"), "--speech-minutes must be a number from 0.05"),
        (("--speech", " "), "--speech must be null, synthetic or a folder"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_done(
    kws: Kws, tmp_path: Path, arguments: tuple[str, str], message: str
) -> None:
    run = finished_folder(tmp_path / "run")
    assert message in kws("tune", run.path, *arguments).error()
    assert "holds no run" in kws("tune", tmp_path / "absent", *arguments).error()


@pytest.mark.parametrize(
    "tuned_on", [{}, {"streams": 3}, {"streams": [{"minutes": "long"}]}, {"streams": [{"far": 1}]}]
)
def test_an_export_is_not_tuned_by_a_damaged_file(tmp_path: Path, tuned_on: dict[str, Any]) -> None:
    values = {"false_accepts_per_hour_asked": 2, "settings": {"average_window_ms": 400}, "thresholds": {}}
    listening = Listening({"clips": {"thresholds": {}}, "low": values}, tuned_on, tmp_path / "listening.json")
    artifact = Artifact.__new__(Artifact)  # not looked at
    with pytest.raises(KwsError, match=r"listening\.json' is missing or damaged: `kws tune .*` writes it anew$"):
        tune_export(tmp_path, listening, tmp_path, artifact)
