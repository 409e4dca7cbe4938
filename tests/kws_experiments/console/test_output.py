"""Printing and logging, whatever the text and the terminal."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kws_experiments.console.output import say, set_up
from tests.conftest import ROOT, MakeFolder


@pytest.fixture(autouse=True)
def record_factory() -> Iterator[None]:
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_output_cannot_encode_is_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    set_up()

    say("語 → 5")

    assert raw.getvalue() == b"\\u8a9e \\u2192 5\n"


def test_a_name_with_a_line_break_forges_no_line(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    set_up()
    name = "a\n[2026-01-01][train][ERROR] - lost\x1b[2J.wav"

    say(name)
    say(name, style="red")
    logging.getLogger("test").warning("%s: unreadable", name)

    shown = r"a\n[2026-01-01][train][ERROR] - lost\x1b[2J.wav"
    assert capsys.readouterr().out.splitlines() == [shown, shown]
    assert caplog.messages == [f"{shown}: unreadable"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
@pytest.mark.parametrize(
    "command",
    [["-m", "kws_experiments.cli.main", "--help"], ["-m", "kws_experiments.cli.main", "data", "list"],
     [str(ROOT / "train.py"), "--help"]],
)  # fmt: skip
def test_no_console_is_too_poor(command: list[str], variables: dict[str, str], tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_outputs_end_nothing(closed: str, tmp_path: Path) -> None:
    """As some schedulers have them."""
    script = f"{sys.executable} -m kws_experiments.cli.main runs . {closed}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


@pytest.mark.slow
def test_a_training_with_closed_outputs_ends_with_its_report(make_folder: MakeFolder, tmp_path: Path) -> None:
    data = f"dataset=folder dataset.path={make_folder()} task=custom model=tiny_conv trainer=quick"
    script = f"{sys.executable} {ROOT / 'train.py'} {data} >&- 2>&-"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path)
    assert done.returncode == 0
    assert len(list(tmp_path.glob("runs/*/*/report.html"))) == 1


@pytest.mark.slow
def test_a_training_on_a_poor_console_ends_with_its_report(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(words=("école", "はい", "no"))
    command = [sys.executable, str(ROOT / "train.py"), "dataset=folder", f"dataset.path={root}", "split=random"]
    command += ["task=custom", "model=tiny_conv", "trainer=quick", 'dataset.licence="© ß →"']
    command += ["trainer.print_confusion=true"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "KWS_DATA": str(tmp_path / "c")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert rb"data licence: \xa9 \xdf \u2192" in done.stdout
    (log,) = tmp_path.glob("runs/*/*/train.log")
    assert "validation loss" in log.read_text("utf-8")
