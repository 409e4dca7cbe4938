"""Synthetic speech beside a data set: which words are said, by whom, and what classes they join."""

from __future__ import annotations

from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws_data.catalog import UNKNOWN
from kws_data.errors import KwsError
from kws_data.sources.datasets import Synthetic
from kws_data.sources.sentences import TEMPLATES, WORDS, sounds, tokens
from kws_data.sources.speech_engine import SpeechEngine
from kws_data.sources.synthetic_unknown import OtherWords, SyntheticUnknown, Talk
from kws_data.sources.words import V002_WORDS
from kws_data.splits import TRAINING
from kws_experiments.config.compose import compose
from kws_experiments.experiment.data import prepare_data
from kws_experiments.experiment.experiment import Experiment
from tests.conftest import MakeFolder

KEYWORDS = ["no", "stop", "right"]


def test_no_other_word_sounds_like_a_keyword() -> None:
    chosen = OtherWords(KEYWORDS, words=40, confusable=12, clips_per_word=1, voices=5, seed=0).chosen()
    assert len(chosen) == len(set(chosen)) == 52
    said = sounds([*chosen, *KEYWORDS, "know", "write"], "en-US", SpeechEngine())
    assert said[-5:][0] == said[-2]
    assert said[-3] == said[-1]  # the engine hears that they are the same
    assert not {*said[:-5]} & {*said[-5:-2]}
    assert not {"know", "knows", "write", *KEYWORDS} & {*chosen}


def test_speech_commands_words_come_first_and_half_of_the_confusable_are_made_up() -> None:
    chosen = OtherWords(KEYWORDS, words=40, confusable=12, clips_per_word=1, voices=5, seed=0).chosen()
    real = {*V002_WORDS, *(word for text in (*TEMPLATES, *WORDS.values()) for word in tokens(text))}
    assert {*V002_WORDS} - {*KEYWORDS} <= {*chosen}
    for number, keyword in enumerate(KEYWORDS):
        four = chosen[4 * number : 4 * number + 4]
        assert [word in real for word in four] == [True, True, False, False]
        assert all(SequenceMatcher(None, word, keyword).ratio() >= 0.5 for word in four[2:])


def test_the_seed_draws_other_words() -> None:
    first, second = (OtherWords(KEYWORDS, 20, 6, 1, 5, seed).chosen() for seed in (0, 1))
    assert first[:6] == second[:6]  # those that sound like keywords
    assert first != second


def test_running_speech_comes_in_whole_windows_that_are_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Talk(KEYWORDS, 12, seed=3).locate()
    files = sorted(folder.rglob("*.wav"))
    assert len(files) == 12
    assert {path.parent.name for path in files} == {UNKNOWN}
    windows = np.stack([soundfile.read(path)[0] for path in files])
    assert windows.shape == (12, 16_000)
    assert (np.abs(windows).max(axis=1) > 0.05).all()
    contents = {path.name: path.read_bytes() for path in files}
    monkeypatch.setenv("KWS_DATA", str(tmp_path))
    again = Talk(KEYWORDS, 12, seed=3).locate()
    assert {path.name: path.read_bytes() for path in again.rglob("*.wav")} == contents


def test_keywords_are_said_by_the_same_voices() -> None:
    other, keywords, talk = SyntheticUnknown(words=20, confusable=4, clips=100, talk=5).data_sets(["no", "thank_you"])
    assert isinstance(other, OtherWords)
    assert isinstance(keywords, Synthetic)
    assert isinstance(talk, Talk)
    assert (other.clips_per_word, keywords.clips_per_word, keywords.words) == (5, 5, ["no", "thank you"])
    assert (other.voices, other.seed) == (keywords.voices, keywords.seed)
    fewer = SyntheticUnknown(words=20, confusable=4, clips=100, keyword_clips=0).data_sets(["no"])
    assert [type(one) for one in fewer] == [OtherWords]


def test_synthetic_clips_join_training_alone(make_folder: MakeFolder) -> None:
    root = make_folder()
    task = ["task=custom", "task.words=[yes,no]", "task.training_unknown_percentage=100"]
    key = "task.synthetic_unknown={words: 6, confusable: 2, clips: 24, keyword_clips: 10, talk: 5, voices: 4}"
    plain = prepare_data(Experiment(compose(["dataset=folder", f"dataset.path={root}", *task]))).examples
    data = prepare_data(Experiment(compose(["dataset=folder", f"dataset.path={root}", *task, key])))
    added = data.examples[data.examples["folder"] != ""]
    assert set(added["split"]) == {TRAINING}
    counts = added["label"].map(dict(enumerate(data.labels))).value_counts().to_dict()
    assert 5 + 8 <= counts.pop(UNKNOWN) <= 5 + 24  # some voices are kept for validation and testing
    assert all(1 <= counts.pop(word) <= 10 for word in ("yes", "no"))
    assert not counts.keys() - {"_silence_"}
    beside = data.corpus.clips[data.corpus.clips["folder"] != ""]
    assert set(beside["split"]) == {TRAINING}  # none tunes or judges a network in streams either
    held_out = data.examples[data.examples["split"] != TRAINING].drop(columns="source").reset_index(drop=True)
    expected = plain[plain["split"] != TRAINING].drop(columns="source").reset_index(drop=True)
    assert held_out["path"].tolist() == expected["path"].tolist()


def test_a_word_that_is_synthetic_alone_is_refused(make_folder: MakeFolder) -> None:
    """A slip of the pen would be trained for half an hour; the engine says any word."""
    overrides = ["dataset=folder", f"dataset.path={make_folder()}", "task=custom", "task.words=[yes,noo]"]
    key = "task.synthetic_unknown={words: 2, confusable: 0, clips: 4, keyword_clips: 4, voices: 4}"
    with pytest.raises(KwsError, match=r"^task\.words: no folder 'noo' with usable clips in .*; nearest: no, "):
        prepare_data(Experiment(compose([*overrides, key])))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{words: 5, confusable: 0, clips: 3}", "clips must be at least words + confusable"),
        ("{words: 0, confusable: 0, clips: 3}", "clips must be at least words + confusable"),
        ("{words: 5, clip: 3}", "must be null or have keys of words, confusable, clips"),
        ("[1]", "must be null or have keys of"),
        ("{words: -1}", "words must be"),
        ("{talk: 1.5}", "talk must be"),
    ],
)
def test_bad_values_are_refused_in_a_line(make_folder: MakeFolder, value: str, message: str) -> None:
    overrides = ["dataset=folder", f"dataset.path={make_folder()}", f"task.synthetic_unknown={value}"]
    with pytest.raises(KwsError, match="synthetic_unknown") as info:
        _ = Experiment(compose(overrides)).task
    assert message in str(info.value)
    assert "\n" not in str(info.value)


def test_it_needs_words(make_folder: MakeFolder) -> None:
    overrides = ["dataset=folder", f"dataset.path={make_folder()}", "task=custom", "task.synthetic_unknown={words: 5}"]
    with pytest.raises(KwsError, match=r"needs task\.words"):
        _ = Experiment(compose(overrides)).task


def test_words_with_spaces_are_refused(make_folder: MakeFolder) -> None:
    """The engine's clips of them are in a folder with underscores, and would be unknown words."""
    overrides = ["dataset=folder", f"dataset.path={make_folder()}", 'task.words=["turn on"]']
    with pytest.raises(KwsError, match="must have _ in the place of spaces"):
        _ = Experiment(compose([*overrides, "task.synthetic_unknown={words: 5, confusable: 0, clips: 5}"])).task


def test_the_words_are_chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a run is read where there is no speech engine."""
    words = OtherWords(KEYWORDS, 6, 2, 1, 5, 0)
    folder = words.locate()
    monkeypatch.setattr(OtherWords, "chosen", lambda self: pytest.fail("chosen again"))
    assert words.locate() == folder


def test_more_words_than_there_are() -> None:
    with pytest.raises(KwsError, match="words must be at most"):
        OtherWords(KEYWORDS, 5000, 0, 1, 5, 0).chosen()
