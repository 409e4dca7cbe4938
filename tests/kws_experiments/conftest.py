"""The `kws` command, as typed, in the tests' own process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from kws_experiments.cli import main as cli


@dataclass
class Result:
    status: int
    out: str
    err: str
    log: str

    def error(self) -> str:
        """The one line that says what was wrong."""
        assert self.status == 1, self.out
        (line,) = self.err.strip().splitlines()
        assert line.startswith("error: ")
        return line


Kws = Callable[..., Result]


@pytest.fixture
def kws(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Kws:
    def call(*arguments: object) -> Result:
        monkeypatch.setattr("sys.argv", ["kws", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "250")
        monkeypatch.setenv("KWS_TRUST", "0")  # --trust sets it: undone after the test
        caplog.clear()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(caught.value.code or 0), captured.out, captured.err, caplog.text)

    return call
