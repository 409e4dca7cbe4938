from __future__ import annotations

import gzip
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from kws_data import split_lists
from kws_data.split_lists import Listed, read_list

CLIPS = [
    "no/0a1b_nohash_0.wav", "no/0a1b_nohash_1.wav", "yes/0a1b_nohash_0.wav", "yes/5c6d_nohash_0.wav",
    "yes/Take 1, loud.WAV", "zwölf/5c6d_nohash_0.wav", "yes/deep/er.flac",
]  # fmt: skip


def listed(tmp_path: Path, content: str | bytes, paths: list[str] = CLIPS) -> Listed:
    file = tmp_path / "list.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_list(file, paths)


HARMLESS: dict[str, Callable[[str], str]] = {
    "as it is": lambda path: path,
    "backslashes": lambda path: path.replace("/", "\\"),
    "./": lambda path: f"./{path}",
    "/": lambda path: f"/{path}",
    "the data set's folder": lambda path: f"speech_commands_v0.02/{path}",
    "folders above": lambda path: f"/home/me/data/{path}",
    "a drive": lambda path: "C:\\data\\" + path.replace("/", "\\"),
    "a URL": lambda path: f"file:///data/{path}",
    "another case of the suffix": lambda path: path.rsplit(".", 1)[0] + "." + path.rsplit(".", 1)[1].swapcase(),
    "upper case": str.upper,
    "another suffix": lambda path: path.rsplit(".", 1)[0] + ".m4a",
    "no suffix": lambda path: path.rsplit(".", 1)[0],
    "NFD": lambda path: unicodedata.normalize("NFD", path),
    "quotes": lambda path: f'"{path}"',
    "spaces": lambda path: f"  {path} \t",
    "NULs that end strings": lambda path: f"{path}\0",
    "CSV": lambda path: f'17,"{path}",3.5',
    "CSV of columns": lambda path: ";".join(path.split("/", 1)[::-1]),
    "TSV": lambda path: f"{path}\tyes",
    "a comment behind": lambda path: f'"{path}" # a good one',
}


@pytest.mark.parametrize("way", HARMLESS)
def test_what_is_harmless_changes_nothing(tmp_path: Path, way: str) -> None:
    result = listed(tmp_path, "\n".join(HARMLESS[way](path) for path in CLIPS))
    assert result == Listed(set(CLIPS), len(CLIPS), [], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_change_nothing(tmp_path: Path, encoding: str, line_end: str) -> None:
    text = line_end.join([*CLIPS, ""])
    assert listed(tmp_path, text.encode(encoding)) == Listed(set(CLIPS), len(CLIPS), [], [])


def test_headers_comments_and_blank_lines_are_no_clips(tmp_path: Path) -> None:
    text = "file,word,speaker\n\n# made by hand\nno/0a1b_nohash_0.wav,no,0a1b\n#yes/5c6d_nohash_0.wav\n   \n"
    assert listed(tmp_path, text) == Listed({"no/0a1b_nohash_0.wav"}, 1, [], [])


def test_a_name_in_a_column_of_its_own_finds_its_word(tmp_path: Path) -> None:
    # both words have such a file
    text = "word,file\nyes,0a1b_nohash_0.wav\nno,0a1b_nohash_1.wav\n"
    assert listed(tmp_path, text) == Listed({"yes/0a1b_nohash_0.wav", "no/0a1b_nohash_1.wav"}, 2, [], [])


def test_a_name_without_a_folder_is_taken_where_there_is_one_such_file(tmp_path: Path) -> None:
    result = listed(tmp_path, "0a1b_nohash_1.wav\n0a1b_nohash_0.wav\n")
    assert result.paths == {"no/0a1b_nohash_1.wav"}
    assert result.ambiguous == ["line 2: '0a1b_nohash_0.wav' (no/0a1b_nohash_0.wav, yes/0a1b_nohash_0.wav)"]


@pytest.mark.parametrize("line", ["yes/0a1b_nohash_1.wav", "maybe/0a1b_nohash_1.wav", "yes/", "yes", "0a1b", "x" * 150])
def test_what_names_no_clip_is_listed(tmp_path: Path, line: str) -> None:
    result = listed(tmp_path, f"no/0a1b_nohash_0.wav\n{line}\n")
    assert result == Listed({"no/0a1b_nohash_0.wav"}, 2, [f"line 2: '{line}'"], [])


def test_a_converted_clip_is_found_only_where_one_would_do(tmp_path: Path) -> None:
    paths = ["no/a.flac", "no/b.flac", "no/b.mp3", "no/c.flac", "no/c.wav", "no/D.wav", "no/d.wav"]
    result = listed(tmp_path, "no/a.wav\nno/b.wav\nno/c.wav\nno/d.WAV\nno/D.flac\n", paths)
    assert result.paths == {"no/a.flac", "no/c.wav", "no/d.wav", "no/D.wav"}
    assert result.ambiguous == ["line 2: 'no/b.wav' (no/b.flac, no/b.mp3)"]


def test_the_exact_name_comes_first(tmp_path: Path) -> None:
    paths = ["no/a.wav", "NO/a.wav", "b/no/a.wav", "#1/a.wav", "no/a.wav,x.wav"]
    assert listed(tmp_path, "\n".join(paths), paths) == Listed(set(paths), 5, [], [])


def test_a_line_of_two_clips_is_said(tmp_path: Path) -> None:
    result = listed(tmp_path, "yes/5c6d_nohash_0.wav,no/0a1b_nohash_0.wav\n")
    assert not result.paths
    assert len(result.ambiguous) == 1


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"yes\nno\n", id="words"),
        pytest.param(gzip.compress("\n".join(CLIPS).encode()), id="gzip"),  # holds the time: no name of its own
        pytest.param("\n".join(CLIPS).encode("cp500"), id="EBCDIC"),
        pytest.param(b"a" * 10_000, id="one long line"),
    ],
)
def test_only_the_first_line_can_be_a_header_and_only_of_something(tmp_path: Path, content: bytes) -> None:
    """All lines that looked like headers were passed over, and the clips that they mean trained on."""
    result = listed(tmp_path, content)
    assert not result.paths
    assert result.lines == len(result.unmatched) > 0
    assert all(len(line) < 300 for line in result.unmatched)


def test_any_bytes_can_be_read(tmp_path: Path) -> None:
    result = listed(tmp_path, bytes(range(256)) * 50 + b'"' * 200_000)
    assert not result.paths


def test_a_line_of_many_folders_takes_no_more_than_its_last_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(split_lists, "nfc", lambda text: taken.append(text) or text)  # type: ignore[func-returns-value]
    assert not listed(tmp_path, "a/" * 2000 + "b.wav").paths
    assert sum(map(len, taken)) < 100_000
