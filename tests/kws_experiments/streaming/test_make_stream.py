"""Long recordings made of test clips: what stands where, how loud, and that a seed decides it all."""

from __future__ import annotations

import errno
import hashlib
import json
import wave
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from kws_data.errors import KwsError
from kws_data.streams.plan import StreamSettings, noise_db
from kws_experiments.streaming.make_stream import parse_range, write_stream
from kws_experiments.streaming.truth import read_truth
from tests.conftest import SAMPLE_RATE, MakeFolder


def source(root: Path, *more: str) -> list[str]:
    return ["dataset=folder", f"dataset.path={root}", "task=custom", "task.words=[yes,no]", "task.unknown=true", *more]


def level_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64))))


def test_words_stand_where_the_table_says_at_the_level_asked_for(make_folder: MakeFolder, tmp_path: Path) -> None:
    settings = StreamSettings(minutes=1, snr_db=(10, 20), gap_ms=(500, 1500), unknown_percentage=40, seed=3)

    write_stream(source(make_folder()), tmp_path / "out", settings)

    samples, rate = soundfile.read(tmp_path / "out" / "stream.wav")
    assert (rate, len(samples)) == (SAMPLE_RATE, 60 * SAMPLE_RATE)
    truth = pd.read_csv(tmp_path / "out" / "truth.csv")
    gaps = truth["time_ms"].to_numpy()[1:] - truth["time_ms"].to_numpy()[:-1]
    assert gaps.min() >= 1000  # a clip of a second lies between them
    assert truth["snr_db"].between(10, 20).all()
    assert truth["snr_db"].nunique() > 10
    assert set(truth["word"]) == {"yes", "no", "bed"}
    assert 0.1 < (truth["word"] == "bed").mean() < 0.7
    quiet = np.ones(len(samples), bool)
    for row in truth.itertuples():
        begin, end = (round(time * rate / 1000) for time in (row.time_ms, row.end_ms))
        quiet[max(0, begin - rate // 2) : end + rate] = False
        expected = 10 * np.log10(10 ** ((noise_db(settings) + row.snr_db) / 10) + 10 ** (noise_db(settings) / 10))
        assert level_db(samples[begin:end]) == pytest.approx(expected, abs=1.0)
    assert level_db(samples[quiet]) == pytest.approx(noise_db(settings), abs=0.5)
    track = (tmp_path / "out" / "labels.txt").read_text().splitlines()
    first = truth.iloc[0]
    assert track[0].split("\t") == [f"{first.time_ms / 1000:.6f}", f"{first.end_ms / 1000:.6f}", first.word]
    assert len(track) == len(truth)


def test_only_test_clips_and_the_test_part_of_the_noise_are_heard(real_data: Path, tmp_path: Path) -> None:
    overrides = ["dataset=folder", f"dataset.path={real_data}", "split=lists"]

    message = write_stream(overrides, tmp_path / "out", StreamSettings(minutes=2))

    truth = pd.read_csv(tmp_path / "out" / "truth.csv")
    assert set(truth["clip"]) <= set((real_data / "testing_list.txt").read_text().split())
    assert (truth["clip"].str.split("/").str[0] == truth["word"]).all()
    assert truth["clip"].is_unique  # none comes twice before all have come once
    assert f"{len(truth)} words" in message
    assert json.loads((tmp_path / "out" / "stream.json").read_text())["noise"] == "recorded"
    assert read_truth(tmp_path / "out" / "truth.csv")["word"].tolist() == truth["word"].tolist()
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_seed_decides_every_sample(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    files = {}
    for name, seed, minutes in (("a", 0, 0.5), ("b", 0, 0.5), ("c", 1, 0.5), ("longer", 0, 1)):
        write_stream(source(root), tmp_path / name, StreamSettings(minutes=minutes, seed=seed))
        files[name] = (tmp_path / name / "stream.wav").read_bytes()
    assert files["a"] == files["b"] != files["c"]
    # a longer stream begins as the shorter one: but for the header, and the last word, which didn't fit in
    assert files["longer"][44:500_000] == files["a"][44:500_000]
    again = (tmp_path / "a" / "truth.csv").read_bytes()
    write_stream(source(root), tmp_path / "a", StreamSettings(minutes=0.5))  # replaces an older stream
    assert (tmp_path / "a" / "truth.csv").read_bytes() == again


def test_nothing_but_keywords_and_no_gaps(make_folder: MakeFolder, tmp_path: Path) -> None:
    write_stream(source(make_folder()), tmp_path / "out", StreamSettings(0.5, gap_ms=(0, 0), unknown_percentage=0))
    assert set(pd.read_csv(tmp_path / "out" / "truth.csv")["word"]) == {"yes", "no"}


def test_a_full_disk_leaves_nothing(make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: wave.Wave_write, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    root, out = make_folder(), tmp_path / "streams" / "out"
    monkeypatch.setattr(wave.Wave_write, "writeframes", full)
    with pytest.raises(OSError, match="No space left"):
        write_stream(source(root), out, StreamSettings(minutes=0.5))
    assert list(out.parent.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(make_folder: MakeFolder, tmp_path: Path) -> None:
    with pytest.raises(KwsError, match="is not a stream"):
        write_stream(source(make_folder()), tmp_path, StreamSettings())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["absent"], "'absent' holds no run: give the folder of a run, or overrides"),
        (["dataset=luck"], "dataset=luck: dataset has no such choice; there are folder, mini"),
        (["."], "holds no run: give the folder of a run"),
    ],
)
def test_sources_that_are_none(
    overrides: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KwsError, match=message):
        write_stream(overrides, tmp_path / "out", StreamSettings())


def test_no_clips_for_testing(make_folder: MakeFolder, tmp_path: Path) -> None:
    with pytest.raises(KwsError, match="is for testing"):
        write_stream(source(make_folder(), "split.testing_percentage=0"), tmp_path / "out", StreamSettings())
    with pytest.raises(KwsError, match=r"no word fits into 0\.05 minutes"):
        write_stream(source(make_folder("more")), tmp_path / "out", StreamSettings(0.05, gap_ms=(5000, 5000)))


def test_ranges() -> None:
    assert parse_range("snr_db", "15") == (15, 15)
    assert parse_range("snr_db", "-5,20.5") == (-5, 20.5)
    for text in ("", "loud", "1,2,3"):
        with pytest.raises(ValueError, match="snr_db must be a number, or LOW,HIGH"):
            parse_range("snr_db", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("word\nyes\n", "has no column time_ms; it has word"),
        ("time_ms,word\n5,yes\nsoon,no\n", "row 3: time_ms must be a number of milliseconds, got 'soon'"),
        ("time_ms,end_ms,word\n5,4,yes\n", "row 2: needs a word, and end_ms not before time_ms"),
        ("time_ms,word\n5,\n", "row 2: needs a word"),
        ("time_ms,word\n1,2,3,4\n1\n", "row 3|can't be read"),
        ("", "can't be read"),
    ],
)
def test_errors_in_damaged_tables_name_the_row(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(KwsError, match=message):
        read_truth(tmp_path / "truth.csv")


def test_tables_of_ones_own_need_no_ends_and_no_order(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("word,note,time_ms\nno,x,900\nyes,y,50.5\n")
    table = read_truth(tmp_path / "truth.csv")
    assert table.to_numpy().tolist() == [[50.5, 50.5, "yes"], [900.0, 900.0, "no"]]


def fingerprints(stream: Path) -> list[str]:
    """Of the sound, of the label track, and of the columns that the table always had."""
    table = pd.read_csv(stream / "truth.csv", dtype=str)[["time_ms", "end_ms", "word", "snr_db", "clip"]]
    contents = (stream / "stream.wav").read_bytes(), (stream / "labels.txt").read_bytes(), table.to_csv(index=False)
    return [hashlib.sha256(c if isinstance(c, bytes) else c.encode()).hexdigest()[:16] for c in contents]


def test_settings_of_before_give_the_bytes_of_before(make_folder: MakeFolder, tmp_path: Path) -> None:
    settings = StreamSettings(minutes=1, snr_db=(10, 20), gap_ms=(0, 1500), unknown_percentage=40, seed=3)
    write_stream(source(make_folder()), tmp_path / "out", settings)
    assert fingerprints(tmp_path / "out") == ["1a1f455424b766a3", "d5b7f4995ff7dd56", "cc061d48811b268e"]


def test_streams_of_real_clips_have_the_bytes_of_before(real_data: Path, tmp_path: Path) -> None:
    overrides = ["dataset=folder", f"dataset.path={real_data}", "split=lists"]
    write_stream(overrides, tmp_path / "out", StreamSettings(minutes=2))
    assert fingerprints(tmp_path / "out") == ["b5ce053cb3b5ebae", "6a6aaaa2df263d4b", "e4fa380185ea8777"]
