"""`kws models`: the table, what chooses its rows and columns, and the manual's copy of it."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
from pathlib import Path

import keras
import pytest

from kws_data.errors import KwsError
from kws_experiments.config.compose import CONF, compose, compose_unresolved, fingerprint, resolved
from kws_experiments.export import arena
from kws_experiments.reports import model_table
from kws_experiments.reports.model_table import BEGIN, END, HEADINGS, Row, choose, count, names, published_of
from tests.kws_experiments.conftest import Kws

PAGE = CONF.parent / "docs" / "models.md"


def records(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_model_is_built_for_its_papers_features_and_task(kws: Kws) -> None:
    result = kws("models", "--csv", "ds_cnn_s", "simple_audio")
    assert result.status == 0
    ds_cnn_s, simple_audio = records(result.out)
    assert ds_cnn_s == {
        "model": "ds_cnn_s", "features": "mfcc_hello_edge", "frames": "49", "bins": "10", "labels": "12",
        "parameters": "24332", "trained": "23180", "folded": "22604", "multiply_adds": "2656768",
        "float32_bytes": str(4 * 22604), "int8_bytes": str(22604 + 3 * (9 * 64 + 12)),
        "int8_activation_bytes": str(2 * 25 * 5 * 64), "int8_arena_bytes": "",
        "published_parameters": "22,604", "published_counted": "folded", "published_accuracy": "94.4 % v0.01",
    }  # fmt: skip
    assert (simple_audio["frames"], simple_audio["bins"], simple_audio["labels"]) == ("124", "129", "8")


def test_overrides_choose_features_task_and_the_models_own_keys(kws: Kws) -> None:
    result = kws("models", "ds_cnn_s", "features=mfcc", "task=words35", "model.filters=32", "--csv")
    (row,) = records(result.out)
    assert (row["features"], row["frames"], row["bins"], row["labels"]) == ("mfcc", "98", "40", "35")
    kernels = 32 * (10 * 4) + 4 * (32 * 9 + 32 * 32) + 32 * 35
    assert int(row["folded"]) == kernels + 9 * 32 + 35


def test_keys_of_the_features_and_the_task_change_those_of_the_paper(kws: Kws) -> None:
    result = kws("models", "ds_cnn_s", "features.num_coefficients=12", "task.unknown=false", "--csv")
    (row,) = records(result.out)
    assert (row["features"], row["frames"], row["bins"], row["labels"]) == ("mfcc_hello_edge", "49", "12", "11")


def test_clips_of_any_length_count_as_a_second(kws: Kws) -> None:
    result = kws("models", "ds_cnn_s", "conv", "clip_ms=null", "--csv")
    ds_cnn_s, conv = records(result.out)
    assert ds_cnn_s["multiply_adds"] == "2656768"
    assert conv["multiply_adds"] == conv["parameters"] == ""
    assert "conv: model.input_shape: conv flattens its feature map" in result.log


def test_the_printed_table_holds_a_line_for_each_model(kws: Kws) -> None:
    result = kws("models", "ds_cnn_s", "single_fc")
    assert result.status == 0
    lines = [line for line in result.out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert cells[0] == [
        "ds_cnn_s", "mfcc_hello_edge 49 × 10", "12", "24,332", "23,180", "22,604", "2.66 M", "90.4 kB", "24.4 kB",
        "16.0 kB", "22,604 folded", "94.4 % v0.01",
    ]  # fmt: skip
    assert cells[1][-1] == "–"


def test_a_model_of_ones_own_is_in_the_table(kws: Kws, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "my_net.yaml").write_text("_target_: kws_models.ds_cnn.ds_cnn\nfilters: 8\n")

    assert names(tmp_path) == [*names(), "my_net"]
    result = kws("models", "my_net", "--config-dir", tmp_path, "--markdown")

    assert result.status == 0
    heading, rule, row = result.out.splitlines()
    assert heading == f"| {' | '.join(HEADINGS)} |"
    assert set(rule) <= set("| -:")
    assert row.startswith("| my_net | log_mel 98 × 40 | 12 | ")
    assert row.endswith(" | – | – |")


def test_the_arena_is_measured_or_the_reason_is_said(kws: Kws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "my_net.yaml").write_text("_target_: kws_models.ds_cnn.ds_cnn\nfilters: 8\n")
    command = ("models", "my_net", "features=micro", "--config-dir", tmp_path, "--arena")

    (row,) = records(kws(*command, "--csv").out)
    if importlib.util.find_spec("tflite_micro") is not None:
        assert int(row["int8_activation_bytes"]) < int(row["int8_arena_bytes"]) < 100_000
    else:
        assert row["int8_arena_bytes"] == ""

    def fails(*args: object) -> None:
        raise KwsError("the converter ended with exit status 1")

    monkeypatch.setattr(arena, "convert_in_child", fails)
    result = kws(*command, "--markdown")
    heading, _, line = result.out.splitlines()
    assert heading.split(" | ")[9:11] == ["activations", "arena"]
    assert line.split(" | ")[10] == "not measured"
    assert "my_net: the converter ended with exit status 1" in result.log


def test_what_ones_own_model_reports_is_in_the_table(kws: Kws, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    own = "defaults: [ds_cnn_s, _self_]\nfilters: 8\npublished: {features: mfcc, task: words35, parameters: 99}\n"
    (tmp_path / "model" / "my_net.yaml").write_text(own)
    (row,) = records(kws("models", "my_net", "--config-dir", tmp_path, "--csv").out)
    assert (row["features"], row["frames"], row["bins"], row["labels"]) == ("mfcc", "98", "40", "35")
    assert (row["published_parameters"], row["published_accuracy"]) == ("99", "94.4 % v0.01")  # the latter of ds_cnn_s

    (tmp_path / "model" / "my_net.yaml").write_text(own.replace("parameters", "parmeters"))
    message = "model/my_net.yaml: published: must hold features, settings, task, parameters, counted, accuracy"
    assert message in kws("models", "my_net", "--config-dir", tmp_path).error()


def own_net(input_shape: tuple[int, int], num_labels: int) -> keras.Model:
    """With a layer that the count does not know."""
    inputs = keras.Input(input_shape)
    x = keras.layers.RNN(keras.layers.StackedRNNCells([keras.layers.GRUCell(2)]), name="stack")(inputs)
    return keras.Model(inputs, keras.layers.Dense(num_labels)(x))


def test_a_model_that_can_not_be_counted_still_has_its_parameters(kws: Kws, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "my_net.yaml").write_text(f"_target_: {__name__}.own_net\n")
    result = kws("models", "my_net", "--config-dir", tmp_path, "--markdown")
    assert result.status == 0
    parameters = 3 * 2 * (40 + 2 + 2) + 2 * 12 + 12
    assert f"| my_net | log_mel 98 × 40 | 12 | {parameters} | {parameters} | – | – | – | – |" in result.out
    assert "my_net: stack: layers of the type RNN are not counted" in result.log


def test_a_model_that_does_not_fit_gets_dashes_and_a_reason(kws: Kws) -> None:
    result = kws("models", "cnn4", "ds_cnn_s", "features=mfcc_hello_edge", "--markdown")
    assert result.status == 0
    assert "| cnn4 | mfcc_hello_edge 49 × 10 | 30 | – | – | – | – | – | – | – | 2,226,846 |" in result.out
    assert "| ds_cnn_s | mfcc_hello_edge 49 × 10 | 12 | 24,332 |" in result.out
    assert "cnn4: model.input_shape: cnn4 needs at least 46 frames x 46 bins" in result.log


def test_update_puts_the_table_between_the_markers(kws: Kws, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nan old table\n{END}\nafter\n", encoding="utf-8")
    table = kws("models", "single_fc", "--markdown").out

    for _ in range(2):
        assert kws("models", "single_fc", "--update", page).status == 0
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
def test_mistakes_are_one_line(kws: Kws, arguments: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.md").write_text("no markers")

    assert message in kws("models", *arguments).error()


# --- what the papers report


@pytest.mark.parametrize("model", names())
def test_published_values_are_of_features_and_tasks_that_there_are(model: str) -> None:
    published = published_of(model)
    for group, choice in (("features", published.features), ("task", published.task)):
        assert (CONF / group / f"{choice}.yaml").is_file(), choice
    assert published.counted in (("parameters", "trained", "folded") if published.parameters else ("",))


def test_published_values_are_no_part_of_a_training() -> None:
    cfg = compose_unresolved(["model=bc_resnet_8"])
    config = resolved(cfg)
    assert cfg.model.published.accuracy == "98.0 % v0.01, 98.7 % v0.02"
    assert list(config["model"]) == ["_target_", "tau", "sub_bands", "dropout_rate", "batch_norm_momentum"]
    assert config["model"]["tau"] == 8
    assert fingerprint(compose(["model=bc_resnet_8", "model.published.accuracy=0 %"])) == fingerprint(config)


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
    "experiment",
    sorted({path.stem for path in (CONF / "experiment").glob("*.yaml")} - {"small_data", "listening", "r_30words"}),
)
def test_a_recipe_computes_the_features_of_its_models_source(experiment: str) -> None:
    """Those that the table counts the model for; two are this project's own, and `r_30words` is as its port."""
    recipe = compose([f"experiment={experiment}", "dataset=folder", "dataset.path=/nowhere"])
    model = re.search(r"override /model: (\w+)", (CONF / "experiment" / f"{experiment}.yaml").read_text())
    assert model is not None
    assert recipe["features"] == choose(model[1]).experiment.part("features")
