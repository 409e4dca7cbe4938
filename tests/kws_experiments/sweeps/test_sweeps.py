"""The record of a sweep, what its jobs share, and the search that goes on, without any training."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from kws_data.errors import KwsError
from kws_data.storage.parallel import available_cpus
from kws_experiments.config.compose import CONF, overrides_fingerprint, register_resolvers, resolved
from kws_experiments.config.exit import STATUS_STOPPED, one_line_errors
from kws_experiments.reports import sweep_summary
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.sweep_record import (
    DONE,
    FAILED,
    PRUNED,
    RUNNING,
    STOPPED,
    Job,
    SweepFolder,
    find_sweep,
    find_sweeps,
    read_sweep,
)  # fmt: skip
from kws_experiments.sweeps.callback import SweepCallback, _plan, end_of_sweep
from kws_experiments.sweeps.run_job import _outcome


def finished_run(path: Path, accuracy: float) -> Path:
    folder = RunFolder(path)
    folder.write_record(status="done", fingerprint=path.name)
    folder.metrics.write_text(json.dumps({"accuracy": accuracy, "validation_accuracy": accuracy - 0.1, "clips": 9}))
    return path


def begun(runs: Path, name: str = "aaa", swept: tuple[str, ...] = ("seed",)) -> SweepFolder:
    sweep = SweepFolder(runs / "sweeps" / name)
    sweep.begin(command="python train.py -m seed=1,2", overrides=["seed=1,2"], swept=list(swept), planned=2)
    return sweep


def test_a_sweep_is_read_as_it_was_written(tmp_path: Path) -> None:
    sweep = begun(tmp_path)
    sweep.write_job(Job(0, ["seed=1"], finished_run(tmp_path / "r1", 0.9), DONE, seconds=3.0))
    sweep.write_job(Job(1, ["seed=2"], tmp_path / "r2", FAILED, error="no memory"))
    sweep.end(FAILED)

    shutil.move(tmp_path, tmp_path.with_name("moved"))
    read = read_sweep(tmp_path.with_name("moved") / "sweeps" / "aaa")

    assert (read.status, read.planned, read.swept) == (FAILED, 2, ["seed"])
    one, two = read.jobs
    assert (one.status, one.accuracy, one.validation_accuracy, one.seconds) == (DONE, 0.9, 0.8, 3.0)
    assert (two.status, two.accuracy, two.error) == (FAILED, None, "no memory")
    assert one.folder == tmp_path.with_name("moved") / "r1"
    assert [run.values(read.swept) for run in read.jobs] == [{"seed": "1"}, {"seed": "2"}]


def test_a_job_is_as_its_runs_folder_says(tmp_path: Path) -> None:
    sweep = begun(tmp_path)
    sweep.write_job(Job(0, ["seed=1"], finished_run(tmp_path / "later", 0.5), FAILED, error="was busy"))
    sweep.write_job(Job(1, ["seed=2"], finished_run(tmp_path / "gone", 0.5), DONE))
    shutil.rmtree(tmp_path / "gone")
    sweep.write_job(Job(2, ["seed=3"], finished_run(tmp_path / "torn", 0.5), DONE))
    (tmp_path / "torn" / "metrics.json").write_text('{"accuracy": 0.')
    sweep.write_job(Job(3, ["seed=4"], finished_run(tmp_path / "old", 0.5), DONE))
    (tmp_path / "old" / "run.json").write_text('{"schema_version": 99, "status": "done"}')

    later, gone, torn, old = sweep.read_jobs()

    assert (later.status, later.error, later.accuracy) == (DONE, None, 0.5)
    assert (gone.status, gone.error) == (FAILED, f"'{tmp_path / 'gone'}' holds no finished run any more")
    assert torn.status == old.status == FAILED
    assert torn.error is not None
    assert "metrics.json' is missing or damaged" in torn.error
    assert old.error is not None
    assert "schema version 99" in old.error


@pytest.mark.parametrize("content", ["", "[]", '{"number": 1}', '{"number": "x", "overrides": 3, "folder": null}'])
def test_a_damaged_record_of_a_job_is_a_failed_job(tmp_path: Path, content: str) -> None:
    sweep = begun(tmp_path)
    sweep.write_job(Job(0, ["seed=1"], finished_run(tmp_path / "r1", 0.9), DONE))
    (sweep.jobs / "0001.json").write_text(content)

    whole, damaged = read_sweep(sweep.path).jobs

    assert (whole.status, damaged.number, damaged.status) == (DONE, 1, FAILED)
    assert "0001.json' is missing or damaged" in str(damaged.error)


def test_a_run_json_that_is_a_folder_is_a_failed_job(tmp_path: Path) -> None:
    sweep = begun(tmp_path)
    sweep.write_job(Job(0, ["seed=1"], finished_run(tmp_path / "r1", 0.9), DONE))
    (tmp_path / "r1" / "run.json").unlink()
    (tmp_path / "r1" / "run.json").mkdir()
    (job,) = read_sweep(sweep.path).jobs
    assert job.status == FAILED
    assert "run.json' is missing or damaged" in str(job.error)


def test_a_sweep_in_which_no_job_began_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = finished_run(tmp_path / "runs" / "other" / "r1", 0.5)
    for jobs in (0, 1):
        callback = SweepCallback()
        callback.sweep = begun(tmp_path / "runs" / "train")
        callback._hold(callback.sweep)
        if jobs:
            callback.sweep.write_job(Job(0, ["seed=1"], None, FAILED, error="seed: wrong"))
        monkeypatch.setattr(SweepCallback, "current", callback)
        with pytest.raises(KwsError), end_of_sweep():
            raise KwsError("no such model")
        assert (tmp_path / "runs" / "train").exists() == bool(jobs)
        assert (callback.sweep.path / "sweep.json").exists() == bool(jobs)
    assert other.is_dir()


def ended_by(error: BaseException) -> int | str | None:
    """The exit status of `train.py`, where this error ends it."""
    with pytest.raises(SystemExit) as caught, one_line_errors(), end_of_sweep():
        raise error
    return caught.value.code


def test_an_error_outside_of_a_sweep_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SweepCallback, "current", None)
    SweepCallback().on_job_start(OmegaConf.create())  # as Hydra calls it in a single run
    with pytest.raises(ZeroDivisionError), one_line_errors(), end_of_sweep():
        raise ZeroDivisionError
    assert ended_by(KeyboardInterrupt()) == 130


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RuntimeError("a worker\nis gone"), 1, "error: RuntimeError: a worker is gone\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_of_the_launcher_leaves_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: BaseException, status: int, line: str,
) -> None:  # fmt: skip
    callback = SweepCallback()
    callback.sweep = begun(tmp_path)
    callback.sweep.write_job(Job(0, ["seed=1"], finished_run(tmp_path / "r1", 0.9), DONE))
    monkeypatch.setattr(SweepCallback, "current", callback)

    assert ended_by(error) == status

    printed = capsys.readouterr()
    assert printed.err == line
    assert "1 of 2 jobs are done" in printed.out
    assert read_sweep(callback.sweep.path).status == STOPPED


def test_a_workers_copy_of_the_callback_does_not_hold_the_sweep(tmp_path: Path) -> None:
    callback = SweepCallback()
    callback.sweep = begun(tmp_path)
    callback._hold(callback.sweep)
    copied = pickle.loads(pickle.dumps(callback))
    assert (copied.sweep, copied.process, copied._lock) == (callback.sweep, callback.process, None)
    assert not copied.in_worker
    del copied
    with pytest.raises(KwsError, match="another process runs this very sweep"):
        SweepCallback()._hold(callback.sweep)


def test_a_killed_sweep_counts_as_stopped_and_a_running_one_as_running(tmp_path: Path) -> None:
    sweep = begun(tmp_path)
    sweep.write_job(Job(0, ["seed=1"], tmp_path / "r1", RUNNING))

    with sweep.lock():
        assert read_sweep(sweep.path).jobs[0].status == RUNNING
    read = read_sweep(sweep.path)
    assert (read.status, read.jobs[0].status) == (STOPPED, STOPPED)


def test_of_several_sweeps_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(KwsError, match="holds no sweep"):
        find_sweep(tmp_path)
    one = begun(tmp_path / "runs" / "train", "aaa")
    assert find_sweep(tmp_path).path == find_sweep(one.path).path == one.path
    two = begun(tmp_path / "runs" / "train", "bbb")
    assert find_sweeps(tmp_path) == [one.path, two.path]

    with pytest.raises(KwsError) as caught:
        find_sweep(tmp_path / "runs")

    assert str(caught.value) == f"'{tmp_path / 'runs'}' holds 2 sweeps: give one of {one.path}, {two.path}"
    assert find_sweep(two.path).path == two.path


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1, "status": "done"}', '{"schema_version": 2}'])
def test_a_damaged_record_is_one_line(tmp_path: Path, text: str) -> None:
    sweep = begun(tmp_path)
    sweep.record.write_text(text)

    with pytest.raises(KwsError) as caught:
        read_sweep(sweep.path)

    assert str(sweep.path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_table_tells_of_results_and_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = begun(tmp_path, swept=("seed", "optimizer.learning_rate"))
    rate = "optimizer.learning_rate=0.0031234567"
    sweep.write_job(Job(0, ["seed=1", rate], finished_run(tmp_path / "r1", 0.914), DONE, seconds=61.4))
    sweep.write_job(Job(1, ["seed=2", rate], None, FAILED, error="dataset.path: Missing mandatory value"))
    sweep.end(FAILED)

    sweep_summary.show(read_sweep(sweep.path))

    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert rows == [
        ["0", "1", "0.003123", "81.4%", "91.4%", "61", "r1", "done"],
        ["1", "2", "0.003123", "–", "–", "–", "–", "failed"],
    ]
    assert "job 1 failed: dataset.path: Missing mandatory value" in lines
    assert "1 of 2 jobs are done" in lines


def test_a_pruned_job_is_neither_failed_nor_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = SweepCallback()
    callback.sweep = sweep = begun(tmp_path)
    sweep.write_job(Job(0, ["seed=1"], finished_run(tmp_path / "r1", 0.9), DONE))
    RunFolder(tmp_path / "r2").write_record(status="pruned")
    sweep.write_job(Job(1, ["seed=2"], tmp_path / "r2", PRUNED))

    assert callback.end() == 0

    printed = capsys.readouterr().out
    assert read_sweep(sweep.path).status == DONE
    assert "1 of 2 jobs are done, 1 were pruned" in printed
    assert "the same command does what is missing" not in printed


def test_the_same_overrides_name_the_same_sweep() -> None:
    one = overrides_fingerprint(["model=conv,res8", "seed=1,2", "name=x", "force=true"])
    assert one == overrides_fingerprint(["seed=1,2", "model=conv,res8"])
    assert one != overrides_fingerprint(["seed=1,2,3", "model=conv,res8"])


def composed(*overrides: str) -> dict[str, object]:
    """As a job of a sweep composes it."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["hydra.mode=MULTIRUN", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    try:
        return resolved(cfg)
    finally:
        HydraConfig.instance().cfg = None


