from __future__ import annotations

import logging
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from kws_data.audio import read_pcm, to_int16
from kws_data.catalog import UNKNOWN
from kws_data.clip_format import AudioRules, ClipFormat
from kws_data.corpus import Corpus, NoiseFolder, NoiseFolders, UnknownFolder, build_corpus
from kws_data.draws import Draws
from kws_data.errors import KwsError
from kws_data.splits import (
    SPLITS,
    TESTING,
    TRAINING,
    VALIDATION,
    HashSplit,
    ListSplit,
    RandomSplit,
    SpeakerSplit,
    SplitPolicy,
    hash_split,
)
from kws_data.store import content_hash
from tests.conftest import MakeFolder, folder_maker, tone

# from v0.01's list files
SPEAKER_OF = {TRAINING: "00176480", VALIDATION: "026290a7", TESTING: "0c40e715"}


def corpus_of(root: Path, split: SplitPolicy | None = None, folders: Sequence[Path] = (), **options: Any) -> Corpus:
    return build_corpus(
        root,
        split or HashSplit(),
        options.pop("form", ClipFormat(16000, 16000)),
        data_seed=0,
        folders=[UnknownFolder(folder) for folder in folders],
        **options,
    )


def samples(corpus: Corpus, row: Any) -> np.ndarray:
    return corpus.pcm[row.source][row.offset : row.offset + row.length]


def write(path: Path, clip: np.ndarray, rate: int = 16000, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, clip, rate, **options)
    return path


def counting(seconds: float, rate: int = 16000) -> np.ndarray:
    """A recording in which every stretch differs from every other."""
    return to_int16(np.random.default_rng(0).normal(0, 0.1, round(seconds * rate)))


def unlike(number: int, seconds: int = 1) -> np.ndarray:
    """A recording that no other number gives a part of."""
    return to_int16(np.random.default_rng(number).normal(0, 0.1, seconds * 16000))


def test_rows_point_at_the_decoded_files(make_folder: MakeFolder) -> None:
    root = make_folder(speakers=3)
    write(root / "yes" / "tiny_nohash_0.wav", tone(300, 0.2))
    write(root / "yes" / "wide_nohash_0.flac", tone(300, 0.5, 44100), 44100)
    corpus = corpus_of(root)
    assert len(corpus.clips) == 3 * 3 + 2
    assert corpus.set_aside.empty
    for row in corpus.clips.itertuples():
        np.testing.assert_array_equal(samples(corpus, row), read_pcm(root / row.path, 16000))
    assert not corpus.noise.generated


