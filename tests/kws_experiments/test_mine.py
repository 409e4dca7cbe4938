"""`kws mine`: what is refused, and a whole run on small data that is trained further with what it heard wrongly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile

from kws_data.catalog import UNKNOWN
from kws_experiments.config.compose import compose
from kws_experiments.experiment.experiment import Experiment
from kws_experiments.experiment.further import with_mistakes
from tests.conftest import SAMPLE_RATE, MakeFolder
from tests.kws_experiments.conftest import Kws
from tests.kws_experiments.evaluation.test_evaluate_run import finished_folder
from tests.kws_experiments.test_add_word import kws_process
from tests.kws_experiments.test_train import SMALL, only_run, train


def test_the_configuration_is_the_runs_own_for_a_short_time(tmp_path: Path) -> None:
    before = compose(["experiment=small_data", "dataset=synthetic", "pretrain=words", "tune=streams"])
    before["trainer"]["distillation"] = 0.5  # as after `kws add-word`
    experiment = Experiment(with_mistakes(before, [str(tmp_path)], start_from="runs/x/1", epochs=20))
    experiment.check_without_tensorflow()
    experiment.check_folders()
    assert experiment.task.words == before["task"]["words"]
    assert [folder.name for folder in experiment.task.word_folders] == [tmp_path.name]
    assert (experiment.pretraining, experiment.start_from) == (None, "runs/x/1")
    assert experiment.settings.total_steps(7) == 140
    assert experiment.settings.distillation == 0
    assert experiment.learning_rate == pytest.approx(0.2 * 0.005)
    assert experiment.tuning is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--most", "0"], "--most must be"),
        (["--epochs", "0"], "--epochs must be"),
        (["--snr-db", "loud"], "--snr-db must be numbers with commas between, got 'loud'"),
        (["--minutes", "-1"], "--minutes must be"),
        (["--speech", "nowhere"], "--speech: no folder 'nowhere'"),
    ],
)
def test_mistakes_are_one_line(
    kws: Kws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished_folder(tmp_path / "run").path
    assert message in kws("mine", run, *arguments).error()
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_is_trained_further_with_what_it_hears_wrongly(make_folder: MakeFolder, tmp_path: Path) -> None:
    """It is one like any other, the same streams give the same windows, and it is not done twice."""
    root = make_folder(speakers=40)
    train(
        tmp_path, "dataset=folder", f"dataset.path={root}", *SMALL, "task.words=[yes,no]", "trainer.epochs=1", "name=a"
    )
    run = only_run(tmp_path)
    options = ["--minutes", 1, "--snr-db", 5, "--most", 7, "--epochs", 2]

    mined = kws_process(tmp_path, "mine", run, *options)

    assert mined.returncode == 0, mined.stderr
    (record,) = tmp_path.glob("runs/mine/*/run.json")
    new = record.parent
    (windows,) = tmp_path.glob("runs/mine/windows/*")
    assert f"kws tune {new.relative_to(tmp_path)}" in mined.stdout
    files = sorted(windows.rglob("*.wav"))
    assert {path.parent.name for path in files} <= {"yes", "no", UNKNOWN}
    assert 1 <= len(files) <= 14
    for path in files:
        samples, rate = soundfile.read(path)
        assert (len(samples), rate) == (SAMPLE_RATE, SAMPLE_RATE)
    examples = json.loads((new / "run.json").read_text())
    assert examples["status"] == "done"
    assert json.loads((new / "metrics.json").read_text())["split"] == "testing"
    assert f"start_from: {run}" in (new / "config.yaml").read_text()

    contents = {path.name: path.read_bytes() for path in files}
    shutil.rmtree(windows)
    again = kws_process(tmp_path, "mine", run, *options)
    assert again.returncode == 0, again.stderr
    assert "trained already" in again.stderr
    assert {path.name: path.read_bytes() for path in windows.rglob("*.wav")} == contents
