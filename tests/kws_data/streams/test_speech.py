"""Running speech, synthetic and recorded, and what a stream makes of it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr

from kws_data.clip_format import ClipFormat
from kws_data.corpus import build_corpus
from kws_data.errors import KwsError
from kws_data.splits import TESTING, VALIDATION, ListSplit, RandomSplit, hash_split
from kws_data.streams.mix import render
from kws_data.streams.plan import StreamSettings, noise_db, plan_words
from kws_data.streams.recorded_speech import RecordedSpeech
from kws_data.streams.source import StreamSource
from kws_data.streams.speech import SPEECH, TURN, Utterance
from kws_data.streams.synthetic_speech import SyntheticSpeech
from tests.conftest import SAMPLE_RATE, MakeFolder, tone

NO_WORDS = pd.DataFrame(columns=["path", "time_ms", "end_ms", "word"])


def level_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64))))


def talk(seconds: float, seed: int = 0, rate: int = SAMPLE_RATE) -> np.ndarray:
    """[samples] float64: bursts of noise of 0.4 s with pauses of 0.1 s, as syllables are."""
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate))
    samples[np.arange(len(samples)) % (rate // 2) >= 0.4 * rate] *= 0.001
    return samples


@pytest.fixture
def data(make_folder: MakeFolder) -> StreamSource:
    corpus = build_corpus(make_folder(), RandomSplit(0, 30, 30), ClipFormat(SAMPLE_RATE, SAMPLE_RATE), data_seed=0)
    return StreamSource.of_split(corpus, {"yes", "no"})


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A long one, a short one by someone else at another rate, and what is none."""
    folder = tmp_path / "recordings"
    (folder / "ann").mkdir(parents=True)
    (folder / "bob").mkdir()
    soundfile.write(folder / "ann" / "long.wav", talk(30), SAMPLE_RATE)
    stereo = np.repeat(talk(2, 1, 44100)[:, None], 2, axis=1)
    soundfile.write(folder / "bob" / "short.flac", stereo, 44100)
    (folder / "notes.txt").write_text("no sound")
    return folder