def test_folders_of_splits_beside_the_data_set_are_splits(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Also for a speaker whom the data set has in another split, and for recordings that are split by time else."""
    root, other, noise = make_folder(speakers=20), tmp_path / "other", tmp_path / "noise"
    splits = {"Train": TRAINING, "dev": VALIDATION, "test": TESTING}
    for number, folder in enumerate(splits):
        for index in range(20):
            name = f"{index:08x}_nohash_9.wav"
            write(other / folder / "boo" / name, unlike(20 * number + index))
        write(other / folder / "long.wav", unlike(100 + number, 12))
        write(noise / folder / "hum.wav", unlike(200 + number, 20))
    corpus = corpus_of(root, SpeakerSplit(0), [other], noise_folders=NoiseFolders([NoiseFolder(noise)], own_weight=0))
    clips = corpus.clips[corpus.clips["folder"] == "other"]
    assert len(clips) == 3 * (20 + 12)
    assert (clips["split"] == clips["path"].str.split("/").str[0].map(splits)).all()
    assert set(clips["word"]) == {UNKNOWN}
    assert dict(corpus.recordings[["path", "split"]].itertuples(index=False)) == {
        f"{folder}/hum.wav": split for folder, split in splits.items()
    }


@pytest.mark.parametrize("folders", [["test", "boo"], ["test"], ["train/test", "yes"]])
def test_one_folder_with_a_splits_name_beside_the_data_set_is_none(
    make_folder: MakeFolder, tmp_path: Path, folders: list[str]
) -> None:
    root, other = make_folder(speakers=3), tmp_path / "other"
    for number, folder in enumerate(folders):
        for index in range(30):
            write(other / folder / f"{index}.wav", unlike(30 * number + index))
    clips = corpus_of(root, folders=[other]).clips
    assert set(clips.loc[clips["folder"] == "other", "split"]) == {TRAINING, VALIDATION, TESTING}


def test_broken_files_are_set_aside_and_the_run_goes_on(make_folder: MakeFolder) -> None:
    root = make_folder(speakers=3)
    whole = write(root / "yes" / "whole.flac", counting(1)).read_bytes()
    (root / "yes" / "cut.flac").write_bytes(whole[:8000])  # its header is whole: found when decoding
    (root / "yes" / "cut.wav").write_bytes((root / "no" / "00000000_nohash_0.wav").read_bytes()[:8000])
    (root / "yes" / "text.wav").write_text("hello")
    (root / "yes" / "empty.mp3").write_bytes(b"")
    write(root / "yes" / "nan.wav", np.full(100, np.nan), subtype="FLOAT")
    (root / "_background_noise_" / "README.md").write_text("recorded somewhere")
    for _ in range(2):  # the second time from the caches
        corpus = corpus_of(root)
        reasons = corpus.set_aside.set_index("path")["error"]
        assert set(reasons.index) == {
            "yes/cut.flac", "yes/cut.wav", "yes/text.wav", "yes/empty.mp3", "yes/nan.wav",
            "_background_noise_/README.md",
        }  # fmt: skip
        assert "not finite" in reasons["yes/nan.wav"]
        assert (reasons.str.len() > 5).all()
        assert len(corpus.clips) == 3 * 3 + 1
        assert (corpus.clips["length"] > 0).all()


@pytest.mark.parametrize("content", ["nothing", "noise only", "broken only", "undecodable only"])
def test_a_folder_without_usable_clips_is_the_users_mistake(tmp_path: Path, content: str) -> None:
    (tmp_path / "yes").mkdir()
    if content == "noise only":
        write(tmp_path / "_background_noise_" / "a.wav", counting(5))
    elif content == "broken only":
        (tmp_path / "yes" / "a.wav").write_text("hello")
    elif content == "undecodable only":
        whole = write(tmp_path / "yes" / "a.flac", counting(1)).read_bytes()
        (tmp_path / "yes" / "a.flac").write_bytes(whole[:8000])
    with pytest.raises(KwsError, match=r"dataset\.path.*no usable clip") as info:
        corpus_of(tmp_path)
    assert "\n" not in str(info.value)
    assert ("yes/a." in str(info.value)) == (content in ("broken only", "undecodable only"))


def test_an_unknown_folder_without_usable_clips_is_the_users_mistake(make_folder: MakeFolder, tmp_path: Path) -> None:
    (tmp_path / "boo").mkdir()
    with pytest.raises(KwsError, match=r"task\.unknown_dirs.*boo.*no usable clip"):
        corpus_of(make_folder(speakers=2), folders=[tmp_path / "boo"])


def test_unknown_folders_may_hold_anything_that_is_audio(make_folder: MakeFolder, tmp_path: Path) -> None:
    write(tmp_path / "boo" / "a.wav", tone(300, 0.7, 8000), 8000)
    write(tmp_path / "boo" / "deep" / "er" / "b.ogg", np.stack([tone(300, 1.4, 44100)] * 2, axis=1), 44100)
    write(tmp_path / "meow" / "c.mp3", tone(300, 1, 48000), 48000)
    (tmp_path / "boo" / "notes.txt").write_text("notes")
    corpus = corpus_of(make_folder(speakers=2), folders=[tmp_path / "boo", tmp_path / "meow"])
    extra = corpus.clips[corpus.clips["folder"] != ""].set_index("path")
    assert extra["folder"].to_dict() == {"a.wav": "boo", "deep/er/b.ogg": "boo", "c.mp3": "meow"}
    assert set(extra["word"]) == {UNKNOWN}
    assert extra["length"].to_dict() == {"a.wav": 11200, "deep/er/b.ogg": 22400, "c.mp3": 16000}
    assert corpus.set_aside["path"].tolist() == ["notes.txt"]
    for row in extra.reset_index().itertuples():
        np.testing.assert_array_equal(samples(corpus, row), read_pcm(corpus.roots[row.source] / row.path, 16000))


@pytest.mark.parametrize("policy", [HashSplit(), RandomSplit(0), SpeakerSplit(0), HashSplit(20, 5)])
def test_a_long_recording_is_cut_by_time_without_overlap(
    make_folder: MakeFolder, tmp_path: Path, policy: SplitPolicy
) -> None:
    recording = counting(123.7)
    write(tmp_path / "talk" / "talk.wav", recording)
    corpus = corpus_of(make_folder(speakers=2), policy, [tmp_path / "talk"])
    clips = corpus.clips[corpus.clips["folder"] == "talk"].sort_values("offset")
    assert clips["offset"].diff().dropna().eq(16000).all()
    assert clips["start"].tolist() == list(range(0, 123 * 16000, 16000))
    assert clips["length"].eq(16000).all()
    np.testing.assert_array_equal(
        np.concatenate([samples(corpus, row) for row in clips.itertuples()]), recording[: 123 * 16000]
    )
    assert clips["split"].tolist() == sorted(clips["split"], key=SPLITS.index)
    counts = clips["split"].value_counts()
    assert abs(counts[VALIDATION] - 123 * policy.validation_percentage / 100) <= 1
    assert abs(counts[TESTING] - 123 * policy.testing_percentage / 100) <= 1


@pytest.mark.slow
def test_long_recordings_at_other_rates_are_cut_at_the_runs_rate(make_folder: MakeFolder, tmp_path: Path) -> None:
    write(tmp_path / "talk" / "talk.mp3", counting(200, 44100), 44100)
    corpus = corpus_of(make_folder(speakers=2), folders=[tmp_path / "talk"])
    clips = corpus.clips[corpus.clips["folder"] == "talk"]
    assert len(clips) == 200
    assert clips["length"].eq(16000).all()


def test_recordings_of_a_few_windows_stay_in_one_split(make_folder: MakeFolder, tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / "talk" / f"{number}.wav", counting(5.5)[number:])
    corpus = corpus_of(make_folder(speakers=2), RandomSplit(0, 30, 30), [tmp_path / "talk"])
    clips = corpus.clips[corpus.clips["folder"] == "talk"]
    assert clips.groupby("path").size().eq(5).all()
    assert clips.groupby("path")["split"].nunique().eq(1).all()
    assert set(clips["split"]) == set(SPLITS)


def test_lists_leave_unknown_folders_to_the_hash_rule(make_folder: MakeFolder) -> None:
    root, boo = make_folder(speakers=2), make_folder("boo", words=("boo",), speakers=60, noise=False)
    for name in ("validation_list.txt", "testing_list.txt"):
        (root / name).write_text("")
    corpus = corpus_of(root, ListSplit(), [boo])
    assert set(corpus.clips.loc[corpus.clips["folder"] == "", "split"]) == {TRAINING}
    extra = corpus.clips[corpus.clips["folder"] == "boo"]
    assert extra["split"].tolist() == [hash_split(speaker, 10, 10) for speaker in extra["speaker"]]
    assert set(extra["split"]) == set(SPLITS)


@pytest.mark.parametrize("policy", [HashSplit(20, 20), SpeakerSplit(0, 20, 20)])
def test_a_speaker_of_data_set_and_unknown_folders_stands_in_one_split(
    make_folder: MakeFolder, policy: SplitPolicy
) -> None:
    root = make_folder(speakers=25)
    boo = make_folder("boo", words=("boo", "shoo"), speakers=40, noise=False)
    meow = make_folder("meow", words=("mew", "miaow", "mow"), speakers=45, noise=False)
    corpus = corpus_of(root, policy, [boo, meow])
    assert corpus.clips.groupby("speaker")["split"].nunique().max() == 1
    assert set(corpus.clips["split"]) == set(SPLITS)


def test_an_unknown_folder_has_a_name_however_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boo" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "boo")
    for given in (".", "sub/..", "../boo", str(tmp_path / "boo") + "/"):
        assert UnknownFolder(Path(given)).name == "boo"


def test_training_clips_that_are_also_held_out_are_set_aside(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(speakers=2)
    clip = counting(1)
    held = {
        split: write(root / "yes" / f"{SPEAKER_OF[split]}_nohash_0.wav", clip[index:])
        for index, split in enumerate((VALIDATION, TESTING))
    }
    twins = {
        f"no/{SPEAKER_OF[TRAINING]}_nohash_5.wav": held[TESTING],
        f"yes/{SPEAKER_OF[TRAINING]}_nohash_6.wav": held[VALIDATION],
    }
    for path, original in twins.items():
        shutil.copy(original, root / path)
    # the same samples in another format, and in another place
    write(root / "no" / f"{SPEAKER_OF[TRAINING]}_nohash_7.flac", clip[1:], subtype="PCM_16")
    shutil.copy(held[TESTING], tmp_path / "meow.wav")
    write(tmp_path / "boo" / f"{SPEAKER_OF[TRAINING]}_nohash_8.wav", clip[1:])
    # not leaks: twice in training; twice in what is held out
    write(root / "no" / f"{SPEAKER_OF[TRAINING]}_nohash_1.wav", clip[7:])
    write(root / "no" / f"{SPEAKER_OF[TRAINING]}_nohash_2.wav", clip[7:])
    shutil.copy(held[TESTING], root / "no" / f"{SPEAKER_OF[VALIDATION]}_nohash_3.wav")
    corpus = corpus_of(root, folders=[tmp_path / "boo"])

    aside = corpus.set_aside.set_index("path")
    assert sorted(aside.index) == sorted(
        [
            *twins,
            f"no/{SPEAKER_OF[TRAINING]}_nohash_7.flac",
            f"{SPEAKER_OF[TRAINING]}_nohash_8.wav",
        ]
    )
    assert aside["split"].eq(TRAINING).all()
    for path, original in twins.items():
        named = aside.loc[path, "error"].rsplit(" ", 1)[1]
        assert (root / named).read_bytes() == original.read_bytes()
    kept = corpus.clips.set_index("path")
    assert {f"no/{SPEAKER_OF[TRAINING]}_nohash_{number}.wav" for number in (1, 2)} <= set(kept.index)
    assert {str(path.relative_to(root)) for path in held.values()} <= set(kept.index)
    assert f"no/{SPEAKER_OF[VALIDATION]}_nohash_3.wav" in kept.index
    training = kept[kept["split"] == TRAINING]["content"]
    assert not training.isin(kept[kept["split"] != TRAINING]["content"]).any()


def test_windows_of_one_recording_are_not_taken_for_leaks(make_folder: MakeFolder, tmp_path: Path) -> None:
    write(tmp_path / "talk" / "a.wav", counting(30))
    shutil.copytree(tmp_path / "talk", tmp_path / "again")
    corpus = corpus_of(make_folder(speakers=2), folders=[tmp_path / "talk"])
    assert (corpus.clips["folder"] == "talk").sum() == 30
    # a second copy is cut at the same places, so that its windows stand in the same splits
    corpus = corpus_of(make_folder("other", speakers=2), folders=[tmp_path / "talk", tmp_path / "again"])
    counts = corpus.clips[corpus.clips["folder"] != ""].groupby(["folder", "split"]).size()
    assert counts["talk"].to_dict() == {TRAINING: 24, VALIDATION: 3, TESTING: 3}
    assert counts["again"].to_dict() == {TRAINING: 24, VALIDATION: 3, TESTING: 3}


def test_a_window_that_also_stands_as_a_clip_elsewhere_is_a_leak(make_folder: MakeFolder, tmp_path: Path) -> None:
    recording = counting(30)
    write(tmp_path / "talk" / "a.wav", recording)
    for second in range(30):
        write(tmp_path / "cut" / f"{second}.wav", recording[second * 16000 : (second + 1) * 16000])
    corpus = corpus_of(make_folder(speakers=2), folders=[tmp_path / "talk", tmp_path / "cut"])
    clips = corpus.clips[corpus.clips["folder"] != ""]
    held_out = set(clips.loc[clips["split"] != TRAINING, "content"])
    assert not set(clips.loc[clips["split"] == TRAINING, "content"]) & held_out
    assert len(corpus.set_aside) > 0


@pytest.mark.parametrize("inner", ["clips/yes", "clips", "."])
def test_folders_within_each_other_are_refused(make_folder: MakeFolder, tmp_path: Path, inner: str) -> None:
    with pytest.raises(KwsError, match=r"task\.unknown_dirs.*is inside"):
        corpus_of(make_folder(), folders=[tmp_path / inner])


@pytest.mark.parametrize("inner", ["hiss/deep", "hiss", "."])
def test_noise_within_other_noise_would_count_twice_and_is_refused(tmp_path: Path, inner: str) -> None:
    write(tmp_path / "hiss" / "deep" / "a.flac", counting(20))
    folders = NoiseFolders([NoiseFolder(tmp_path / "hiss"), NoiseFolder(tmp_path / inner)])
    with pytest.raises(KwsError, match=r"noise\.dirs: .*hiss.* is inside"):
        corpus_of(folder_maker(tmp_path)(), noise_folders=folders)


def test_noise_and_silence_of_an_unknown_folder_are_passed_over(make_folder: MakeFolder, tmp_path: Path) -> None:
    ghosts = make_folder("ghosts", words=("boo", "_silence_"), speakers=3)
    corpus = corpus_of(make_folder(), folders=[ghosts])
    assert set(corpus.clips.loc[corpus.clips["folder"] == "ghosts", "path"].str.split("/").str[0]) == {"boo"}


def test_the_real_test_sets_stay_whole(real_data: Path) -> None:
    corpus = corpus_of(real_data, ListSplit())
    for name, file in ((VALIDATION, "validation_list.txt"), (TESTING, "testing_list.txt")):
        expected = set((real_data / file).read_text().split())
        assert set(corpus.clips.loc[corpus.clips["split"] == name, "path"]) == expected
    held_out = corpus.clips["split"] != TRAINING
    assert not corpus.clips.loc[~held_out, "content"].isin(corpus.clips.loc[held_out, "content"]).any()
    total = len(corpus.clips) + len(corpus.set_aside)
    assert total == len(list(real_data.glob("[!_]*/*.wav")))


def test_without_background_noise_one_line_says_so(make_folder: MakeFolder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not corpus_of(make_folder(speakers=2)).noise.generated
        assert caplog.records == []
        assert corpus_of(make_folder("bare", speakers=2, noise=False)).noise.generated
    assert len(caplog.records) == 1
    assert "_background_noise_" in caplog.text
    assert "\n" not in caplog.records[0].getMessage()


def test_noise_recordings_are_no_clips(make_folder: MakeFolder) -> None:
    root = make_folder(speakers=2)
    shutil.copy(root / "_background_noise_" / "noise_0.wav", root / "_background_noise_" / "copy.wav")
    corpus = corpus_of(root)
    assert set(corpus.clips["word"]) == {"yes", "no", "bed"}
    assert corpus.set_aside.empty


@pytest.mark.parametrize("split", SPLITS)
def test_short_noise_is_used_in_the_same_splits_wherever_its_folder_is(tmp_path: Path, split: str) -> None:
    banks = []
    for place, parent in enumerate(("here", "there/deep")):
        root = tmp_path / parent
        write(root / "clips" / "yes" / "a_nohash_0.wav", counting(1))
        for number in range(60):  # each belongs to one split as a whole, by its name
            write(root / "clips" / "_background_noise_" / f"{number}.wav", counting(2)[: 16_000 + 100 * number])
        banks.append(corpus_of(root / "clips").noise)
        assert banks[place].generated is False
    windows = [
        bank.windows(split, Draws(0, 0, np.arange(200)), "noise", np.full(200, 16_000 + 100 * 60)) for bank in banks
    ]
    np.testing.assert_array_equal(*windows)


def test_noise_of_the_folder_of_testing_is_not_trained_on(tmp_path: Path) -> None:
    for split, level in ((TRAINING, 100), (TESTING, 200)):
        write(tmp_path / split / "yes" / f"{split}_nohash_0.wav", counting(1))
        write(tmp_path / split / "_background_noise_" / "hiss.wav", np.full(20 * 16000, level, np.int16))
    noise = corpus_of(tmp_path, HashSplit(0, 0)).noise
    windows = noise.windows(TRAINING, Draws(0, 0, np.arange(100)), "noise", np.full(100, 1000))
    assert np.unique(windows).tolist() == [100]


def test_folders_are_found_in_either_unicode_form(make_folder: MakeFolder, tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    make_folder(f"{decomposed}/clips", words=("yes",), speakers=4, noise=False)
    write(tmp_path / decomposed / decomposed / "a.wav", counting(1))
    noise = NoiseFolders([NoiseFolder(tmp_path / composed / composed)])
    corpus = corpus_of(tmp_path / composed / "clips", folders=[tmp_path / composed / composed], noise_folders=noise)
    assert set(corpus.clips["folder"]) == {"", composed}
    assert len(corpus.recordings) == 1


def test_noise_recordings_in_use_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "clips" / "yes" / "a_nohash_0.wav", counting(1))
    write(tmp_path / "clips" / "_background_noise_" / "own.wav", counting(20))
    write(tmp_path / "hiss" / "deep" / "a.flac", counting(20))
    write(tmp_path / "hiss" / "nothing.wav", np.zeros(20 * 16000))
    hiss = [NoiseFolder(tmp_path / "hiss", 2.0)]

    both = corpus_of(tmp_path / "clips", noise_folders=NoiseFolders(hiss)).recordings
    alone = corpus_of(tmp_path / "clips", noise_folders=NoiseFolders(hiss, 0.0))

    assert both[["source", "path"]].to_numpy().tolist() == [[0, "_background_noise_/own.wav"], [1, "deep/a.flac"]]
    assert alone.recordings["path"].tolist() == ["deep/a.flac"]
    np.testing.assert_array_equal(samples(alone, next(alone.recordings.itertuples())), counting(20))


def test_the_same_folder_gives_the_same_corpus(make_folder: MakeFolder) -> None:
    root = make_folder(speakers=4)
    first, second = corpus_of(root, RandomSplit(3)), corpus_of(root, RandomSplit(3))
    pd.testing.assert_frame_equal(first.clips, second.clips)
    np.testing.assert_array_equal(first.pcm[0], second.pcm[0])


def muted_folder(root: Path, real_data: Path) -> Path:
    """Real clips, muted ones beside them in every split, a folder of silence, and noise that is muted too."""
    for word in ("yes", "no"):
        (root / word).mkdir(parents=True)
        for clip in sorted((real_data / word).iterdir())[:5]:
            shutil.copy(clip, root / word)
    for number, (split, speaker) in enumerate(SPEAKER_OF.items()):
        write(root / "yes" / f"{speaker}_nohash_{split}.wav", np.full(16000, (1 + number) / 4))
        write(root / "_silence_" / f"{speaker}_nohash_0.wav", np.zeros(16000 - number))
    write(root / "_background_noise_" / "hiss.wav", counting(20))
    return root


def muted_reasons(corpus: Corpus) -> set[str]:
    rows = corpus.set_aside[corpus.set_aside["error"].str.startswith("muted")]
    return set(rows["split"])


def test_muted_clips_are_set_aside_with_a_reason(real_data: Path, tmp_path: Path) -> None:
    root = muted_folder(tmp_path / "clips", real_data)
    corpus = corpus_of(root)
    assert muted_reasons(corpus) == {TRAINING, VALIDATION, TESTING}
    assert "audio.muted=keep" in corpus.set_aside["error"].iloc[-1]
    assert (corpus.clips["word"] == "yes").sum() == 5
    assert (corpus.clips["word"] == "_silence_").sum() == 3  # silence is what it should be
    kept = corpus_of(root, form=ClipFormat(16000, 16000, rules=AudioRules(muted="keep")))
    assert muted_reasons(kept) == set()
    assert (kept.clips["word"] == "yes").sum() == 8


@pytest.mark.parametrize("published", ["cache", "lists"])
def test_published_test_sets_keep_their_muted_clips(
    real_data: Path, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, published: str
) -> None:
    if published == "cache":
        corpus = corpus_of(muted_folder(cache / "datasets" / "v0.02", real_data))
    else:
        root = muted_folder(tmp_path / "clips", real_data)
        (root / "testing_list.txt").write_text(f"yes/{SPEAKER_OF[TESTING]}_nohash_testing.wav\n")
        (root / "validation_list.txt").write_text(f"yes/{SPEAKER_OF[VALIDATION]}_nohash_validation.wav\n")
        corpus = corpus_of(root, ListSplit())
    assert muted_reasons(corpus) == {TRAINING, VALIDATION}
    assert f"yes/{SPEAKER_OF[TESTING]}_nohash_testing.wav" in caplog.text


def test_muted_stretches_of_long_recordings_are_set_aside(make_folder: MakeFolder, tmp_path: Path) -> None:
    write(tmp_path / "talk" / "a.wav", np.concatenate([counting(2), np.zeros(16000, np.int16), counting(3)]))
    corpus = corpus_of(make_folder(speakers=2), folders=[tmp_path / "talk"])
    assert (corpus.clips["folder"] == "talk").sum() == 5
    assert corpus.set_aside["error"].str.startswith("muted").sum() == 1


def late_words(root: Path, real_data: Path) -> Path:
    """Recordings of three seconds, a word in the second one, and a clip of normal length."""
    for word in ("yes", "no"):
        for number, clip in enumerate(sorted((real_data / word).iterdir())[:6]):
            samples, _ = soundfile.read(clip)
            long = np.random.default_rng(number).standard_normal(48000) * 1e-3
            long[16000 : 16000 + len(samples)] += samples
            write(root / word / clip.name, to_int16(long))
        write(root / word / "short_nohash_0.wav", counting(0.9))
    write(root / "_silence_" / "a_nohash_0.wav", counting(3))
    write(root / "_background_noise_" / "hiss.wav", counting(20))
    return root


@pytest.mark.parametrize(("clip_from", "begin"), [("auto", 16000), ("loudest", 16000), ("start", 0), ("centre", 16000)])
def test_of_long_files_the_part_asked_for_is_used(
    real_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, clip_from: str, begin: int
) -> None:
    caplog.set_level("INFO")
    root = late_words(tmp_path / "clips", real_data)
    corpus = corpus_of(root, form=ClipFormat(16000, 16000, clip_from))
    words = corpus.clips[corpus.clips["word"].isin(["yes", "no"])]
    for row in words.itertuples():
        whole = read_pcm(root / row.path, 16000)
        if len(whole) < 16000:
            assert (row.start, row.length) == (0, len(whole))
            continue
        assert abs(row.start - begin) < 6400
        np.testing.assert_array_equal(samples(corpus, row), whole[row.start :][: row.length])
        assert row.content == content_hash(samples(corpus, row))
    assert "12 files are longer than a clip (1 s)" in caplog.text
    silence = corpus.clips[corpus.clips["word"] == "_silence_"].iloc[0]
    assert (silence.start, silence.length) == (0, 48000)
    assert corpus.recordings["length"].tolist() == [20 * 16000]


def test_float_files_far_beyond_full_scale_are_counted_in_one_line(
    real_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for word in ("yes", "no"):
        for clip in sorted((real_data / word).iterdir())[:5]:
            pcm, _ = soundfile.read(clip, dtype="int16")
            write(tmp_path / word / clip.name, pcm.astype(np.float32), subtype="FLOAT" if word == "yes" else None)
    corpus = corpus_of(tmp_path)
    for row in corpus.clips[corpus.clips["word"] == "yes"].itertuples():
        np.testing.assert_array_equal(samples(corpus, row), read_pcm(real_data / row.path, 16000))
    lines = [record.message for record in caplog.records if "full scale" in record.message]
    assert len(lines) == 1
    assert "5 float files" in lines[0]
    aside = corpus_of(tmp_path, form=ClipFormat(16000, 16000, rules=AudioRules(levels="set_aside")))
    assert len(aside.set_aside) == 5
