"""The report of a sweep, on a sweep's folder made by hand: four settings of known accuracies, two seeds each."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kws_data.errors import KwsError
from kws_experiments.reports.sweep_contents import gather
from kws_experiments.reports.sweep_report import CSV_FILES, write_sweep_report
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.sweep_record import DONE, FAILED, PRUNED, Job, SweepFolder, find_sweep

MODELS, FEATURES, SEEDS = ("conv", "<b>net</b>"), ("mfcc", "log_mel"), (1, 2)
ACCURACY = {
    ("conv", "mfcc"): 0.6,
    ("conv", "log_mel"): 0.7,
    ("<b>net</b>", "mfcc"): 0.9,
    ("<b>net</b>", "log_mel"): 0.9,
}
CLIPS = 400


def write_run(folder: RunFolder, accuracy: float, shift: int, parameters: int) -> None:
    folder.path.mkdir(parents=True)
    correct = np.roll(np.arange(CLIPS) < accuracy * CLIPS, shift)
    table = pd.DataFrame(
        {
            "clip": [f"yes/{clip:03}.wav" for clip in range(CLIPS)], "offset": 0,
            "speaker": [f"s{clip // 5}" for clip in range(CLIPS)], "label": "yes",
            "predicted": np.where(correct, "yes", "no"),
        }
    )  # fmt: skip
    table.to_parquet(folder.predictions)
    metrics = {"accuracy": accuracy, "validation_accuracy": accuracy + 0.01, "macro_f1": accuracy}
    folder.metrics.write_text(json.dumps(metrics))
    cost = {
        "parameters": parameters, "multiply_adds": 100 * parameters, "latency_ms": {"median": parameters / 1e4},
        "machine": {"processor": "A Processor"}, "threads": {"intra_op": 1},
    }  # fmt: skip
    folder.cost.write_text(json.dumps(cost))
    folder.write_record(status="done")


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    """Eight jobs that are done, and one that failed."""
    base = tmp_path / "runs" / "demo"
    folder = SweepFolder(base / "sweeps" / "0123456789ab")
    folder.begin(
        command="python train.py -m model=conv,net", overrides=[], swept=["model", "features", "seed"], planned=9,
        launcher="basic", sweeper="basic",
    )  # fmt: skip
    for number, (model, features, seed) in enumerate(itertools.product(MODELS, FEATURES, SEEDS)):
        run = RunFolder(base / f"run{number}")
        write_run(run, ACCURACY[model, features], 3 * seed, 1000 if model == "conv" else 5000)
        overrides = [f"model={model}", f"features={features}", f"seed={seed}"]
        folder.write_job(Job(number, overrides, run.path, DONE, seconds=10.0))
    folder.write_job(Job(8, ["model=broken", "features=mfcc", "seed=1"], base / "gone", FAILED, error="model: no such"))
    folder.end(FAILED)
    return folder


def test_settings_are_compared_and_said_plainly(sweep: SweepFolder) -> None:
    contents = gather(find_sweep(sweep.path))

    assert contents.settings["runs"].tolist() == [2, 2, 2, 2]
    assert contents.settings.index[0] == "model=<b>net</b>, features=mfcc"
    assert contents.settings.loc["model=conv, features=log_mel", "parameters"] == 1000
    best, alike, better, much_better = contents.statements
    assert best.startswith("Best on validation: model=<b>net</b>, features=mfcc; 90.0 % of the test clips")
    assert best.endswith("standard deviation 0.0 points over 2 runs.")
    assert alike.startswith("It cannot be distinguished from model=<b>net</b>, features=log_mel: +0.0 points")
    assert better.startswith("It is better than model=conv, features=log_mel: +20.0 points")
    assert much_better.startswith("It is better than model=conv, features=mfcc: +30.0 points")
    effects = contents.effects.set_index(["key", "value"])["effect"]
    assert effects["model", "conv"] == pytest.approx(-0.125)
    assert effects["features", "log_mel"] == pytest.approx(0.025)
    assert "seed" not in effects.index.get_level_values("key")


def test_the_report_is_html_markdown_and_csv(sweep: SweepFolder) -> None:
    page = write_sweep_report(find_sweep(sweep.path))

    html, markdown = page.read_text(), (sweep.path / "report.md").read_text()
    for text in (html, markdown):
        assert "8 of 9 jobs are done" in text
        assert "python train.py -m model=conv,net" in text
    assert "<b>net</b>" not in html
    assert "&lt;b&gt;net&lt;/b&gt;" in html
    assert "model: no such" in html
    assert "mathdefault" not in html
    assert ">5,000<" in html
    assert page.stat().st_size < 1_000_000
    for picture in ("settings", "cost_parameters", "cost_multiply_adds", "cost_latency_ms", "effect_0", "effect_1"):
        assert (sweep.path / "report_pictures" / f"{picture}.png").stat().st_size > 5_000
        assert f"report_pictures/{picture}.png" in markdown
    tables = {name: pd.read_csv(sweep.path / f"{name}.csv") for name in CSV_FILES}
    assert len(tables["runs"]) == 8
    assert len(tables["comparisons"]) == 6
    assert tables["settings"]["mean"].tolist() == [0.9, 0.9, 0.7, 0.6]
    assert write_sweep_report(find_sweep(sweep.path)).read_text() == html


def test_pruned_jobs_are_listed_and_in_no_mean(sweep: SweepFolder) -> None:
    before = gather(find_sweep(sweep.path)).settings
    pruned = RunFolder(sweep.path.parent.parent / "pruned")
    pruned.write_record(status="pruned")
    sweep.write_job(Job(9, ["model=conv", "features=mfcc", "seed=3"], pruned.path, PRUNED))

    contents = gather(find_sweep(sweep.path))

    pd.testing.assert_frame_equal(contents.settings, before)
    assert [job.number for job in contents.unfinished] == [8]
    markdown = write_sweep_report(contents.sweep).with_name("report.md").read_text()
    assert "8 of 9 jobs are done, 1 were pruned" in markdown
    assert "Jobs that were pruned" in markdown
    assert "model=conv features=mfcc seed=3" in markdown


def test_runs_tested_on_other_clips_are_listed_but_not_compared(sweep: SweepFolder) -> None:
    run = RunFolder(sweep.path.parent.parent / "run0")
    table = pd.read_parquet(run.predictions)
    table.iloc[:-1].to_parquet(run.predictions)

    contents = gather(find_sweep(sweep.path))

    assert len(contents.comparisons) == 0
    assert "not tested on the same clips" in contents.statements[1]
    write_sweep_report(contents.sweep)


def test_a_damaged_run_is_one_line_and_an_older_report_stays(sweep: SweepFolder) -> None:
    page = write_sweep_report(find_sweep(sweep.path))
    before = page.read_bytes()
    run = RunFolder(sweep.path.parent.parent / "run3")
    run.predictions.write_bytes(run.predictions.read_bytes()[:100])

    with pytest.raises(KwsError, match=r"run3/predictions.parquet' is missing or damaged: start that run over"):
        write_sweep_report(find_sweep(sweep.path))

    assert page.read_bytes() == before


def test_a_sweep_without_a_finished_job_is_one_line(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweeps" / "0123456789ab")
    folder.begin(command="x", overrides=[], swept=["seed"], planned=2, launcher="basic", sweeper="basic")

    with pytest.raises(KwsError, match="none of its 0 jobs is done; the same sweep command does them"):
        write_sweep_report(find_sweep(folder.path))
