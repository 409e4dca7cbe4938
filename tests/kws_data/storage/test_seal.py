from __future__ import annotations

import os
from pathlib import Path

import pytest

from kws_data.storage import seal as seal_module
from kws_data.storage.seal import is_intact, seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small").write_bytes(b"abc")
    (tmp_path / "large").write_bytes(bytes(2000))
    seal(tmp_path)
    return tmp_path


def test_a_sealed_folder_is_intact_until_a_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_intact(folder)
    times = (folder / "small").stat()
    (folder / "small").write_bytes(b"abd")
    os.utime(folder / "small", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not is_intact(folder)
    seal(folder)
    assert is_intact(folder)
    (folder / "new").touch()
    assert not is_intact(folder)


def test_large_files_are_known_by_size_and_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal_module, "_HASHED_BYTES", 1000)
    seal(folder)
    assert is_intact(folder)
    os.utime(folder / "large", ns=(0, 1))
    assert not is_intact(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xff"])
def test_a_damaged_seal_is_not_intact(folder: Path, content: bytes) -> None:
    (folder / "seal.json").write_bytes(content)
    assert not is_intact(folder)


def test_a_missing_folder_is_not_intact(tmp_path: Path) -> None:
    assert not is_intact(tmp_path / "absent")
