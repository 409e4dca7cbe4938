from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kws_data.catalog import scan
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
    hash_split,
    time_split,
)
from tests.conftest import MakeFolder

LogCapture = pytest.LogCaptureFixture


def table(paths: Sequence[str], errors: Sequence[str] | None = None) -> pd.DataFrame:
    names = [path.rsplit("/", 1)[1] for path in paths]
    return pd.DataFrame(
        {
            "path": list(paths),
            "word": [path.split("/")[0] for path in paths],
            "speaker": [name.split("_nohash_")[0] for name in names],
            "error": [""] * len(paths) if errors is None else list(errors),
        }
    )


def numbered(count: int) -> pd.DataFrame:
    return table([f"yes/{number:05d}_nohash_0.wav" for number in range(count)])


def which_set(filename: str, validation: float, testing: float) -> str:
    """The rule as REFERENCE.md words it, by itself."""
    base = re.sub(r"_nohash_.*$", "", filename.split("/")[-1])
    largest = 2**27 - 1
    percentage = int(hashlib.sha1(base.encode("utf-8")).hexdigest(), 16) % (largest + 1) * (100.0 / largest)
    if percentage < validation:
        return "validation"
    return "testing" if percentage < testing + validation else "training"


speakers = st.text("0123456789abcdef", min_size=1, max_size=8)
catalogs = st.lists(
    st.tuples(st.sampled_from(["yes", "no", "bed"]), speakers, st.integers(0, 9)), min_size=1, unique=True
)
percentages = st.tuples(st.floats(0, 49), st.floats(0, 49))


@given(catalogs, percentages)
def test_hash_is_the_releases_rule(rows: list[tuple[str, str, int]], shares: tuple[float, float]) -> None:
    catalog = table([f"{word}/{speaker}_nohash_{number}.wav" for word, speaker, number in rows])
    split = HashSplit(*shares).assign(catalog, None)
    assert split.tolist() == [which_set(path, *shares) for path in catalog["path"]]


def test_hash_of_known_speakers() -> None:
    # the first names of v0.01's own list files, and two that neither holds
    for names, split in (
        ("026290a7 060cd039 099d52ad", VALIDATION),
        ("0c40e715 0ea0e2f4 105a0eea", TESTING),
        ("00176480 004ae714", TRAINING),
    ):
        assert {hash_split(speaker, 10, 10) for speaker in names.split()} == {split}
    assert hash_split("026290a7", 0, 0) == TRAINING


@settings(max_examples=50)
@given(catalogs, percentages, st.integers(-(2**40), 2**40))
def test_hash_and_speaker_never_put_one_speaker_in_two_splits(
    rows: list[tuple[str, str, int]], shares: tuple[float, float], seed: int
) -> None:
    catalog = table([f"{word}/{speaker}_nohash_{number}.wav" for word, speaker, number in rows])
    for policy in (HashSplit(*shares), SpeakerSplit(seed, *shares)):
        split = policy.assign(catalog, None)
        assert split.isin(SPLITS).all()
        assert split.groupby(catalog["speaker"]).nunique().max() == 1


@pytest.mark.parametrize("policy", [HashSplit(), SpeakerSplit(0)])
def test_real_speakers_stay_together(real_data: Path, policy: HashSplit | SpeakerSplit) -> None:
    catalog = scan(real_data)
    catalog = catalog[catalog["word"] != "_background_noise_"]
    split = policy.assign(catalog, real_data)
    assert split.groupby(catalog["speaker"]).nunique().max() == 1
    shares = split.value_counts(normalize=True)
    if isinstance(policy, HashSplit):  # most of these clips are from the release's test set
        assert shares[TESTING] > 0.6
    else:
        assert shares[VALIDATION] == pytest.approx(0.1, abs=0.02)
        assert shares[TESTING] == pytest.approx(0.1, abs=0.02)


def test_hash_depends_on_nothing_but_the_speaker() -> None:
    few, many = numbered(50), numbered(500)
    assert HashSplit().assign(many, None).tolist()[:50] == HashSplit().assign(few, None).tolist()


