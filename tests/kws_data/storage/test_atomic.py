import errno
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import Timeout

from kws_data.storage.atomic import (
    is_lock,
    lock_for,
    remove_leftovers_below,
    replace_dir,
    replace_file,
    replace_files,
    written_for,
)
from tests.conftest import ROOT


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


WRITER = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from kws_data.storage.atomic import replace_dir, replace_file, scratch_dir

with ExitStack() as stack:
    for write in (replace_file, replace_dir, scratch_dir):
        temporary = stack.enter_context(write(Path(sys.argv[1])))
        if temporary.is_dir():
            (temporary / "half").touch()
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that writes `report.html` in the test's folder in every way, and never ends."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "report.html")], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.slow
def test_what_a_killed_writer_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path, writer):
    others = [tmp_path / name for name in ("report.html.b", ".report.html", ".report.html.lock", ".x.tmp")]
    for file in others:
        file.touch()
    temporary = {path.name for path in tmp_path.iterdir()} - {path.name for path in others}
    assert {written_for(name) for name in temporary} == {"report.html"}
    assert len(temporary) == 3

    (tmp_path / f".labels.txt.{16 * '0'}.tmp.txt").touch()  # of a writer that was killed long ago
    with replace_file(tmp_path / "labels.txt") as mine:
        mine.write_text("yes")
        remove_leftovers_below(tmp_path.parent)
    assert {path.name for path in tmp_path.iterdir()} == {"labels.txt", *temporary, *(path.name for path in others)}

    writer.kill()
    writer.wait()
    with replace_dir(tmp_path / "store"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"labels.txt", "store", *(path.name for path in others)}


def test_two_writers_of_one_folder_do_not_take_each_others_file_for_a_leftover(tmp_path):
    def write(number):
        for _ in range(100):
            with replace_file(tmp_path / f"{number}.json") as temporary:
                temporary.write_text("{}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number}.json" for number in range(8)]


def test_an_error_of_a_full_disk_names_the_file_that_was_to_be_written(tmp_path):
    for write in (replace_file, replace_dir):
        with pytest.raises(OSError, match="No space left") as raised, write(tmp_path / "store") as temporary:
            raise OSError(errno.ENOSPC, "No space left on device")
        assert raised.value.filename == str(tmp_path / "store")
        with pytest.raises(OSError, match="No space left") as raised, write(tmp_path / "store") as temporary:
            raise OSError(errno.ENOSPC, "No space left on device", str(temporary))
        assert raised.value.filename == str(tmp_path / "store")


def test_the_lock_of_a_path_is_held_once_and_hidden(tmp_path):
    path = tmp_path / "new" / "store"
    with lock_for(path):
        assert all(is_lock(p.name) for p in path.parent.iterdir())
        with pytest.raises(Timeout), lock_for(path, timeout_s=0):
            pass
    with lock_for(path, timeout_s=0):
        pass


def test_a_file_keeps_its_permissions_and_its_link(tmp_path):
    private, link = tmp_path / "private.csv", tmp_path / "link.csv"
    private.write_text("old")
    private.chmod(0o600)
    link.symlink_to(private.name)
    with replace_file(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert private.read_text() == "new"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
