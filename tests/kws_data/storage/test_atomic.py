import pytest
from filelock import Timeout

from kws_data.storage.atomic import (
    is_lock,
    lock_for,
    remove_leftovers,
    replace_dir,
    replace_file,
    replace_files,
    written_for,
)


def write_then_fail(path, error):
    path.write_text("half")
    raise error


def test_a_file_appears_whole_with_the_suffix_kept_while_writing(tmp_path):
    path = tmp_path / "new" / "catalog.parquet"
    with replace_file(path) as temporary:
        temporary.write_text("rows")
        assert temporary.parent == path.parent
        assert temporary.suffix == ".parquet"
        assert not path.exists()
    assert path.read_text() == "rows"
    assert [p.name for p in path.parent.iterdir()] == ["catalog.parquet"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "labels.txt"
    path.write_text("old")
    with pytest.raises(error), replace_file(path) as temporary:
        write_then_fail(temporary, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_several_files_change_together_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("old")

    with pytest.raises(TypeError):
        replace_files({tmp_path / "a": b"new", tmp_path / "deep" / "b": b"new", tmp_path / "c": "no bytes"})
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "deep"]

    replace_files({tmp_path / "a": b"new", tmp_path / "deep" / "b": b"other"})
    assert [(tmp_path / name).read_bytes() for name in ("a", "deep/b")] == [b"new", b"other"]


def test_a_body_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replace_file(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("files", [1, 300])
def test_a_folder_replaces_what_stood_there(tmp_path, files):
    path = tmp_path / "store"
    (path / "old").mkdir(parents=True)
    with replace_dir(path) as temporary:
        for number in range(files):
            (temporary / f"{number}").write_text("new")
        assert (path / "old").is_dir()
    assert len(list(path.iterdir())) == files
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_a_file_and_a_link_without_following_it(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (tmp_path / "link").symlink_to(elsewhere)
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with replace_dir(tmp_path / name) as temporary:
            (temporary / "clip").touch()
        assert not (tmp_path / name).is_symlink()
        assert [p.name for p in (tmp_path / name).iterdir()] == ["clip"]
    assert (elsewhere / "precious").exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_folder_leaves_the_old_one_and_nothing_else(tmp_path, error):
    path = tmp_path / "store"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(error), replace_dir(path) as temporary:
        write_then_fail(temporary / "half", error)
    assert [p.name for p in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_killed_writer_are_removed_and_other_files_are_not(tmp_path):
    path = tmp_path / "v0.01"
    kept = [path, tmp_path / "v0.01.b", tmp_path / ".v0.01", tmp_path / ".v0.01.lock"]
    for file in kept:
        file.touch()
    other = replace_file(tmp_path / "v0.01.b")
    kept.append(other.__enter__())
    kept[-1].touch()
    for leftover in (replace_dir(path).__enter__(), replace_file(path).__enter__()):
        leftover.touch()
        assert written_for(leftover.name) == "v0.01"
    assert len(list(tmp_path.iterdir())) == len(kept) + 2
    remove_leftovers(path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_the_lock_of_a_path_is_held_once_and_hidden(tmp_path):
    path = tmp_path / "new" / "store"
    with lock_for(path):
        assert all(is_lock(p.name) for p in path.parent.iterdir())
        with pytest.raises(Timeout), lock_for(path, timeout_s=0):
            pass
    with lock_for(path, timeout_s=0):
        pass
