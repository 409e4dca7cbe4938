"""From an error to one line and an exit status."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest
from hydra.errors import HydraException, MissingConfigException

from kws_data.errors import KwsError
from kws_experiments.config.exit import one_line_errors

FULL = OSError(errno.ENOSPC, "No space left on device", "runs/a.json")


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (KwsError("seed must be a whole number"), "error: seed must be a whole number", 2),
        (FULL, "error: runs/a.json: No space left on device", 2),
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


def test_a_cache_that_cannot_be_made_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KWS_DATA", str(tmp_path / "file" / "cache"))
    with pytest.raises(SystemExit), one_line_errors():
        (tmp_path / "file" / "cache").mkdir()
    assert capsys.readouterr().err.endswith("Not a directory; set KWS_DATA to a folder that can be written\n")


def test_a_log_takes_the_line_instead(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test")
    for error in (FULL, KeyboardInterrupt()):
        with pytest.raises(SystemExit), one_line_errors(log=log, stopped="stopped; go on"):
            raise error
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "runs/a.json: No space left on device"),
        ("WARNING", "stopped; go on"),
    ]


def test_an_error_that_nobody_foresaw_passes() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError
