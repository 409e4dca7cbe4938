from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from kws_data import catalog as catalog_module
from kws_data.audio import AudioHeader, read_header
from kws_data.catalog import scan, scan_below, set_aside, usable
from kws_data.errors import KwsError
from tests.conftest import MakeFolder
from tests.kws_data.audio_files import apple_double


def write_clip(path: Path, seconds: float = 0.01, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * rate), 0.1), rate)


@pytest.fixture
def headers_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose headers were read."""
    names: list[str] = []

    def record(path: Path) -> AudioHeader:
        names.append(path.name)
        return read_header(path)

    monkeypatch.setattr(catalog_module, "read_header", record)
    return names


def test_a_row_tells_all_about_its_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "yes" / "0a1b_nohash_3.wav", seconds=0.5, rate=8000)
    row = scan(tmp_path).iloc[0]
    status = (tmp_path / "yes" / "0a1b_nohash_3.wav").stat()
    assert (row.path, row.word, row.speaker, row.utterance) == ("yes/0a1b_nohash_3.wav", "yes", "0a1b", 3)
    assert (row.num_samples, row.sample_rate) == (4000, 8000)
    assert (row.bytes, row.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert row.error == ""


def test_rows_are_sorted_and_what_is_no_clip_is_passed_over(tmp_path: Path) -> None:
    for name in ("no/b.wav", "yes/a.wav", "no/deep/er/c.wav", "yes/.hidden.wav", ".git/x.wav", "root.wav"):
        write_clip(tmp_path / name)
    (tmp_path / "testing_list.txt").write_text("yes/a.wav\n")
    catalog = scan(tmp_path)
    assert catalog["path"].tolist() == ["no/b.wav", "no/deep/er/c.wav", "yes/a.wav"]
    assert catalog["word"].tolist() == ["no", "no", "yes"]


def test_what_systems_leave_behind_is_passed_over_at_any_depth(tmp_path: Path) -> None:
    for name in ("yes/a.wav", "yes/._a.wav", "__MACOSX/yes/a.wav", "yes/.AppleDouble/a.wav", "yes/@eaDir/a.wav/x.wav"):
        write_clip(tmp_path / name)
    for name in (".DS_Store", "yes/Thumbs.db", "yes/desktop.ini", "yes/.DS_Store"):
        (tmp_path / name).touch()
    assert scan(tmp_path)["path"].tolist() == ["yes/a.wav"]
    assert scan_below(tmp_path, "noise.dirs")["path"].tolist() == ["yes/a.wav"]


def test_clips_beside_what_macos_wrote_are_read(tmp_path: Path) -> None:
    (tmp_path / "yes").mkdir()
    soundfile.write(tmp_path / "yes" / "a.mp3", np.sin(np.arange(16000) / 10) / 2, 16000)
    (tmp_path / "yes" / "._a.mp3").write_bytes(apple_double())
    catalog = scan(tmp_path)
    assert catalog[["path", "error", "sample_rate"]].values.tolist() == [["yes/a.mp3", "", 16000]]


def test_words_and_speakers_are_the_same_in_either_unicode_form(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write_clip(tmp_path / form / unicodedata.normalize(form, "é/zoë_nohash_0.wav"))
    composed, decomposed = (scan(tmp_path / form).iloc[0] for form in ("NFC", "NFD"))
    assert (composed.word, composed.speaker) == (decomposed.word, decomposed.speaker) == ("é", "zoë")
    assert composed.path != decomposed.path  # as the disk has them
    assert scan(tmp_path / "NFD", speaker_pattern="o(ë)").iloc[0].speaker == "zoë"  # _nohash_ goes before the pattern
    (tmp_path / "NFD" / decomposed.path).rename(tmp_path / "NFD" / decomposed.path.replace("_nohash_", "-"))
    assert scan(tmp_path / "NFD", speaker_pattern="o(ë)").iloc[0].speaker == "ë"


def test_a_zip_that_was_unpacked_without_folders_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("yes\\a.wav", "no\\a.wav", "clips/yes\\a.wav", "good/a.wav"):
        write_clip(tmp_path / name)
    (tmp_path / "doc\\a.txt").touch()
    catalog = scan(tmp_path)
    assert usable(catalog)["path"].tolist() == ["good/a.wav"]
    assert set_aside(catalog)["path"].tolist() == ["clips/yes\\a.wav", "no\\a.wav", "yes\\a.wav"]
    assert set_aside(catalog)["error"].str.contains("zip from Windows").all()
    assert len(caplog.messages) == 1
    assert "3 files are set aside, such as 'clips/yes\\a.wav': a zip from Windows" in caplog.messages[0]


@pytest.mark.parametrize(
    ("name", "pattern", "speaker", "utterance"),
    [
        ("a1_nohash_0.wav", None, "a1", 0),
        ("a1_nohash_12.wav", r"^(.)", "a1", 12),  # `_nohash_` goes before the pattern
        ("a_nohash_1_nohash_2.wav", None, "a", 1),  # re.sub("_nohash_.*$", "", name), as input_data.py
        ("a1_nohash_x.wav", None, "a1", -1),
        ("a1_nohash_123456789012345678901234567890.wav", None, "a1", 123456789012345678),
        ("plain.wav", None, "plain.wav", -1),
        ("anna-02.wav", r"^([a-z]+)-", "anna", -1),
        ("anna-02.wav", r"^[a-z]+", "anna", -1),
        ("02.wav", r"^([a-z]+)-", "02.wav", -1),
        ("02.wav", r"^([a-z]+)?0", "02.wav", -1),
    ],
)
def test_speaker_and_utterance(tmp_path: Path, name: str, pattern: str | None, speaker: str, utterance: int) -> None:
    for clip in (name, "zoe-.wav", "zoe0.wav"):  # so that each pattern matches a name
        write_clip(tmp_path / "yes" / clip)
    row = scan(tmp_path, speaker_pattern=pattern).iloc[0]
    assert (row.speaker, row.utterance) == (speaker, utterance)


def test_a_wrong_speaker_pattern_is_the_users_mistake(tmp_path: Path) -> None:
    write_clip(tmp_path / "yes" / "a.wav")
    with pytest.raises(KwsError, match=r"dataset\.speaker_pattern"):
        scan(tmp_path, speaker_pattern="(")


def test_a_speaker_pattern_says_what_it_does_not_match(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("yes/alice-1.wav", "yes/bob-1.wav", "yes/0a1b_nohash_0.wav", "_background_noise_/hum.wav"):
        write_clip(tmp_path / name)
    with pytest.raises(KwsError, match=r"'\^\(\[a-z\]\+\)_' matches 0 of 2 names; not 'alice-1.wav'"):
        scan(tmp_path, speaker_pattern="^([a-z]+)_")
    with pytest.raises(KwsError, match="matches 0 of 2 names"):  # an empty speaker is none
        scan(tmp_path, speaker_pattern="^([0-9]*)")
    assert scan_below(tmp_path, "task.unknown_dirs", speaker_pattern="^([a-z]+)_")["speaker"].nunique() == 3
    caplog.clear()
    scan(tmp_path, speaker_pattern="^(bob)-")
    assert [line.partition(";")[0] for line in caplog.messages] == [
        "dataset.speaker_pattern: '^(bob)-' matches 1 of 2 names"
    ]
    caplog.clear()
    assert scan(tmp_path, speaker_pattern="^([a-z]+)-")["speaker"].tolist() == ["hum.wav", "0a1b", "alice", "bob"]
    assert not caplog.messages


def test_a_missing_folder_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(KwsError, match=r"dataset\.path.*absent"):
        scan(tmp_path / "absent")
    with pytest.raises(KwsError, match=r"task\.unknown_dirs.*absent"):
        scan_below(tmp_path / "absent", "task.unknown_dirs")


@pytest.mark.parametrize("depth", ["", "word"])
def test_a_folder_without_files_is_an_empty_catalog(tmp_path: Path, depth: str) -> None:
    (tmp_path / depth).mkdir(exist_ok=True)
    assert len(scan(tmp_path)) == 0
    assert len(usable(scan_below(tmp_path, "task.unknown_dirs"))) == 0


def test_broken_files_are_set_aside_each_with_its_reason(make_folder: MakeFolder) -> None:
    root = make_folder(speakers=2)
    good = (root / "yes" / "00000000_nohash_0.wav").read_bytes()
    broken = {
        "empty.wav": b"", "half.wav": good[: len(good) // 2], "header.wav": good[:20], "text.wav": b"hello\n" * 99,
        "text.mp3": b"hello\n" * 99, "picture.png": b"\x89PNG\r\n",
    }  # fmt: skip
    for name, content in broken.items():
        (root / "yes" / name).write_bytes(content)
    (root / "yes" / "dangling.flac").symlink_to("nowhere")
    (root / "yes" / "circle.wav").symlink_to("circle.wav")
    os.mkfifo(root / "yes" / "pipe.wav")
    catalog = scan(root)
    assert set(set_aside(catalog)["path"]) == {
        f"yes/{name}" for name in [*broken, "dangling.flac", "circle.wav", "pipe.wav"]
    }
    assert set_aside(catalog)["error"].str.len().min() > 5
    assert len(usable(catalog)) == 3 * 2 + 2
    assert usable(catalog)["num_samples"].min() > 0


def test_an_unlistable_folder_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "yes" / "a.wav")
    write_clip(tmp_path / "no" / "a.wav")
    scandir = os.scandir

    def deny(folder: str) -> object:
        if folder.endswith("no"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", deny)  # root may list everything
        catalog = scan(tmp_path)
        with pytest.raises(KwsError, match="Permission denied"):
            scan_below(tmp_path / "no", "task.unknown_dirs")
    assert usable(catalog)["path"].tolist() == ["yes/a.wav"]
    assert set_aside(catalog)[["path", "error"]].to_numpy().tolist() == [["no", "cannot be read: Permission denied"]]


def test_names_that_are_not_utf8_are_set_aside(tmp_path: Path) -> None:
    write_clip(tmp_path / "yes" / "a.wav")
    name = os.fsencode(tmp_path / "yes") + b"/caf\xe9.wav"
    try:
        shutil.copy(os.fsencode(tmp_path / "yes" / "a.wav"), name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for catalog in (scan(tmp_path), scan(tmp_path)):
        assert set_aside(catalog)["path"].tolist() == ["yes/caf\\xe9.wav"]
        assert "UTF-8" in set_aside(catalog)["error"].iloc[0]
        assert usable(catalog)["path"].tolist() == ["yes/a.wav"]


def test_words_with_control_characters_are_set_aside(tmp_path: Path) -> None:
    for word in ("yes", "line\nbreak", "esc\x1b[31m", "accuracy"):
        write_clip(tmp_path / word / "a\nb.wav")
    for catalog in (scan(tmp_path), scan(tmp_path)):
        assert usable(catalog)["word"].tolist() == ["accuracy", "yes"]
        assert set(set_aside(catalog)["word"]) == {"line\nbreak", "esc\x1b[31m"}
        assert set(set_aside(catalog)["error"]) == {"the name of its folder holds a control character"}


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    write_clip(tmp_path / "elsewhere" / "a.wav")
    root = tmp_path / "data"
    root.mkdir()
    for word in ("yes", "yeah"):  # one folder under two names is two words
        (root / word).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(root)
    paths = scan(root)["path"].tolist()
    assert {"yes/a.wav", "yeah/a.wav"} <= set(paths)
    assert all(path.count("/") <= 3 for path in paths)


def test_folders_of_links_to_each_other_do_not_multiply(tmp_path: Path) -> None:
    for level in range(17):
        (tmp_path / "levels" / str(level)).mkdir(parents=True)
        for name in ("a", "b"):
            (tmp_path / "levels" / str(level) / name).symlink_to(tmp_path / "levels" / str(level + 1))
    write_clip(tmp_path / "levels" / "17" / "a.wav")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "yes").symlink_to(tmp_path / "levels" / "0")

    found = scan(tmp_path / "data")

    assert 0 < len(usable(found)) <= 100
    assert set(set_aside(found)["error"]) == {"links lead to this folder in more than 100 ways"}
    assert len(found) < 5000


def test_a_folder_below_is_one_word_at_any_depth(tmp_path: Path) -> None:
    for name in ("a.wav", "x/b.wav", "x/y/c.wav"):
        write_clip(tmp_path / "boo" / name)
    catalog = scan_below(tmp_path / "boo", "task.unknown_dirs")
    assert catalog["path"].tolist() == ["a.wav", "x/b.wav", "x/y/c.wav"]
    assert set(catalog["word"]) == {"boo"}


def test_only_changed_files_are_read_again(make_folder: MakeFolder, headers_read: list[str]) -> None:
    root = make_folder(speakers=5)
    first = scan(root)
    assert len(headers_read) == len(first) == 17
    headers_read.clear()
    pd.testing.assert_frame_equal(scan(root), first)
    assert headers_read == []

    changed, touched, gone = [root / path for path in first["path"].iloc[[4, 8, 12]]]
    write_clip(changed, seconds=0.3)
    os.utime(touched, ns=(0, first["mtime_ns"].iloc[8] + 1))
    gone.unlink()
    write_clip(root / "yes" / "new.wav", seconds=0.2)
    second = scan(root)
    assert sorted(headers_read) == sorted([changed.name, touched.name, "new.wav"])
    lengths = second.set_index("path")["num_samples"]
    assert lengths[str(changed.relative_to(root))] == 4800
    assert lengths["yes/new.wav"] == 3200
    assert str(gone.relative_to(root)) not in lengths
    assert len(second) == 17
    headers_read.clear()
    pd.testing.assert_frame_equal(scan(root), second)
    assert headers_read == []


def test_deleted_files_vanish_when_nothing_else_changed(make_folder: MakeFolder, headers_read: list[str]) -> None:
    root = make_folder(speakers=2)
    first = scan(root)
    (root / first["path"].iloc[3]).unlink()
    headers_read.clear()
    assert scan(root)["path"].tolist() == first["path"].drop(3).tolist()
    assert headers_read == []


def test_files_set_aside_are_remembered_too(make_folder: MakeFolder, headers_read: list[str]) -> None:
    root = make_folder(speakers=2)
    (root / "yes" / "text.wav").write_text("hello")
    first = scan(root)
    headers_read.clear()
    pd.testing.assert_frame_equal(scan(root), first)
    assert headers_read == []


def test_a_file_that_becomes_readable_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "yes" / "a.wav")

    def deny(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as context:
        context.setattr(Path, "open", deny)
        assert scan(tmp_path)["error"].tolist() == ["cannot be read: Permission denied"]
    # chmod changes neither size nor modification time
    assert scan(tmp_path)["error"].tolist() == [""]


@pytest.mark.parametrize("damage", ["random", "truncated", "empty", "text", "columns"])
def test_a_damaged_cache_costs_only_a_scan(make_folder: MakeFolder, cache: Path, damage: str) -> None:
    root = make_folder(speakers=2)
    first = scan(root)
    (file,) = (cache / "catalogs").glob("*.parquet")
    content = file.read_bytes()
    if damage == "random":
        file.write_bytes(np.random.default_rng(0).bytes(len(content)))
    elif damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "text":
        file.write_text("hello")
    else:
        pd.DataFrame({"path": ["a"]}).to_parquet(file)
    pd.testing.assert_frame_equal(scan(root), first)
    pd.testing.assert_frame_equal(scan(root), first)


def test_an_unwritable_cache_is_named(make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("KWS_DATA", str(tmp_path / "file"))
    with pytest.raises(KwsError, match="KWS_DATA"):
        scan(make_folder(speakers=1))


def test_real_clips_are_all_usable(real_data: Path) -> None:
    catalog = scan(real_data)
    assert len(set_aside(catalog)) == 0
    assert catalog["path"].tolist() == sorted(str(path.relative_to(real_data)) for path in real_data.glob("*/*.wav"))
    clips = catalog[catalog["word"] != "_background_noise_"]
    assert clips["speaker"].str.fullmatch("[0-9a-f]{8}").all()
    assert clips["num_samples"].max() == 16000
