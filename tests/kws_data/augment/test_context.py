from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kws_data.augment.active import active_regions
from kws_data.augment.context import Context
from kws_data.augment.impostor import Impostor
from kws_data.augment.stage import ClipBatch
from kws_data.draws import Draws
from kws_data.errors import KwsError
from tests.kws_data.augment.clips import MOVING_ROWS, RATE, UNKNOWN, WORDS, batch_of, context, drawn_by, tone

ROOM = np.full(40, RATE)


def with_neighbours(neighbour: float, silence: np.ndarray | None = None) -> ClipBatch:
    batch = batch_of(WORDS, silence=silence)
    drawn_by(Context(neighbour, (20, 100), (0, 0)), batch)
    return batch


def test_a_word_lies_anywhere_in_its_window_and_whole() -> None:
    starts = []
    for seed in range(50):
        batch = batch_of(WORDS)
        labels = batch.labels.copy()
        assert drawn_by(Context(0.0), batch, seed) == {}
        np.testing.assert_array_equal(batch.labels, labels)
        found, ends = active_regions(batch.pcm, ROOM, RATE)
        starts += found.tolist()
        assert (np.abs(ends - found - 7000) <= 640).all()  # to a frame of 20 ms at each end
        np.testing.assert_array_equal(np.sort(batch.pcm, axis=1), np.sort(WORDS, axis=1))  # every sample is still there
    assert min(starts) < 300
    assert max(starts) > RATE - 7000 - 700
    assert abs(np.mean(starts) - (RATE - 7000) / 2) < 350


def test_neighbours_stand_beside_a_word_and_are_not_whole() -> None:
    silence = np.arange(40) % 4 == 0
    alone, beside = with_neighbours(0.0, silence), with_neighbours(1.0, silence)
    np.testing.assert_array_equal(beside.pcm[silence], WORDS[silence])
    added = beside.pcm.astype(int) - alone.pcm
    starts, ends = active_regions(alone.pcm, ROOM, RATE)
    some = 0
    for row in np.flatnonzero(~silence):
        places = np.flatnonzero(added[row])
        before, after = places[places < starts[row]], places[places >= ends[row]]
        assert len(before) + len(after) == len(places)  # nothing is laid over the word
        for part in (before, after):
            assert len(part) <= RATE // 2  # half of a partner, which fills its clip here
            some += len(part) > 0
    assert some > 40


def test_a_word_that_fills_its_clip_stays() -> None:
    batch = batch_of(MOVING_ROWS)
    drawn_by(Context(1.0), batch)
    np.testing.assert_array_equal(batch.pcm, MOVING_ROWS)


def test_impostors_are_unknown_and_have_part_of_their_word() -> None:
    silence = np.arange(40) % 4 == 0
    batch = batch_of(WORDS, silence=silence)
    drawn_by(Impostor(1.0, joined=0.0, part=(0.4, 0.5)), batch)
    np.testing.assert_array_equal(batch.pcm[silence], WORDS[silence])
    assert (batch.labels[~silence] == UNKNOWN).all()
    assert (batch.labels[silence] == np.flatnonzero(silence) % 7).all()
    kept = (batch.pcm != 0).mean(axis=1) * RATE / 7000
    assert ((kept[~silence] > 0.35) & (kept[~silence] < 0.6)).all()
    first = batch.pcm[:, 4000:5000].any(axis=1)[~silence]
    assert first.any()
    assert not first.all()


def test_two_words_are_joined_in_the_middle() -> None:
    batch = batch_of(WORDS[:20], ids=np.arange(20))
    labels = batch.labels.copy()
    pool = context().words
    draws = Draws(0, 0, batch.ids)
    others = pool[draws.integers("other word", len(pool))]
    Impostor(1.0, joined=1.0).prepare(batch, draws, context())
    for row in np.flatnonzero(others % 7 != labels):
        np.testing.assert_array_equal(batch.pcm[row, 4000:7000], WORDS[row, 4000:7000])
        partner = MOVING_ROWS[others[row] % 40]
        begin = 7520 - 64  # the middle of the word's frames, less half a fade
        np.testing.assert_array_equal(batch.pcm[row, 8000:15000], partner[8000 + 8000 - begin : 8000 + 15000 - begin])


def test_a_few_rows_become_impostors_and_only_with_an_unknown_class() -> None:
    ids = np.arange(2000)
    batch = batch_of(np.tile(WORDS, (50, 1)), ids)
    labels = batch.labels.copy()
    drawn_by(Impostor(0.2), batch)
    changed = (batch.pcm != np.tile(WORDS, (50, 1))).any(axis=1)
    assert 0.16 < changed.mean() < 0.24
    np.testing.assert_array_equal(batch.labels, np.where(changed, UNKNOWN, labels))
    without = context()
    object.__setattr__(without, "unknown", None)
    with pytest.raises(KwsError, match=r"augment\.waveform\.impostor makes unknown words: set task\.unknown=true"):
        Impostor(0.2).prepare(batch, Draws(0, 0, ids), without)


def test_active_regions() -> None:
    noise = np.random.default_rng(0).normal(0, 30, (1, RATE)).astype(np.int16)
    word = np.zeros(RATE, np.int16)
    word[6400:9600] = tone(300, 3200)
    pcm = np.concatenate([noise + word, noise, np.zeros((1, RATE), np.int16), word[None]])
    starts, ends = active_regions(pcm, np.full(4, RATE), RATE)
    np.testing.assert_array_equal(starts, [6400, 0, 0, 6400])
    np.testing.assert_array_equal(ends, [9600, RATE, 0, 9600])
    # what pads a clip to its batch changes nothing
    starts, ends = active_regions(pcm, np.full(4, 9000), RATE)
    np.testing.assert_array_equal((starts[:2], ends[:2]), ([6400, 0], [9000, 9000]))


def test_regions_of_real_clips(real_data: Path) -> None:
    import soundfile

    files = sorted((real_data / "stop").glob("*.wav"))[:60]
    pcm = np.stack(
        [np.pad(samples, (0, RATE - len(samples))) for samples in (soundfile.read(f, dtype="int16")[0] for f in files)]
    )
    starts, ends = active_regions(pcm, np.full(len(pcm), RATE), RATE)
    seconds = (ends - starts) / RATE
    assert 0.25 < np.median(seconds) < 0.7  # 'stop' lasts about half a second
    power = np.square(pcm.astype(float))
    inside = np.array([row[start:end].sum() / row.sum() for row, start, end in zip(power, starts, ends, strict=True)])
    assert (inside > 0.95).mean() > 0.9