@pytest.mark.parametrize(
    ("launcher", "threads"),
    [
        (["hydra/launcher=basic"], available_cpus()),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], max(1, available_cpus() // 2)),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=-1"], 1),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=1000"], 1),
        (["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=7"], 7),
        (["sweep=slurm"], 4),
        (["hydra/launcher=ray"], 1),
        (["hydra/launcher=ray", "hydra.launcher.cpus_per_task=7"], 7),
    ],
)
def test_jobs_at_once_share_the_threads(launcher: list[str], threads: int) -> None:
    if "submitit" in launcher[0] or "slurm" in launcher[0]:
        pytest.importorskip("submitit")
    config = composed(*launcher)
    assert config["threads"]["intra_op"] == config["pipeline"]["threads"] == threads  # type: ignore[index]


def test_what_a_sweep_varies_and_how_many_jobs_that_makes() -> None:
    register_resolvers()
    overrides = ["model=conv,res8", "seed=range(1,4)", "task.words=[yes,no]", "+augment/waveform=gain"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", return_hydra_config=True)
        assert _plan(cfg, overrides) == (["model", "seed"], 6)
        assert _plan(cfg, ["seed=0"]) == ([], 1)


def test_a_search_takes_ranges_and_fixed_values_from_the_command_line() -> None:
    pytest.importorskip("optuna")
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["sweep=optuna", "hydra.sweeper.n_trials=7"], return_hydra_config=True)
        swept, planned = _plan(
            cfg, ["sweep=optuna", "trainer.ema_momentum=interval(0.9,0.99)", "augment.time_shift_ms=5"]
        )
    assert planned == 7
    assert swept == [
        "optimizer.learning_rate", "augment.background_volume", "augment.background_frequency", "trainer.ema_momentum"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "printed", "outcome"),
    [
        (0, "fine\n", (DONE, None)),
        (STATUS_STOPPED, "stopped\n", (STOPPED, None)),
        (1, "[2026-01-01 00:00:00,000][train][ERROR] - trainer.steps must be 1 [or more]\n", None),
        (1, "Traceback\n  File\nValueError: bad [shape] - of it\n\n", (FAILED, "ValueError: bad [shape] - of it")),
        (-6, "LLVM ERROR: oops\n", (FAILED, "ended by SIGABRT; its last words: LLVM ERROR: oops")),
        (-9, "", (FAILED, "ended by SIGKILL")),
        (-40, "", (FAILED, "ended by signal 40")),
        (3, "", (FAILED, "ended with status 3")),
    ],
)
def test_how_a_child_ended(code: int, printed: str, outcome: tuple[str, str | None] | None) -> None:
    assert _outcome(code, printed) == (outcome or (FAILED, "trainer.steps must be 1 [or more]"))