def test_speaker_split_meets_its_shares() -> None:
    catalog = table([f"yes/{speaker:03d}_nohash_{n}.wav" for speaker in range(200) for n in range(1 + speaker % 7)])
    shares = SpeakerSplit(1, 15, 25).assign(catalog, None).value_counts(normalize=True)
    assert shares[VALIDATION] == pytest.approx(0.15, abs=0.01)
    assert shares[TESTING] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("validation", "testing", "count", "expected"),
    [
        (10, 10, 1000, (800, 100, 100)), (30, 0, 1000, (700, 300, 0)), (10, 10, 105, (84, 11, 10)),
        (0, 0, 7, (7, 0, 0)), (33.3, 33.3, 3, (1, 1, 1)),
    ],
)  # fmt: skip
def test_random_fractions_are_exact(validation: float, testing: float, count: int, expected: tuple[int, ...]) -> None:
    counts = RandomSplit(3, validation, testing).assign(numbered(count), None).value_counts()
    for split, clips in zip(SPLITS, expected, strict=True):
        assert abs(counts.get(split, 0) - clips) <= (0 if count % 10 == 0 else 1)
    assert counts.sum() == count


def test_fractions_are_of_clips_not_of_noise_and_broken_files() -> None:
    clips = [f"yes/{number:05d}_nohash_0.wav" for number in range(100)]
    others = [f"_background_noise_/{number}.wav" for number in range(40)]
    broken = [f"yes/broken{number}.wav" for number in range(60)]
    catalog = table([*others, *clips, *broken], [""] * 140 + ["cut short"] * 60)
    good = catalog["path"].isin(clips)
    for policy in (RandomSplit(0), SpeakerSplit(0)):
        split = policy.assign(catalog, None)
        assert split.isin(SPLITS).all()
        assert split[good].value_counts().to_dict() == {TRAINING: 80, VALIDATION: 10, TESTING: 10}


def test_random_is_random_over_words_and_seeds() -> None:
    catalog = table([f"{word}/{number:03d}_nohash_0.wav" for word in ("no", "yes") for number in range(500)])
    first = RandomSplit(0, 30, 0).assign(catalog, None)
    assert first.tolist() == RandomSplit(0, 30, 0).assign(catalog, None).tolist()
    held = (first == VALIDATION).groupby(catalog["word"]).mean()
    assert held.between(0.2, 0.4).all()
    second = RandomSplit(1, 30, 0).assign(catalog, None)
    # of two independent draws 0.3² + 0.7² agree: 0.58, with a deviation of 0.016
    assert (first == second).mean() == pytest.approx(0.58, abs=0.08)


@pytest.mark.parametrize("policy", [RandomSplit, SpeakerSplit])
def test_seeded_splits_do_not_depend_on_the_order_of_rows(policy: type[RandomSplit] | type[SpeakerSplit]) -> None:
    catalog = numbered(300)
    shuffled = catalog.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(
        policy(5).assign(catalog, None), policy(5).assign(shuffled, None).sort_index(), check_names=False
    )


def test_a_few_more_files_move_few_clips() -> None:
    for policy in (RandomSplit(0), SpeakerSplit(0)):
        before, after = policy.assign(numbered(1000), None), policy.assign(numbered(1010), None)
        assert (before == after[:1000]).mean() > 0.98


