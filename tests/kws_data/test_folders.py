from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from kws_data.errors import KwsError
from kws_data.folders import audio_files, find_folder, is_litter

NFC, NFD = "é", unicodedata.normalize("NFD", "é")


@pytest.mark.parametrize(
    "name",
    [
        "._a.wav",
        ".DS_Store",
        "__MACOSX",
        "Thumbs.db",
        "desktop.ini",
        "Desktop.ini",
        ".git",
        "#recycle",
        "@Recycle",
        "FOUND.000",
        "a.wav:Zone.Identifier",
        "a.wav:Zone.Identifier:$DATA",
        "a.wav.Zone.Identifier",
    ],
)
def test_what_systems_leave_behind_is_known(name: str) -> None:
    assert is_litter(name)


@pytest.mark.parametrize("name", ["a.wav", "_unknown_", "__a.wav", "thumbs", "desktop", "recycle", "found"])
def test_what_users_name_is_kept(name: str) -> None:
    assert not is_litter(name)


def test_audio_files_are_found_at_any_depth_without_litter(tmp_path: Path) -> None:
    root = tmp_path / ".kept"  # only names below the folder count
    for name in ("b.WAV", "a/c.mp3", "a/._c.mp3", "__MACOSX/a/c.mp3", ".trash/d.wav", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "folder.wav").mkdir()
    assert audio_files(root) == [root / "a" / "c.mp3", root / "b.WAV"]


def test_broken_links_are_among_audio_files_so_that_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").symlink_to("annexed.wav")
    assert audio_files(tmp_path) == [tmp_path / "a.wav"]


@pytest.mark.parametrize(("given", "stored"), [(NFC, NFD), (NFD, NFC), (NFC, NFC)])
def test_a_folder_is_found_in_either_unicode_form(tmp_path: Path, given: str, stored: str) -> None:
    (tmp_path / stored / "clips").mkdir(parents=True)
    assert find_folder(tmp_path / given / "clips", "dataset.path") == (tmp_path / stored / "clips").resolve()


def test_a_missing_folder_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "a" / "b", tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(KwsError, match=f"^noise.dirs: no folder '{path}'$"):
            find_folder(path, "noise.dirs")
