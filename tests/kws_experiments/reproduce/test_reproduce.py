"""`kws reproduce`: a run again, from what its folder says."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from kws_data.errors import KwsError
from kws_experiments.cli import main as cli
from kws_experiments.config.compose import compose
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.reproduce import restart
from kws_experiments.reproduce.train_again import origin_change
from kws_experiments.runs.folder import SCHEMA_VERSION, RunFolder
from kws_experiments.runs.seal import finished_record, seal
from tests.conftest import ROOT, SAMPLE_RATE, tone
from tests.kws_experiments.reproduce.test_compare import SESSION
from tests.kws_experiments.test_train import SMALL, train


def write_run(path: Path, **record: Any) -> RunFolder:
    """A finished run's folder whose checks pass, with as little in it as that takes."""
    folder = RunFolder(path)
    folder.write_config(compose(["dataset=folder", "dataset.path=/nowhere"]))
    session = SESSION | {"working_directory": "/"}
    folder.environment.write_text(json.dumps({"schema_version": 1, "sessions": [session]}))
    folder.data.mkdir()
    for file in (folder.labels, folder.clips, folder.training.history, folder.predictions, folder.model):
        file.write_text(f"{file.name} of many bytes")
    folder.write_record(**({"status": "done", "weights_sha256": "w", "files": seal(folder)} | record))
    return folder


class Executed(Exception):
    """What stands for the process that would train."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        super().__init__()
        self.arguments, self.environment, self.directory = arguments, environment, Path.cwd()


@pytest.fixture
def no_exec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that goes over into another one raises Executed instead."""

    def execve(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        raise Executed(arguments, environment)

    monkeypatch.chdir(tmp_path)  # and back afterwards
    monkeypatch.setattr(os, "execve", execve)


def started(folder: RunFolder, out: Path | None = None, data: Path | None = None) -> Executed:
    with pytest.raises(Executed) as caught:
        restart.restart(folder.path, out=out, data=data, anyway=False)
    return caught.value


@pytest.mark.usefixtures("no_exec")
def test_starts_a_process_like_the_runs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run")
    sessions = json.loads(folder.environment.read_text())
    sessions["sessions"][0] |= {"variables": {"OMP_NUM_THREADS": "3"}, "working_directory": str(folder.data)}
    folder.environment.write_text(json.dumps(sessions))
    folder.write_record(files=seal(folder))
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("PYTHONPATH", "/mine")

    child = started(folder, data=Path("elsewhere"))

    assert child.arguments[-3:] == [
        str(folder.path), str(folder.reproductions / "1"), f"--data={tmp_path / 'elsewhere'}"
    ]  # fmt: skip
    assert child.directory == folder.data
    assert child.environment["OMP_NUM_THREADS"] == "3"
    assert "TF_ENABLE_ONEDNN_OPTS" not in child.environment
    assert child.environment["PYTHONPATH"] == f"{ROOT}:/mine"
    assert child.environment["PATH"] == os.environ["PATH"]


@pytest.mark.usefixtures("no_exec")
def test_goes_on_where_it_stopped_and_then_takes_a_new_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for number in (1, 2):
        for _ in range(2):
            assert started(folder).arguments[-1] == str(folder.reproductions / str(number))
        (folder.reproductions / str(number) / restart.RESULT).write_text("{}")
    (folder.reproductions / "notes").mkdir()

    moved = RunFolder(folder.path.rename(tmp_path / "moved"))
    assert started(moved).arguments[-1] == str(moved.reproductions / "3")
    out = tmp_path / "out"
    for _ in range(2):
        assert started(moved, out=out).arguments[-1] == str(out)
    assert json.loads((out / restart.MARKER).read_text())["run"] == str(moved.path)


@pytest.mark.usefixtures("no_exec")
def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", started="another time")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("mine")
    started(other, out=tmp_path / "others")
    started(folder, out=tmp_path / "done")
    (tmp_path / "done" / restart.RESULT).write_text("{}")
    started(folder, out=tmp_path / "damaged")
    (tmp_path / "damaged" / restart.MARKER).write_text("{")
    for out, message in {
        tmp_path / "full": "is not empty; give a new folder",
        tmp_path / "full" / "precious": "is a file; give a new folder",
        tmp_path / "others": "repeats another run",
        tmp_path / "done": "holds a repetition that is done",
        tmp_path / "damaged": "is missing or damaged: give another folder",
        folder.path: "is not empty",
    }.items():
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(KwsError, match=message):
            restart.restart(folder.path, out=out, data=None, anyway=False)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def damage(folder: RunFolder, name: str) -> None:
    file = folder.path / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def without_key(folder: RunFolder, key: str) -> None:
    config = folder.read_config()
    del config[key]
    folder.write_config(config)
    folder.write_record(files=seal(folder))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: shutil.rmtree(folder.path), "holds no run: give the folder of a run"),
        (lambda folder: folder.record.unlink(), "holds no run: give the folder of a run"),
        (lambda folder: damage(folder, "run.json"), "run.json' is missing or damaged"),
        (lambda folder: folder.write_record(schema_version=9), f"has schema version 9, not {SCHEMA_VERSION}"),
        (lambda folder: folder.write_record(status="training"), "holds no finished run"),
        (lambda folder: folder.write_record(files=None), "by a version that did not record what repeating it needs"),
        (lambda folder: folder.environment.unlink(), "environment.json' is missing: the run's folder is incomplete"),
        (lambda folder: damage(folder, "environment.json"), "environment.json' is truncated or was changed"),
        (lambda folder: damage(folder, "model.keras"), "model.keras' is truncated or was changed since the run"),
        (lambda folder: damage(folder, "data/clips.parquet"), "clips.parquet' is truncated or was changed"),
        (lambda folder: folder.labels.write_text("yes\n"), "labels.txt' is truncated or was changed"),
        (lambda folder: damage(folder, "config.yaml"), "config.yaml' was changed since the run"),
        (lambda folder: without_key(folder, "clip_ms"), "config.yaml' has no clip_ms: the run is of another version"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], harm: Any, message: str
) -> None:
    folder = write_run(tmp_path / "run")
    assert finished_record(folder)["weights_sha256"] == "w"
    harm(folder)
    monkeypatch.setattr("sys.argv", ["kws", "reproduce", str(folder.path)])

    with pytest.raises(SystemExit) as caught:
        cli.main()

    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert not folder.reproductions.exists()


