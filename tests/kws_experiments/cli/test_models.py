"""`kws models`: the table, what chooses its rows and columns, and the manual's copy of it."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kws_experiments.cli import main as cli
from kws_experiments.config.compose import CONF, compose
from kws_experiments.reports import model_table
from kws_experiments.reports.model_table import BEGIN, END, HEADINGS, Row, choose, count, names
from kws_experiments.reports.published import PUBLISHED, Published

PAGE = CONF.parent / "docs" / "models.md"


@pytest.fixture
def kws_models(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Runs the command: (exit status, standard output, standard error, log)."""

    def call(*arguments: object) -> tuple[int, str, str, str]:
        monkeypatch.setattr("sys.argv", ["kws", "models", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "250")
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err, caplog.text

    return call


def records(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_model_is_built_for_its_papers_features_and_task(kws_models) -> None:
    status, out, _, _ = kws_models("--csv", "ds_cnn_s", "simple_audio")
    assert status == 0
    ds_cnn_s, simple_audio = records(out)
    assert ds_cnn_s == {
        "model": "ds_cnn_s", "features": "mfcc_hello_edge", "frames": "49", "bins": "10", "labels": "12",
        "parameters": "24332", "trained": "23180", "folded": "22604", "multiply_adds": "2656768",
        "float32_bytes": str(4 * 22604), "int8_bytes": str(22604 + 3 * (9 * 64 + 12)),
        "published_parameters": "22,604", "published_counted": "folded", "published_accuracy": "94.4 % v0.01",
    }  # fmt: skip
    assert (simple_audio["frames"], simple_audio["bins"], simple_audio["labels"]) == ("124", "129", "8")


def test_overrides_choose_features_task_and_the_models_own_keys(kws_models) -> None:
    _, out, _, _ = kws_models("ds_cnn_s", "features=mfcc", "task=words35", "model.filters=32", "--csv")
    (row,) = records(out)
    assert (row["features"], row["frames"], row["bins"], row["labels"]) == ("mfcc", "98", "40", "35")
    kernels = 32 * (10 * 4) + 4 * (32 * 9 + 32 * 32) + 32 * 35
    assert int(row["folded"]) == kernels + 9 * 32 + 35


def test_keys_of_the_features_and_the_task_change_those_of_the_paper(kws_models) -> None:
    _, out, _, _ = kws_models("ds_cnn_s", "features.num_coefficients=12", "task.unknown=false", "--csv")
    (row,) = records(out)
    assert (row["features"], row["frames"], row["bins"], row["labels"]) == ("mfcc_hello_edge", "49", "12", "11")


def test_clips_of_any_length_count_as_a_second(kws_models) -> None:
    _, out, _, log = kws_models("ds_cnn_s", "conv", "clip_ms=null", "--csv")
    ds_cnn_s, conv = records(out)
    assert ds_cnn_s["multiply_adds"] == "2656768"
    assert conv["multiply_adds"] == conv["parameters"] == ""
    assert "conv: model.input_shape: conv flattens its feature map" in log


def test_the_printed_table_holds_a_line_for_each_model(kws_models) -> None:
    status, out, _, _ = kws_models("ds_cnn_s", "single_fc")
    assert status == 0
    lines = [line for line in out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert cells[0] == [
        "ds_cnn_s", "mfcc_hello_edge 49 × 10", "12", "24,332", "23,180", "22,604", "2.66 M", "90.4 kB", "24.4 kB",
        "22,604 folded", "94.4 % v0.01",
    ]  # fmt: skip
    assert cells[1][-1] == "–"


def test_a_model_of_ones_own_is_in_the_table(kws_models, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "my_net.yaml").write_text("_target_: kws_models.ds_cnn.ds_cnn\nfilters: 8\n")

    assert names(tmp_path) == [*names(), "my_net"]
    status, out, _, _ = kws_models("my_net", "--config-dir", tmp_path, "--markdown")

    assert status == 0
    heading, rule, row = out.splitlines()
    assert heading == f"| {' | '.join(HEADINGS)} |"
    assert set(rule) <= set("| -:")
    assert row.startswith("| my_net | log_mel 98 × 40 | 12 | ")
    assert row.endswith(" | – | – |")


def test_a_model_that_does_not_fit_gets_dashes_and_a_reason(kws_models) -> None:
    status, out, _, log = kws_models("cnn4", "ds_cnn_s", "features=mfcc_hello_edge", "--markdown")
    assert status == 0
    assert "| cnn4 | mfcc_hello_edge 49 × 10 | 30 | – | – | – | – | – | – | 2,226,846 |" in out
    assert "| ds_cnn_s | mfcc_hello_edge 49 × 10 | 12 | 24,332 |" in out
    assert "cnn4: model.input_shape: cnn4 needs at least 46 frames x 46 bins" in log


def test_update_puts_the_table_between_the_markers(kws_models, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nan old table\n{END}\nafter\n", encoding="utf-8")
    table = kws_models("single_fc", "--markdown")[1]

    for _ in range(2):
        assert kws_models("single_fc", "--update", page)[0] == 0
        assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\n{table}{END}\nafter\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["luck"], "error: no model 'luck'; there are bc_resnet_1, "),
        (["conv", "features=luck"], "luck"),
        (["conv", "model.luck=1"], "luck"),
        (["conv", "task=custom"], "error: task.words: null takes the words of the data set"),
        (["conv", "features.window_ms=-1"], "error: features.window_ms"),
        (["conv", "--markdown", "--csv"], "error: --markdown, --csv, --update: choose one"),
        (["conv", "--config-dir", "nowhere"], "error: --config-dir: no folder 'nowhere'"),
        (["single_fc", "--update", "page.md"], f"error: --update: 'page.md' has no lines '{BEGIN}' and '{END}'"),
        (["single_fc", "--update", "nowhere.md"], "error: nowhere.md: No such file"),
    ],
)
def test_mistakes_are_one_line(kws_models, arguments: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.md").write_text("no markers")

    status, _, err, _ = kws_models(*arguments)

    assert status == 1
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


def test_help_does_without_tensorflow() -> None:
    script = (
        "import sys; from kws_experiments import cli\n"
        "sys.argv = ['kws', 'models', '--help']\n"
        "try: cli.main()\n"
        "finally: assert not {'tensorflow', 'keras', 'hydra', 'pandas'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=CONF.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--config-dir" in result.stdout


# --- what the papers report


@pytest.mark.parametrize(("model", "published"), PUBLISHED.items(), ids=PUBLISHED)
def test_published_figures_are_of_models_features_and_tasks_that_there_are(model: str, published: Published) -> None:
    for group, choice in (("model", model), ("features", published.features), ("task", published.task)):
        assert (CONF / group / f"{choice}.yaml").is_file(), choice
    assert published.counted in (("parameters", "trained", "folded") if published.parameters else ("",))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Of all models."""
    return [count(choose(name)) for name in names()]


@pytest.mark.slow
def test_our_counts_are_the_published_ones(rows: list[Row]) -> None:
    for row in rows:
        assert row.error == ""
        assert row.cost is not None
        counts = {"parameters": row.parameters, "trained": row.trained, "folded": row.cost.weights}
        if match := re.fullmatch(r"([\d.]+) k", row.published.parameters):
            decimals = len(match.group(1).partition(".")[2])
            assert round(counts[row.published.counted] / 1000, decimals) == float(match.group(1)), row.model
        elif row.published.parameters:
            assert f"{counts[row.published.counted]:,}" == row.published.parameters, row.model


@pytest.mark.slow
def test_the_manuals_table_is_what_the_command_prints(rows: list[Row]) -> None:
    table = PAGE.read_text(encoding="utf-8").partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]
    assert table == model_table.as_markdown(rows), "refresh it: kws models --update docs/models.md"


@pytest.mark.parametrize(
    "experiment", sorted({path.stem for path in (CONF / "experiment").glob("*.yaml")} - {"small_data", "r_30words"})
)
def test_a_recipe_computes_the_features_of_its_models_source(experiment: str) -> None:
    """Those that the table counts the model for; `small_data` is this project's own, and `r_30words` as its port."""
    recipe = compose([f"experiment={experiment}", "dataset=folder", "dataset.path=/nowhere"])
    model = re.search(r"override /model: (\w+)", (CONF / "experiment" / f"{experiment}.yaml").read_text())
    assert model is not None
    assert recipe["features"] == choose(model[1]).config["features"]
