"""Signatures: whose a folder is."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from kws_data.errors import KwsError
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.trust import SIGNATURE, TRUST, is_trusted, require_no_way_out, require_trust, sign


def resigned(folder: Path, digest: str) -> None:
    signature = json.loads((folder / SIGNATURE).read_text())
    (folder / SIGNATURE).write_text(json.dumps(signature | {"hmac": digest}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A signed one, with a state folder of its own."""
    monkeypatch.setenv("KWS_STATE", str(tmp_path / "state"))
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "environment.json", "model.keras", "labels.txt"):
        (run / name).write_text(name)
    sign(run)
    return run


def test_the_key_is_for_this_user_alone(folder: Path, tmp_path: Path) -> None:
    key = tmp_path / "state" / "signing.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 32
    assert key.read_bytes().hex() not in (folder / SIGNATURE).read_text()
    assert is_trusted(folder)


def test_it_goes_with_the_folder(folder: Path, tmp_path: Path) -> None:
    assert is_trusted(folder.rename(tmp_path / "moved"))
    assert is_trusted(shutil.copytree(tmp_path / "moved", tmp_path / "copy"))


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "config.yaml").write_text("another"),
        lambda folder: (folder / "environment.json").write_text("another"),
        lambda folder: (folder / "model.keras").write_text("another"),
        lambda folder: (folder / "model.keras").unlink(),
        lambda folder: (folder / "export.json").write_text("added"),
        lambda folder: (folder / SIGNATURE).unlink(),
        lambda folder: (folder / SIGNATURE).write_text("{"),
        lambda folder: (folder / SIGNATURE).write_text('{"files": {}, "hmac": ""}'),
        lambda folder: (folder / SIGNATURE).write_text('{"files": [1], "hmac": 3}'),
        lambda folder: resigned(folder, "é"),
        lambda folder: resigned(folder, "\ud800"),
        lambda folder: (folder.parent / "state" / "signing.key").write_bytes(b"x" * 32),
        lambda folder: [(folder / name).unlink() for name in ("config.yaml", "environment.json", "model.keras")],
    ],
)
def test_a_change_of_what_names_code_ends_it(folder: Path, harm: Callable[[Path], object]) -> None:
    harm(folder)
    import kws_experiments.runs.trust as module

    module._key.cache_clear()  # as another process reads it
    assert not is_trusted(folder)


def test_results_may_change(folder: Path) -> None:
    (folder / "labels.txt").write_text("other labels")
    (folder / "report.html").write_text("a report")
    assert is_trusted(folder)


def test_an_empty_folder_with_a_good_signature_of_nothing_is_not_trusted(tmp_path: Path) -> None:
    sign(tmp_path)
    assert not is_trusted(tmp_path)


def test_trust_is_asked_for_only_where_something_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_trust(tmp_path, tmp_path / "config.yaml", None)
    with pytest.raises(KwsError, match="it names evil, which only your own runs"):
        require_trust(tmp_path, tmp_path / "config.yaml", "it names evil")
    for value in ("0", "", "true", "01"):
        monkeypatch.setenv(TRUST, value)
        assert not is_trusted(tmp_path)
    monkeypatch.setenv(TRUST, "1")
    require_trust(tmp_path, tmp_path / "config.yaml", "it names evil")


@pytest.mark.parametrize("state", ["file", "~", "locked"])
def test_without_a_place_for_a_key_a_run_is_signed_for_this_process_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    if state == "file":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("KWS_STATE", str(tmp_path / "file"))
    elif state == "~":
        monkeypatch.setenv("KWS_STATE", "~nobody-of-this-name/state")
    else:
        monkeypatch.setenv("KWS_STATE", "/proc/self/nothing")
    assert not is_trusted(folder)
    sign(folder)

    assert is_trusted(folder)  # the report at a training's end reads it
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "not signed as yours" in caplog.text
    import kws_experiments.runs.trust as module

    module._key.cache_clear()
    assert not is_trusted(folder)


def test_links_out_of_a_folder_are_refused_unless_it_is_one_s_own(folder: Path, tmp_path: Path) -> None:
    run = RunFolder(folder)
    (folder / "figures").symlink_to(tmp_path / "state")
    require_no_way_out(folder)
    run.config.write_text("another")
    with pytest.raises(KwsError, match=r"run/figures': it is a link to something outside its folder"):
        require_no_way_out(folder)
    (folder / "figures").unlink()
    (folder / "inside").symlink_to(folder / "labels.txt")
    require_no_way_out(folder)
    os.mkfifo(folder / "pipe")
    with pytest.raises(KwsError, match="pipe': it is neither a file nor a folder"):
        require_no_way_out(folder)
    (folder / "pipe").unlink()
    for target in ("/nowhere", "../elsewhere", "inside/../../x"):
        (folder / "broken").symlink_to(target)
        with pytest.raises(KwsError, match="broken': it is a link"):
            require_no_way_out(folder)
        (folder / "broken").unlink()


def test_a_signature_is_json_of_hashes(folder: Path) -> None:
    content = json.loads((folder / SIGNATURE).read_text())
    assert list(content["files"]) == ["config.yaml", "environment.json", "model.keras"]
