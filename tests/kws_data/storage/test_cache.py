from datetime import UTC, datetime
from pathlib import Path

import pytest

from kws_data.errors import KwsError
from kws_data.storage import atomic, cache


@pytest.fixture
def filled(tmp_path, monkeypatch):
    root = tmp_path / "cache"
    monkeypatch.setenv("KWS_DATA", str(root))
    for path, size in {
        "datasets/mini/yes/a.wav": 10,
        "datasets/mini/no/b.FLAC": 20,
        "datasets/mini/_background_noise_/hum.wav": 300,
        "datasets/mini/README.md": 4000,
        "archives/mini.zip": 5,
        "archives/v0.02.tar.gz.partial": 7,
        "stores/abc/pcm.bin": 100,
        "stores/.abc.0123456789abcdef.tmp/pcm.bin": 50,
        "stores/.abc.lock": 0,
        "catalogs/x.parquet": 3,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(bytes(size))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious.wav").write_bytes(bytes(1000))
    return root


@pytest.mark.parametrize("chosen", ["", "~/data"])
def test_without_a_home_one_line_says_what_to_set(monkeypatch, chosen):
    def unknown(number):
        raise KeyError(number)

    for variable in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setenv("KWS_DATA", chosen)
    with pytest.raises(KwsError, match=r"^there is no home folder: set KWS_DATA to"):
        cache.cache_dir()


def test_the_environment_chooses_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("KWS_DATA", str(tmp_path))
    assert cache.cache_dir() == tmp_path
    assert cache.stores_dir() == tmp_path / "stores"
    monkeypatch.setenv("KWS_DATA", "~/data")
    assert cache.cache_dir() == Path.home() / "data"
    monkeypatch.setenv("KWS_DATA", "")
    assert cache.cache_dir().name == "kws"
    assert cache.cache_dir().is_absolute()


def test_entries_tell_size_clips_and_time(filled):
    found = {(entry.kind, entry.name): entry for entry in cache.entries()}
    assert {key: (entry.bytes, entry.clips) for key, entry in found.items()} == {
        ("datasets", "mini"): (4330, 2),
        ("archives", "mini.zip"): (5, None),
        ("archives", "v0.02.tar.gz"): (7, None),
        ("stores", "abc"): (150, None),
        ("catalogs", "x.parquet"): (3, None),
    }
    assert found["stores", "abc"].path == cache.stores_dir() / "abc"
    assert found["stores", "abc"].modified <= datetime.now(UTC)


def test_an_absent_cache_is_an_empty_one(monkeypatch, tmp_path):
    monkeypatch.setenv("KWS_DATA", str(tmp_path / "none"))
    assert cache.entries() == []
    assert cache.clear() == 0
    assert not (tmp_path / "none").exists()


def test_a_file_in_place_of_the_cache_is_said_to_be_one(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KWS_DATA", str(tmp_path / "file"))
    with pytest.raises(KwsError, match="file' is a file; set KWS_DATA to a folder"):
        cache.entries()


@pytest.mark.parametrize(
    ("kind", "name", "freed", "left"),
    [
        ("stores", "abc", 150, 4),
        ("archives", "v0.02.tar.gz", 7, 4),
        ("archives", None, 12, 3),
        (None, "mini", 4330, 4),
        (None, None, 4495, 0),
    ],
)
def test_clear_frees_what_was_named(filled, kind, name, freed, left):
    assert cache.clear(kind, name) == freed
    assert len(cache.entries()) == left
    files = [path for path in filled.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert sum(path.stat().st_size for path in files) == 4495 - freed


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("models", None, "datasets, archives, catalogs, stores, features"),
        ("datasets", "v0.03", "mini"),
        ("stores", "../datasets/mini", "abc"),
        ("stores", "..", "abc"),
        (None, "../../outside", "mini"),
        (None, "", "mini"),
    ],
)
def test_an_unknown_kind_or_name_removes_nothing_and_names_the_known(filled, kind, name, message):
    before = sorted(filled.parent.rglob("*"))
    with pytest.raises(KwsError, match=message) as caught:
        cache.clear(kind, name)
    assert "\n" not in str(caught.value)
    assert sorted(filled.parent.rglob("*")) == before


def test_links_are_removed_as_links(filled):
    outside = filled.parent / "outside"
    (filled / "datasets" / "linked").symlink_to(outside)
    (filled / "datasets" / "mini" / "maybe").symlink_to(outside)
    assert cache.clear("datasets") < 4330 + 1000
    assert cache.entries()
    assert not any(entry.kind == "datasets" for entry in cache.entries())
    assert (outside / "precious.wav").stat().st_size == 1000


def test_a_kind_folder_that_links_elsewhere_is_left_alone(filled):
    outside = filled.parent / "outside"
    (filled / "catalogs" / "x.parquet").unlink()
    (filled / "catalogs").rmdir()
    (filled / "catalogs").symlink_to(outside)
    with pytest.raises(KwsError, match="link"):
        cache.clear()
    assert (outside / "precious.wav").exists()
    assert (filled / "stores" / "abc").is_dir()


def test_what_another_process_fills_is_not_removed(filled):
    with atomic.lock_for(cache.stores_dir() / "abc"):
        with pytest.raises(KwsError, match=r"abc.*in use"):
            cache.clear("stores")
        assert (filled / "stores" / "abc" / "pcm.bin").exists()
    assert cache.clear("stores") == 150


def test_what_a_writer_removes_meanwhile_is_not_listed(filled, monkeypatch):
    grouped = cache._grouped

    def grouped_then_removed(folder):
        groups = grouped(folder)
        atomic.remove(filled / "catalogs" / "x.parquet")
        atomic.remove(filled / "stores" / ".abc.0123456789abcdef.tmp")
        return groups

    monkeypatch.setattr(cache, "_grouped", grouped_then_removed)
    sizes = {f"{entry.kind}/{entry.name}": entry.bytes for entry in cache.entries()}
    assert sizes["stores/abc"] == 100
    assert "catalogs/x.parquet" not in sizes