def test_synthetic_speech_is_a_function_of_the_seed() -> None:
    pytest.importorskip("espeakng_loader")
    speech = SyntheticSpeech({"yes"}, TESTING, SAMPLE_RATE)
    first, again, other = (list(itertools.islice(speech.utterances(seed), 2 * TURN)) for seed in (-1, -1, 2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.samples, two.samples)
    assert [one.clip for one in first] != [one.clip for one in other]
    assert len({one.speaker for one in first[:TURN]}) == 1
    assert len({one.speaker for one in first}) == 2
    assert {hash_split(one.speaker, 10, 10) for one in first} == {TESTING}
    assert all(2000 < np.abs(one.samples.astype(int)).max() < 32767 for one in first)
    validation = next(SyntheticSpeech({"yes"}, VALIDATION, SAMPLE_RATE).utterances(-1))
    assert hash_split(validation.speaker, 10, 10) == VALIDATION


def test_recordings_are_played_whole_and_cut_in_pauses(recordings: Path) -> None:
    speech = RecordedSpeech(recordings, NO_WORDS, SAMPLE_RATE, loop=False)
    played = list(speech.utterances(0))
    assert {utterance.speaker for utterance in played} == {"ann", "bob"}
    long = [utterance for utterance in played if utterance.speaker == "ann"]
    whole, _ = soundfile.read(recordings / "ann" / "long.wav", dtype="int16")
    np.testing.assert_array_equal(np.concatenate([utterance.samples for utterance in long]), whole)
    ends = np.cumsum([len(utterance.samples) for utterance in long])
    assert max(len(utterance.samples) for utterance in long) <= 8.1 * SAMPLE_RATE
    assert all(end % (SAMPLE_RATE // 2) > 0.4 * SAMPLE_RATE for end in ends[:-1])
    assert {utterance.rms for utterance in long} == {long[0].rms}  # the level of the recording, not of each piece
    (short,) = [utterance for utterance in played if utterance.speaker == "bob"]
    expected = soxr.resample(talk(2, 1, 44100), 44100, SAMPLE_RATE)
    assert np.corrcoef(short.samples, expected[: len(short.samples)])[0, 1] > 0.999


def test_bad_recordings_are_listed_and_the_others_used(recordings: Path, caplog: pytest.LogCaptureFixture) -> None:
    (recordings / "cut.wav").write_bytes((recordings / "ann" / "long.wav").read_bytes()[:5000])
    (recordings / "text.mp3").write_text("no sound")
    soundfile.write(recordings / "silent.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    with caplog.at_level(logging.WARNING):
        speech = RecordedSpeech(recordings, NO_WORDS, SAMPLE_RATE, loop=False)
    assert len(caplog.messages) == 3
    for name in ("cut.wav' is left out: cut short", "text.mp3' is left out:", "silent.wav' is left out: it is silent"):
        assert name in caplog.text
    assert len({utterance.clip.partition("@")[0] for utterance in speech.utterances(0)}) == 2
    with pytest.raises(KwsError, match=r"--speech: the table of words names 'absent\.wav', which is no recording"):
        RecordedSpeech(recordings, NO_WORDS.assign(path=["absent.wav"]), SAMPLE_RATE, loop=False)
    with pytest.raises(KwsError, match="--speech: no folder"):
        RecordedSpeech(recordings / "absent", NO_WORDS, SAMPLE_RATE, loop=False)
    for file in recordings.rglob("*.*"):
        file.unlink()
    with pytest.raises(KwsError, match="holds no usable recording"):
        RecordedSpeech(recordings, NO_WORDS, SAMPLE_RATE, loop=False)


def test_known_words_of_recordings_stand_in_the_table(data: StreamSource, recordings: Path) -> None:
    beep = tone(3000, 0.3, level=0.9)
    samples = talk(30)
    times = [4.1, 7.9, 20.3]
    for time in times:
        samples[round(time * SAMPLE_RATE) :][: len(beep)] = beep
    soundfile.write(recordings / "ann" / "long.wav", samples, SAMPLE_RATE)
    words = pd.DataFrame(
        {"path": "ann/long.wav", "time_ms": [1000 * time for time in times], "word": ["yes", "bed", "no"]}
    )
    words["end_ms"] = words["time_ms"] + 300
    data = replace(data, speech=RecordedSpeech(recordings, words, SAMPLE_RATE, loop=True))
    settings = StreamSettings(minutes=1.5, snr_db=(40, 40))
    plan = plan_words(data, settings)
    known = plan[plan["word"] != SPEECH]
    assert known["word"].tolist()[:3] == ["yes", "bed", "no"]
    assert known["keyword"].tolist()[:3] == [True, False, True]
    stream = np.concatenate(list(render(data, plan, settings)))
    spectrum = [
        np.abs(np.fft.rfft(stream[row.start : row.start + row.length])).argmax() / row.length * SAMPLE_RATE
        for row in known.itertuples()
    ]
    assert spectrum == pytest.approx([3000] * len(known), abs=20)


def test_recordings_that_are_used_up_are_refused_unless_they_loop(data: StreamSource, recordings: Path) -> None:
    once, looped = (RecordedSpeech(recordings, NO_WORDS, SAMPLE_RATE, loop=loop) for loop in (False, True))
    settings = StreamSettings(minutes=2)
    with pytest.raises(
        KwsError, match=r"the recordings last for (0\.6\d?) minutes of the stream; give --minutes so"
    ) as e:
        plan_words(replace(data, speech=once), settings)
    enough = float(str(e.value).split("last for ")[1].split()[0])
    plan = plan_words(replace(data, speech=once), StreamSettings(minutes=enough))
    assert plan["clip"].is_unique
    assert not plan_words(replace(data, speech=looped), settings)["clip"].is_unique


def test_words_stand_inside_speech_and_twice_in_a_row(real_data: Path) -> None:
    pytest.importorskip("espeakng_loader")
    corpus = build_corpus(real_data, ListSplit(), ClipFormat(SAMPLE_RATE, SAMPLE_RATE), data_seed=0)
    data = StreamSource.of_split(corpus, {"yes", "no"})
    data = replace(data, speech=SyntheticSpeech({"yes", "no"}, TESTING, SAMPLE_RATE))
    plan = plan_words(
        data, StreamSettings(minutes=4, speech_percentage=0, inside_percentage=100, repeat_percentage=50)
    )  # fmt: skip
    assert not plan["keyword"].all()
    words = plan.index[plan["word"] != SPEECH]
    twice = 0
    for index in words[:-2]:
        before, word, behind = plan.loc[index - 1], plan.loc[index], plan.loc[index + 1]
        assert word["time_ms"] - before["end_ms"] < 300  # the last sounds of a sentence are quiet
        assert behind["time_ms"] - word["end_ms"] < 300
        assert word["start"] == before["start"] + before["length"]
        if behind["word"] != SPEECH:
            twice += 1
            assert (behind["word"], behind["speaker"]) == (word["word"], word["speaker"])
    assert 0.2 < twice / (len(words) - twice) < 0.8


def test_speech_takes_its_share_of_the_items(data: StreamSource, recordings: Path) -> None:
    data = replace(data, speech=RecordedSpeech(recordings, NO_WORDS, SAMPLE_RATE, loop=True))
    plan = plan_words(data, StreamSettings(minutes=20, speech_percentage=40, gap_ms=(0, 100)))
    turns, words = (plan["word"] == SPEECH).sum() / TURN, (plan["word"] != SPEECH).sum()
    assert 0.25 < turns / (turns + words) < 0.55
    alone = plan_words(data, StreamSettings(minutes=2))
    assert set(alone["word"]) == {SPEECH}
    with pytest.raises(KwsError, match="--inside-percentage needs running speech"):
        plan_words(replace(data, speech=None), StreamSettings(inside_percentage=10))


class Counted:
    """Speech that counts what it was asked for."""

    origin: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.made = 0

    def utterances(self, seed: int) -> Iterator[Utterance]:
        for number in itertools.count():
            self.made += 1
            samples = (1000 * np.random.default_rng(number).normal(size=2 * SAMPLE_RATE)).astype(np.int16)
            yield Utterance(samples, 1000.0, str(number), "", 200.0, [])


def test_a_block_needs_only_what_is_heard_in_it(data: StreamSource) -> None:
    speech = Counted()
    data, settings = replace(data, speech=speech), StreamSettings(minutes=5)
    plan = plan_words(data, settings)
    speech.made = 0
    blocks = render(data, plan, settings)
    assert len(next(blocks)) == 5 * SAMPLE_RATE
    assert speech.made <= 4
    assert sum(map(len, blocks)) == 295 * SAMPLE_RATE
    assert speech.made == len(plan)


def test_rooms_and_channels_keep_the_level_over_the_noise(data: StreamSource, recordings: Path) -> None:
    data = replace(data, speech=RecordedSpeech(recordings, NO_WORDS, SAMPLE_RATE, loop=True))
    settings = StreamSettings(
        minutes=4, snr_db=(30, 30), rooms=("none", "synthetic"), channels=("clean", "telephone", "clipped")
    )
    plan = plan_words(data, settings)
    assert set(plan["channel"]) == {"clean", "telephone", "clipped"}
    assert "none" in set(plan["room"])
    assert plan["room"].nunique() > 3
    assert (plan.groupby(["room", "channel"]).size() > 0).sum() > 6
    stream = np.concatenate(list(render(data, plan, settings)))
    assert len(stream) == 240 * SAMPLE_RATE
    whole = plan[plan["length"] > 2.5 * SAMPLE_RATE]
    levels = [level_db(stream[row.start : row.start + row.length] / 32768) for row in whole.itertuples()]
    assert np.median(levels) == pytest.approx(noise_db(settings) + 30, abs=1.5)
    assert np.std(levels) < 2
    longer = StreamSettings(**{**vars(settings), "minutes": 5})
    assert plan_words(data, longer).head(len(plan)).equals(plan)


def test_the_level_of_speech_and_noise_changes_together(data: StreamSource) -> None:
    settings = StreamSettings(minutes=6, snr_db=(30, 30), level_db=(-50, -20), gap_ms=(2000, 3000))
    plan = plan_words(data, settings)
    stream = np.concatenate(list(render(data, plan, settings))) / 32768
    spoken = [
        level_db(stream[round(row.time_ms * 16) : round(row.end_ms * 16)]) - row.level_db for row in plan.itertuples()
    ]
    assert np.abs(spoken).max() < 1
    noise = [level_db(stream[row.start - SAMPLE_RATE : row.start]) - row.level_db for row in plan.itertuples()]
    assert np.median(noise) == pytest.approx(-30, abs=1)
    assert np.std(noise) < 2
    assert plan["level_db"].max() - plan["level_db"].min() > 15


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("level_db", (-20, -30), "level_db must be"),
        ("speech_percentage", 101, "speech_percentage must be"),
        ("inside_percentage", -1, "inside_percentage must be"),
        ("repeat_percentage", "all", "repeat_percentage must be"),
        ("channels", ("radio",), "channels must be one of clean, telephone, clipped, got 'radio'"),
        ("channels", (), "channels must be at least one"),
        ("rooms", (), "rooms must be at least one"),
    ],
)
def test_wrong_settings_are_named(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        StreamSettings(**{name: value})  # type: ignore[arg-type]
