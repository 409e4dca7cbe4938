"""Runs that were stopped after their training: the same command adds what is missing, without training again."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kws_data.errors import KwsError
from kws_experiments.runs.find import find_runs
from kws_experiments.runs.folder import RunFolder
from kws_experiments.train import finish, train
from tests.kws_experiments.conftest import Kws
from tests.kws_experiments.reports.test_report import make_run


class Probe:
    """A logger that notes its calls, and may fail in one."""

    calls: ClassVar[list[str]] = []

    def __init__(self, fails_in: str) -> None:
        self._fails_in = fails_in

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self._fails_in:
            raise RuntimeError("no connection")

    def begin(self, folder: RunFolder, config: dict[str, Any]) -> None:
        self._note("begin")

    def end(self, result: dict[str, Any]) -> None:
        assert result["accuracy"] > 0
        self._note("end")


@pytest.fixture
def trained(tmp_path: Path) -> RunFolder:
    """A run that was killed when its model had been evaluated and saved."""
    folder = RunFolder(make_run(tmp_path / "run"))
    folder.write_record(status="trained")
    (folder.path / ".report.html.0123456789abcdef.tmp.html").write_text("<html>")
    folder.figures.mkdir()
    (folder.figures / ".roc.png.0123456789abcdef.tmp.png").write_text("half")
    return folder


def status(folder: RunFolder) -> str:
    return find_runs(folder.path)["status"].item()


@pytest.mark.parametrize("fails_in", ["nothing", "begin", "end"])
def test_the_same_command_adds_the_report_and_ends_the_loggers(
    trained: RunFolder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fails_in: str
) -> None:
    monkeypatch.setattr(Probe, "calls", [])
    config = trained.read_config()
    config["loggers"] = {"probe": {"_target_": f"{__name__}.Probe", "fails_in": fails_in}}
    before = {path: path.read_bytes() for path in trained.path.glob("*.parquet")}
    caplog.set_level(logging.INFO)
    assert status(trained) == "report missing"

    for _ in range(2):
        assert train(config, trained.path)["accuracy"] == trained.read_metrics()["accuracy"]

    assert Probe.calls == ["begin", "end"]  # once; a logger that fails doesn't keep the run from being done
    assert status(trained) == "done"
    assert "</html>" in trained.report.read_text()
    assert not list(trained.path.rglob("*.tmp*"))
    assert {path: path.read_bytes() for path in before} == before
    lines = [record.getMessage() for record in caplog.records if "trained already" in record.getMessage()]
    assert len(lines) == 2
    assert "adding what is missing (its report and the end of its loggers)" in lines[0]
    assert sum(record.levelname == "WARNING" for record in caplog.records) == (fails_in != "nothing")


def test_a_report_that_fails_is_tried_again_by_the_same_command(
    trained: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from kws_experiments.reports import run_report

    def fails(*_: Any) -> None:
        raise ZeroDivisionError("in a plot")

    with monkeypatch.context() as patch:
        patch.setattr(run_report, "run_page", fails)
        train(trained.read_config(), trained.path)
    assert "not its report" in caplog.text
    assert status(trained) == "report missing"

    train(trained.read_config(), trained.path)
    assert status(trained) == "done"


def test_a_done_run_without_its_report_gets_it_too(trained: RunFolder) -> None:
    trained.write_record(status="done")  # so did earlier versions leave a run that was killed while it wrote it
    train(trained.read_config() | {"report": False}, trained.path)
    assert not trained.report.exists()
    train(trained.read_config(), trained.path)
    assert trained.report.exists()


def test_kws_report_finishes_a_run(trained: RunFolder, kws: Kws) -> None:
    assert kws("report", trained.path).status == 0
    assert json.loads(trained.record.read_text())["status"] == "done"
    assert not list(trained.path.rglob("*.tmp*"))


def test_a_run_whose_loggers_alone_are_missing_says_so(trained: RunFolder, kws: Kws) -> None:
    trained.report.write_text("</html>")
    assert status(trained) == "not closed"
    finish(trained.path)
    assert status(trained) == "done"


def test_a_refused_configuration_leaves_no_folder(trained: RunFolder, tmp_path: Path) -> None:
    config = trained.read_config()
    path = tmp_path / "runs" / "train" / "0123456789ab"
    (path / ".hydra").mkdir(parents=True)  # as Hydra makes it
    (path / "train.log").touch()
    with pytest.raises(KwsError, match="trainer"):
        train(config | {"trainer": config["trainer"] | {"steps": -1, "epochs": None}}, path)
    assert not (tmp_path / "runs").exists()

    (path / ".hydra").mkdir(parents=True)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(KwsError):
        train(config | {"seed": "x"}, path)
    assert [file.name for file in path.iterdir()] == ["notes.txt"]