def test_the_run_that_it_started_from_must_be_as_it_was(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "origin")
    experiment = Experiment(compose([f"start_from={folder.path}"]))
    sha256 = seal(folder)["model.keras"]

    record = {"started_from_sha256": sha256}
    assert origin_change(experiment, record) is None
    folder.model.write_text("another")
    assert "is not the file that the run started from" in str(origin_change(experiment, record))
    folder.model.unlink()
    with pytest.raises(KwsError, match=r"start_from: .* holds no run"):
        origin_change(experiment, record)


WORDS = ("yes", "no", "bed")
MIX = {
    "_target_": "kws_data.augment.audiomentations.stage.Audiomentations", "_recursive_": False,
    "transform": {"_target_": "audiomentations.Compose", "transforms": [
        {"_target_": "audiomentations.AddGaussianSNR", "min_snr_db": 5, "max_snr_db": 40, "p": 0.5},
        {"_target_": "audiomentations.BandPassFilter", "min_center_freq": 500, "max_center_freq": 2000, "p": 0.3},
    ]},
}  # fmt: skip


def call(run: Path, *arguments: str, status: int, limit_bytes: int | None = None) -> str:
    """What `kws reproduce` prints, in a process of its own that may write files of at most `limit_bytes`."""

    def limited() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    done = subprocess.run(
        [*KWS, str(run), *arguments], cwd="/", capture_output=True, text=True, timeout=300, preexec_fn=limited,
        env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


KWS = [sys.executable, "-m", "kws_experiments.cli.main", "reproduce"]


@pytest.fixture(scope="module")
def trained(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """(the folder that a run was started in, its command): on real clips of three words, with everything random."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "clips").mkdir()
    for name in (*WORDS, "_background_noise_"):
        shutil.copytree(real_data / name, folder / "clips" / name)
    for name in ("validation_list.txt", "testing_list.txt"):
        lines = [line for line in (real_data / name).read_text().splitlines() if line.split("/")[0] in WORDS]
        (folder / "clips" / name).write_text("\n".join(lines) + "\n")
    (folder / "conf" / "augment" / "waveform").mkdir(parents=True)
    stage = folder / "conf" / "augment" / "waveform" / "mix.yaml"
    stage.write_text(json.dumps({"mix": MIX}))
    command = ["--config-dir", str(folder / "conf"), "dataset=folder", "dataset.path=clips", "split=lists", *SMALL]
    command += ["task.words=[yes,no]", "+augment/waveform=mix", "model.dropout_rate=0.2", "trainer.epochs=null"]
    command += ["trainer.steps=60", "trainer.eval_every=20", "trainer.checkpoint_every=5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KWS_DATA", str(folder / "cache"))
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        train(folder, *command, "pipeline.threads=1", "+augment.waveform.mix.num_workers=0")
        yield folder, command


@pytest.fixture
def run(trained: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run's folder, and the cache that it used."""
    folder, _ = trained
    monkeypatch.setenv("KWS_DATA", str(folder / "cache"))
    return next(folder.glob("runs/train/*/run.json")).parent


@pytest.mark.slow
def test_a_run_keeps_what_its_numbers_depend_on(run: Path) -> None:
    (session,) = json.loads((run / "environment.json").read_text())["sessions"]
    assert session["packages"]["tensorflow"] == version("tensorflow")
    assert session["processor"]["flags"]
    assert session["settings"] == {"deterministic": True, "intra_op_threads": 1, "inter_op_threads": 1}
    assert "trainer.steps=60" in session["overrides"]
    assert session["working_directory"] == str(run.parent.parent.parent)
    clips = pd.read_parquet(run / "data" / "clips.parquet")
    predictions = pd.read_parquet(run / "predictions.parquet")
    assert clips.loc[clips["split"] == "testing", "path"].tolist() == predictions["clip"].tolist()
    assert set(json.loads((run / "run.json").read_text())["files"]) >= {"config.yaml", "model.keras"}


@pytest.mark.slow
def test_threads_and_workers_change_no_bit(trained: tuple[Path, list[str]], run: Path) -> None:
    folder, command = trained
    train(folder, *command, "name=threads", "pipeline.threads=3", "+augment.waveform.mix.num_workers=2")

    other = next(folder.glob("runs/threads/*/run.json")).parent
    assert (other / "predictions.parquet").read_bytes() == (run / "predictions.parquet").read_bytes()
    records = [json.loads((each / "run.json").read_text()) for each in (other, run)]
    assert records[0]["weights_sha256"] == records[1]["weights_sha256"]
    assert records[0]["fingerprint"] == records[1]["fingerprint"]


@pytest.mark.slow
def test_a_full_disk_and_ctrl_c_leave_a_repetition_bit_for_bit(trained: tuple[Path, list[str]], run: Path) -> None:
    folder, _ = trained
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    out = run / "reproductions" / "1"

    message = call(run, status=2, limit_bytes=3000)  # too few for the table of clips, or a checkpoint
    assert message.splitlines()[-1].startswith("error: ")
    assert "too large" in message.splitlines()[-1]
    assert not [path for path in out.rglob("*") if ".tmp" in path.name]

    with subprocess.Popen(
        [*KWS, str(run)], cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as one:
        assert one.stdout is not None
        next(line for line in one.stdout if "validation loss" in line)
        one.send_signal(signal.SIGINT)
        rest = one.communicate(timeout=100)[0]
    assert one.returncode == 130, rest
    assert rest.splitlines()[-1] == "stopped; the same command goes on from here"

    (folder / "clips").rename(folder / "moved")
    try:
        assert f"are gone from '{folder / 'clips'}': give --data DIR" in call(run, status=2)
        message = call(run, f"--data={folder / 'moved'}", status=0)
    finally:
        (folder / "moved").rename(folder / "clips")

    assert "resuming at step" in message
    assert "bit for bit: the same weights and predictions" in message
    result = json.loads((out / "reproduction.json").read_text())
    assert result["bit_for_bit"]
    assert all(finding["same"] for finding in result["findings"])
    assert (out / "predictions.parquet").read_bytes() == (run / "predictions.parquet").read_bytes()
    assert (out / "config.yaml").read_bytes() == (run / "config.yaml").read_bytes()
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_a_changed_clip_is_refused_by_name_and_else_is_the_likely_cause(
    trained: tuple[Path, list[str]], run: Path, tmp_path: Path
) -> None:
    folder, _ = trained
    shutil.copytree(folder / "clips", tmp_path / "clips")
    clip = (
        pd.read_parquet(run / "data" / "clips.parquet").query("split == 'training' and word == 'yes'")["path"].iloc[0]
    )
    time.sleep(0.01)
    soundfile.write(tmp_path / "clips" / clip, tone(700), SAMPLE_RATE)

    message = call(run, "--data", str(tmp_path / "clips"), "--out", str(tmp_path / "out"), status=2)
    assert f"are not those of the run: 1 clip changed ({clip}); give --data DIR" in message.splitlines()[-1]

    message = call(run, "--data", str(tmp_path / "clips"), "--out", str(tmp_path / "out"), "--anyway", status=1)

    assert f"different, first in data: 1 clip changed ({clip})" in message
    assert f"likely cause: data: 1 clip changed ({clip})" in message
    result = json.loads((tmp_path / "out" / "reproduction.json").read_text())
    assert not result["bit_for_bit"]
    findings = {finding["what"]: finding for finding in result["findings"]}
    assert findings["history"]["detail"].startswith("first at step 20: ")
    assert findings["weights"]["detail"].startswith("first in ")
    assert "arrays differ, by at most" in findings["weights"]["detail"]
    assert findings["predictions"]["detail"].startswith("first for ")
    assert np.isfinite(pd.read_parquet(tmp_path / "out" / "predictions.parquet")["score_yes"]).all()