def test_lists_are_obeyed(make_folder: MakeFolder) -> None:
    root = make_folder(words=("yes", "no"), speakers=6)
    paths = scan(root)["path"].tolist()
    clips = [path for path in paths if not path.startswith("_")]
    (root / "validation_list.txt").write_text("\n".join(clips[:2]) + "\n")
    # as Windows writes it: a byte order mark, CRLF, and no line end
    (root / "testing_list.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*clips[2:5], "no/absent.wav"]).encode())
    split = ListSplit(unmatched_percentage=100).assign(scan(root), root).set_axis(paths)
    assert split[clips].tolist() == [VALIDATION] * 2 + [TESTING] * 3 + [TRAINING] * 7


def test_the_real_lists_are_obeyed(real_data: Path) -> None:
    catalog = scan(real_data)
    split = ListSplit().assign(catalog, real_data)
    for name, file in ((VALIDATION, "validation_list.txt"), (TESTING, "testing_list.txt")):
        assert set(catalog.loc[split == name, "path"]) == set((real_data / file).read_text().split())


def test_clips_that_a_list_means_are_never_trained_on(make_folder: MakeFolder, caplog: LogCapture) -> None:
    root = make_folder(words=("yes", "no"), speakers=6)
    catalog = scan(root)
    clips = [path for path in catalog["path"] if not path.startswith("_")]
    (root / "validation_list.txt").write_text("\n".join(clips[:2]))
    (root / "testing_list.txt").write_text("\n".join(path.replace("/", "\\") for path in clips[2:5]))
    assert ListSplit().assign(catalog, root)[catalog["path"].isin(clips[2:5])].tolist() == [TESTING] * 3
    assert not caplog.text


def test_lines_that_match_nothing_are_named_and_more_than_one_percent_of_them_stop(
    make_folder: MakeFolder, caplog: LogCapture
) -> None:
    root = make_folder(words=("yes", "no"), speakers=100, seconds=0.01)
    catalog = scan(root)
    clips = [path for path in catalog["path"] if not path.startswith("_")]
    (root / "validation_list.txt").write_text(clips[-1])
    (root / "testing_list.txt").write_text("\n".join([*clips[:99], "no/renamed.wav"]))
    assert (ListSplit().assign(catalog, root) == TESTING).sum() == 99
    assert [record.getMessage() for record in caplog.records] == [
        f"'{root / 'testing_list.txt'}': 1 of 100 lines name no file: line 100: 'no/renamed.wav'"
    ]
    (root / "testing_list.txt").write_text("\n".join([*clips[:99], "no/a.wav", "no/b.wav"]))
    with pytest.raises(KwsError, match=r"2 of 101 lines .*'no/a\.wav'.*split\.unmatched_percentage=100") as error:
        ListSplit().assign(catalog, root)
    assert "\n" not in str(error.value)
    assert (ListSplit(unmatched_percentage=2).assign(catalog, root) == TESTING).sum() == 99


def test_a_clip_in_both_lists_is_said_and_held_out(make_folder: MakeFolder, caplog: LogCapture) -> None:
    root = make_folder(words=("yes",), speakers=4)
    catalog = scan(root)
    clip = catalog["path"].iloc[-1]
    for name in ("validation_list.txt", "testing_list.txt"):
        (root / name).write_text(clip)
    assert ListSplit().assign(catalog, root).iloc[-1] == TESTING
    assert caplog.messages == [f"1 of the clips are in both lists, and are used for testing: {clip}"]


@pytest.mark.parametrize("missing", ["validation_list.txt", "testing_list.txt"])
def test_a_missing_list_is_named(make_folder: MakeFolder, missing: str) -> None:
    root = make_folder(speakers=2)
    for name in {"validation_list.txt", "testing_list.txt"} - {missing}:
        (root / name).write_text("")
    with pytest.raises(KwsError, match=f"{missing}.*split=hash"):
        ListSplit().assign(scan(root), root)


def test_what_lists_cannot_know_falls_back_to_the_hash_rule() -> None:
    catalog = numbered(300)
    expected = HashSplit(20, 30).assign(catalog, None)
    assert ListSplit(validation_percentage=20, testing_percentage=30).assign(catalog, None).equals(expected)


@pytest.mark.parametrize(
    "policy", [HashSplit, ListSplit, lambda **k: SpeakerSplit(0, **k), lambda **k: RandomSplit(0, **k)]
)
@pytest.mark.parametrize(
    "arguments",
    [
        {"validation_percentage": -1}, {"testing_percentage": 100}, {"testing_percentage": float("nan")},
        {"validation_percentage": 60, "testing_percentage": 40},
    ],
)  # fmt: skip
def test_wrong_percentages_are_refused_by_name(policy: type[HashSplit], arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))}"):
        policy(**arguments)


@given(st.integers(1, 500), percentages)
def test_time_split_is_in_order_and_meets_its_shares(windows: int, shares: tuple[float, float]) -> None:
    split = time_split(windows, HashSplit(*shares))
    assert split == sorted(split, key=SPLITS.index)
    for name, share in ((VALIDATION, shares[0]), (TESTING, shares[1])):
        assert abs(split.count(name) - windows * share / 100) <= 1


@pytest.mark.parametrize("policy", [HashSplit(), RandomSplit(0), SpeakerSplit(0), ListSplit()])
def test_an_empty_catalog_has_an_empty_split(policy: HashSplit) -> None:
    empty = table([]).astype({"path": str, "word": str, "speaker": str, "error": str})
    assert len(policy.assign(empty, None)) == 0
    assert np.size(time_split(0, policy)) == 0
