"""From an error to one line and an exit status."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException, MissingConfigException

from kws_data.errors import KwsError
from kws_experiments.config.exit import one_line_errors
from tests.conftest import ROOT

FULL = OSError(errno.ENOSPC, "No space left on device", "runs/a.json")

ROOM = "runs/a.json: No space left on device; make room, then give the same command again"


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (KwsError("seed must be a whole number"), "error: seed must be a whole number", 2),
        (FULL, f"error: {ROOM}", 2),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            f"error: {ROOM.replace('runs/a.json', 'standard output')}",
            2,
        ),
        (caused_by(RuntimeError("could not save"), FULL), f"error: {ROOM}", 2),
        (
            ValueError("a.pb; No space left on device"),
            "error: a.pb; No space left on device; " + ROOM.partition("; ")[2],
            2,
        ),
        (OSError("no network"), "error: system: no network", 2),
        (HydraException("Key 'x'\n  is not there"), "error: Key 'x' is not there", 2),
        (MissingConfigException("no 'x'\n", "x"), "error: no 'x'", 2),  # an OSError too
        (KwsError("no 'a\n\x1b[2J'"), r"error: no 'a\n\x1b[2J'", 2),
        (
            RuntimeError("Could not determine home directory."),
            "error: a path begins with '~', and there is no such home folder: set HOME, or write the path in full", 2,
        ),
        (
            UnicodeEncodeError("ascii", "é/x", 0, 1, "ordinal not in range(128)"),
            "error: 'é/x' has characters that this locale lacks; set PYTHONUTF8=1", 2,
        ),
        (KeyboardInterrupt(), "stopped", 130),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_a_status(
    error: BaseException, line: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught, one_line_errors(failed=2):
        raise error
    assert caught.value.code == status
    assert capsys.readouterr().err == f"{line}\n"


def test_a_full_disk_names_the_file_though_the_error_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def save() -> None:  # as Hydra does
        with (tmp_path / "config.yaml").open("w") as file:
            file.write("a: 1")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit), one_line_errors():
        save()
    assert capsys.readouterr().err == f"error: {ROOM.replace('runs/a.json', str(tmp_path / 'config.yaml'))}\n"


def test_a_cache_that_cannot_be_made_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KWS_DATA", str(tmp_path / "file" / "cache"))
    with pytest.raises(SystemExit), one_line_errors():
        (tmp_path / "file" / "cache").mkdir()
    assert capsys.readouterr().err.endswith("Not a directory; set KWS_DATA to a folder that can be written\n")


def test_a_cache_without_a_place_changes_no_other_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KWS_DATA", "~nosuch/x")
    with pytest.raises(SystemExit), one_line_errors():
        raise PermissionError(errno.EACCES, "Permission denied", "/srv/x.csv")
    assert capsys.readouterr().err == "error: /srv/x.csv: Permission denied\n"


def test_a_log_takes_the_line_instead(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test")
    for error in (FULL, KeyboardInterrupt()):
        with pytest.raises(SystemExit), one_line_errors(log=log, stopped="stopped; go on"):
            raise error
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", ROOM),
        ("WARNING", "stopped; go on"),
    ]


def test_an_error_that_nobody_foresaw_passes() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError


def run(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    """A process that starts as `kws` does."""
    start = "from kws_experiments.config.exit import one_line_errors\n"
    return subprocess.run([sys.executable, "-c", start + code], cwd=ROOT, text=True, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disks_behind_a_redirection_and_a_log_are_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = run("with one_line_errors():\n print('x'); raise SystemExit", stdout=full)
    assert (done.returncode, done.stderr) == (1, f"error: {ROOM.replace('runs/a.json', 'standard output')}\n")

    log = "import logging; logging.basicConfig(filename='/dev/full'); [logging.error('x') for _ in range(9)]"
    done = run(f"with one_line_errors():\n {log}")
    assert done.returncode == 0
    assert done.stderr == "/dev/full: nothing more is logged there: No space left on device\n"


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    closed = "import os; reading, writing = os.pipe(); os.dup2(writing, 1); os.close(reading)"
    done = run(f"{closed}\nwith one_line_errors():\n print('x')")
    assert (done.returncode, done.stderr) == (0, "")
