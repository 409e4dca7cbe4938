"""Which words a stream holds, and its samples, for any split; `kws make-stream` is tested with the command's module."""

from __future__ import annotations

import numpy as np
import pytest

from kws_data.clip_format import ClipFormat
from kws_data.corpus import build_corpus
from kws_data.errors import KwsError
from kws_data.splits import SPLITS, TESTING, RandomSplit
from kws_data.streams.mix import render
from kws_data.streams.plan import StreamSettings, plan_words
from kws_data.streams.source import StreamSource
from kws_data.streams.speech_extent import speech_extent
from tests.conftest import SAMPLE_RATE, MakeFolder


@pytest.mark.parametrize("split", SPLITS)
def test_a_stream_holds_clips_and_noise_of_its_split(make_folder: MakeFolder, split: str) -> None:
    corpus = build_corpus(make_folder(), RandomSplit(0, 30, 30), ClipFormat(SAMPLE_RATE, SAMPLE_RATE), data_seed=0)
    data = StreamSource.of_split(corpus, {"yes", "no"}, split)
    settings = StreamSettings(minutes=0.5)
    plan = plan_words(data, settings)
    assert set(corpus.clips["split"][plan["row"]]) == {split}
    assert set(plan["word"][plan["keyword"]]) <= {"yes", "no"}
    assert set(plan["word"][~plan["keyword"]]) <= {"bed"}
    stream = np.concatenate(list(render(data, plan, settings)))
    assert len(stream) == 30 * SAMPLE_RATE
    if split != TESTING:
        other = np.concatenate(list(render(StreamSource(corpus, data.keywords, data.unknown), plan, settings)))
        assert (other[:1000] != stream[:1000]).any()  # no word yet: noise of another part


def test_a_split_without_keywords_is_refused(make_folder: MakeFolder) -> None:
    corpus = build_corpus(make_folder(), RandomSplit(0, 0, 30), ClipFormat(SAMPLE_RATE, SAMPLE_RATE), data_seed=0)
    with pytest.raises(KwsError, match="is for validation; choose another split="):
        StreamSource.of_split(corpus, {"yes"}, "validation")


def test_speech_is_found_in_a_clip() -> None:
    generator = np.random.default_rng(0)
    clip = generator.normal(0, 0.001, SAMPLE_RATE)
    clip[4000:9000] += generator.normal(0, 0.1, 5000)
    begin, end = speech_extent(clip, SAMPLE_RATE)
    assert abs(begin - 4000) <= 160
    assert abs(end - 9000) <= 160
    assert speech_extent(np.zeros(500), SAMPLE_RATE) == (0, 500)
    assert speech_extent(np.ones(7), SAMPLE_RATE) == (0, 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("minutes", 0),
        ("minutes", 1e9),
        ("snr_db", (5, 60)),
        ("gap_ms", (9, 1)),
        ("unknown_percentage", 101),
        ("seed", 0.5),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        StreamSettings(**{name: value})  # type: ignore[arg-type]
