"""Data and a cache that the whole sweeps of a module share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import folder_maker


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and place for a cache."""
    folder = tmp_path_factory.mktemp("sweeps")
    folder_maker(folder)()
    return folder


@pytest.fixture
def shared_cache(place: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of `place`, not one for each test."""
    del cache  # set before
    monkeypatch.setenv("KWS_DATA", str(place / "cache"))
