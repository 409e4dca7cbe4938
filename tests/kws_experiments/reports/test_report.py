"""Reports from a run's folder, in this process: their contents, and the errors for damaged folders."""

from __future__ import annotations

import base64
import errno
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from typer.testing import CliRunner

from kws_data.errors import KwsError
from kws_data.text import printable
from kws_experiments.cli.main import app
from kws_experiments.config.command import Command, differences
from kws_experiments.config.compose import compose, compose_unresolved, fingerprint
from kws_experiments.evaluation import worst_clips
from kws_experiments.evaluation.files import EvaluationFiles
from kws_experiments.evaluation.metrics import evaluate
from kws_experiments.evaluation.worst_clips import KeptClip
from kws_experiments.plots.evaluations import alluvial
from kws_experiments.reports import players, tables
from kws_experiments.reports.html import breakable
from kws_experiments.reports.markdown import table_rows
from kws_experiments.reports.run_report import MOST_BYTES, write_run_report
from kws_experiments.runs.folder import RunFolder, write_text
from kws_experiments.train import write_report

RATE = 16000
OVERRIDES = ["experiment=small_data", "trainer.epochs=8", "model=tc_resnet8", "name=trial"]


def command(overrides: list[str]) -> Command:
    choices = dict(compose_unresolved(overrides, with_hydra=True).hydra.runtime.choices)
    return Command(overrides, {key: value for key, value in choices.items() if not key.startswith("hydra/")})


def make_run(
    path: Path,
    labels: tuple[str, ...] = ("_silence_", "_unknown_", "yes", "no", "up"),
    *,
    clips_per_label: int = 8,
    wrong: float = 0.4,
    rate: int = RATE,
    speaker: str = "0a1b2c3d",
    kept: int = 12,
) -> Path:
    """A finished run's folder, as training leaves it, of predictions drawn at random."""
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(len(labels)), clips_per_label)
    logits = generator.normal(0, 1, (len(truth), len(labels)))
    right = generator.random(len(truth)) >= wrong
    logits[np.arange(len(truth)), np.where(right, truth, (truth + 1) % len(labels))] += 4
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = np.array(labels, dtype=object)
    predictions = pd.DataFrame(
        {
            "clip": [f"{labels[label]}/{speaker}_nohash_{place}.wav" for place, label in enumerate(truth)],
            "offset": 0, "length": RATE, "word": names[truth], "folder": "",
            "level_db": generator.uniform(-40, 0, len(truth)),
            "speaker": [f"{speaker}{place % 4}" for place in range(len(truth))],
            "label": names[truth], "predicted": names[scores.argmax(axis=1)],
            **{f"score_{label}": scores[:, place] for place, label in enumerate(labels)},
        }
    )  # fmt: skip
    thresholds = {label: 0.5 for label in labels if label not in ("_silence_", "_unknown_")}
    metrics, found = evaluate(predictions, labels, thresholds)
    noise = pd.DataFrame(
        {"split": ["testing"] * 2, "snr_db": [10.0, 0.0], "clips": 9, "correct": [8, 3], "accuracy": [8 / 9, 3 / 9],
         "accuracy_low": [0.5, 0.1], "accuracy_high": [0.99, 0.6]}
    )  # fmt: skip
    in_noise = [{"split": row.split, "snr_db": row.snr_db, "accuracy": row.accuracy} for row in noise.itertuples()]
    audio = {"sample_rate": rate, "roots": {"": "/data/clips"}}
    result = {"split": "testing", **metrics, "accuracy_at_snr": in_noise, "audio": audio, "set_aside": 1}
    EvaluationFiles(path).write(result, {**found, "noise": noise})

    kept_rows = found["confidently_wrong"].head(kept)
    arrays: dict[str, np.ndarray] = {"sample_rate": np.array(rate), "clips": kept_rows["clip"].to_numpy(str)}
    for place in range(len(kept_rows)):
        arrays[f"samples_{place}"] = generator.integers(-9000, 9000, rate).astype(np.int16)
        arrays[f"features_{place}"] = generator.normal(size=(98, 40)).astype(np.float32)
    np.savez_compressed(path / worst_clips.FILE, **arrays)

    folder, config = RunFolder(path), compose(OVERRIDES)
    folder.write_config(config)
    asked = command(OVERRIDES)
    folder.write_record(
        status="done", fingerprint=fingerprint(config), data_fingerprint="0" * 12, data_licence="CC BY 4.0",
        data_citation=None, command={"overrides": asked.overrides, "choices": asked.choices, "config_dirs": []},
    )  # fmt: skip
    write_text(folder.labels, "\n".join(labels) + "\n")
    write_text(folder.thresholds, json.dumps({"thresholds": thresholds}))
    counts = pd.DataFrame({"training": 80, "validation": 10, "testing": 8}, index=pd.Index(labels, name="label"))
    write_text(folder.data / "label_counts.csv", counts.to_csv())
    catalog = pd.DataFrame({"word": [*labels] * 2, "split": ["training"] * len(labels) + ["testing"] * len(labels),
                            "clips": 40, "speakers": 4, "hours": 0.0111})  # fmt: skip
    write_text(folder.data / "catalog_summary.csv", catalog.to_csv(index=False))
    aside = pd.DataFrame(
        {"root": ["/data/clips"], "path": ["yes/<broken>.wav"], "split": ["training"], "error": ["no audio"]}
    )
    write_text(folder.data / "set_aside.csv", aside.to_csv(index=False))
    history = pd.DataFrame({"step": [10, 20, 30], "epoch": [1.0, 2.0, 3.0], "loss": [2.0, 1.0, 0.5],
                            "accuracy": [0.2, 0.5, 0.8], "val_loss": [2.0, np.nan, 0.7],
                            "val_accuracy": [0.3, 0.4, 0.7], "learning_rate": 0.1, "seconds": 1.0})  # fmt: skip
    write_text(folder.training.history, history.to_csv(index=False))
    cost = {
        "parameters": 65824, "trained": 65168, "features": [98, 40], "clip_samples": rate, "folded": 64840,
        "multiply_adds": 1520000, "float32_bytes": 259360, "int8_bytes": 65800, "model_file_bytes": 300000,
        "latency_ms": {"median": 1.25, "low": 1.0, "high": 2.0, "calls": 100},
        "threads": {"intra_op": 2, "inter_op": 1},
        "machine": {"processor": "A Processor", "cpus": 2, "system": "Linux x86_64"},
    }  # fmt: skip
    write_text(folder.cost, json.dumps(cost))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(
        tmp_path_factory.mktemp("runs") / "trial" / "0123456789ab",
        ("_silence_", "_unknown_", "yes", "$<i>no$_", "はい"),
        speaker="<b>&me</b>",
    )
    write_run_report(path)
    return path


def test_page_says_what_was_run_on_what_and_how_good_it_is(run: Path) -> None:
    html = (run / "report.html").read_text()
    metrics = json.loads((run / "metrics.json").read_text())

    assert f"{100 * metrics['accuracy']:.1f} %" in html
    headings = re.findall(r'<h2 id="(\w+)">', html)
    assert headings == ["configuration", "data", "training", "results", "errors", "cost", "repeat"]
    assert html.index("default of small_data") < html.index("The whole configuration")
    assert '<td class="text" data-value="trainer.epochs">' in html
    for said in ("1.52 M", "A Processor", "CC BY 4.0", "kws reproduce", "/data/clips", "no audio"):
        assert said in html
    assert "python train.py experiment=small_data trainer.epochs=8 model=tc_resnet8 name=trial" in html
    drawn = {path.stem for path in (run / "figures").glob("*.png")}
    assert drawn == {
        "training_curves", "confusion_matrix", "alluvial", "roc", "det", "calibration", "accuracy_against_noise",
        "accuracy_by_speaker", "accuracy_by_level", "worst_clips",
    }  # fmt: skip
    for picture in (run / "figures").glob("*.png"):
        assert min(Image.open(picture).size) > 300


def test_page_escapes_what_it_is_given(run: Path) -> None:
    html = (run / "report.html").read_text()

    assert "<b>&me" not in html
    assert "&lt;b&gt;&amp;me&lt;/b&gt;" in html
    assert "yes/&lt;broken&gt;.wav" in html
    assert "<i>" not in html
    assert html.count("$&lt;i&gt;no$_") > 10


def test_page_needs_nothing_from_outside(run: Path) -> None:
    html = (run / "report.html").read_text()

    addresses = re.findall(r'\s(?:src|href|xlink:href)="([^"]*)"', html)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"<(link|iframe|object)\b", html)
    ids = re.findall(r'\sid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)


def test_pictures_follow_the_theme(run: Path) -> None:
    html = (run / "report.html").read_text()

    pictures = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(pictures) > 12
    for picture in pictures:
        ElementTree.fromstring(picture)  # well-formed
        assert not re.search(r"stroke: #(000000|1f77b4|b0b0b0)", picture)
    variables = set(re.findall(r"var\((--[\w-]+)\)", html))
    assert variables <= set(re.findall(r"(--[\w-]+):", html))


def test_markdown_says_the_same(run: Path) -> None:
    text = (run / "report.md").read_text()

    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or []]
    pictures = [str(child.attrs["src"]) for child in inline if child.type == "image"]
    assert len(pictures) == 10
    assert all((run / picture).is_file() for picture in pictures)
    assert sum(token.type == "table_open" for token in tokens) == 11
    assert not [child for child in inline if child.type == "html_inline"]
    cells = {token.content for token in tokens if token.type == "inline"}
    assert "trainer.epochs" in {cell.replace("\\", "") for cell in cells}
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[1:] == [
        "Configuration", "Data", "Training", "Results", "Errors", "The most confidently wrong clips", "Cost",
        "How to repeat it",
    ]  # fmt: skip
    code = [token.content.strip() for token in tokens if token.type == "fence"]
    assert code[-1].startswith("python train.py")


@given(
    st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1).map(
        lambda text: printable(" ".join(text.split()))
    )
)
def test_markdown_cells_show_their_text(text: str) -> None:
    table = tables.table("title", [{"key": text}], {"key": "heading"})

    tokens = MarkdownIt("commonmark").enable("table").parse(table_rows(table))

    shown = ["".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"]
    assert shown[1] == text


def test_paths_may_be_broken_and_numbers_not() -> None:
    assert breakable("a_1/b.wav") == "a_<wbr>1/<wbr>b.<wbr>wav"
    assert breakable("11.75 to 20.09 ms") == "11.75 to 20.09 ms"


def test_links_in_tables() -> None:
    rows = [{"run": "a", "report": "a/report.html", "accuracy": 0.5}, {"run": "b|c"}]
    table = tables.table("t", rows, {"run": "run", "accuracy": ("accuracy", tables.percent)}, {"run": "report"})

    assert table_rows(table).splitlines()[2:] == ["| [a](<a/report.html>) | 50.0 % |", "| b\\|c | – |"]
    assert [[cell.value for cell in row] for row in table.rows] == [["a", "0.5"], ["b|c", ""]]


def test_page_stays_small_with_many_labels_and_clips(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", tuple(f"word{number:02d}" for number in range(37)), rate=48000)
    write_run_report(path)

    assert (path / "report.html").stat().st_size < MOST_BYTES
    assert (path / "report.html").read_text().count("<audio") > 5


def test_no_errors_no_costs_no_command_and_another_evaluation(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", ("yes", "no"), wrong=0.0)
    make_run(path / "evaluations" / "validation")
    other = make_run(path / "evaluations" / "my clips", wrong=1.0)
    heard = json.loads((other / "metrics.json").read_text()) | {"heard_in_training": 3}
    (other / "metrics.json").write_text(json.dumps(heard))
    for name in ("cost.json", worst_clips.FILE):  # as of an older version
        (path / name).unlink()
    record = json.loads((path / "run.json").read_text())
    del record["command"]
    (path / "run.json").write_text(json.dumps(record))
    metrics = json.loads((path / "metrics.json").read_text()) | {"split": "validation"}
    (path / "metrics.json").write_text(json.dumps(metrics))

    html = write_run_report(path).read_text()

    for said in (
        "Every clip is right",
        "Not measured",
        "The split leaves no clip for testing",
        'href="#evaluations"',
        "<h3>my clips</h3>",
        "The run was trained on 3 of these clips",
    ):
        assert said in html
    assert html.count("Accuracy in noise</caption>") == 3  # of the run itself, and of both evaluations
    assert (path / "report.md").read_text().count("was trained on 3 of these clips") == 1
    assert "<audio" not in html
    assert "python train.py" not in html
    assert (path / "figures" / "confusion_matrix_my_clips.png").is_file()


BROKEN = [
    "run.json", "config.yaml", "labels.txt", "thresholds.json", "metrics.json", "history.csv", "cost.json",
    "worst_clips.npz", "confidently_wrong.parquet", "detection.parquet", "data/label_counts.csv",
]  # fmt: skip


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("damaged") / "run")
    (path / "report.html").write_text("the old report")
    return path


@pytest.mark.parametrize("name", BROKEN)
def test_truncated_file_is_one_line_and_the_old_report_stays(damaged: Path, name: str) -> None:
    whole = (damaged / name).read_bytes()
    (damaged / name).write_bytes(whole[: min(20, len(whole) // 2)])
    try:
        with pytest.raises(KwsError) as caught:
            write_run_report(damaged)
    finally:
        (damaged / name).write_bytes(whole)

    assert "\n" not in str(caught.value)
    assert Path(name).name in str(caught.value)
    assert (damaged / "report.html").read_text() == "the old report"


def test_config_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    config = path / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 8", "epochs: 9"))

    with pytest.raises(KwsError, match=r"config\.yaml' is not what this run was trained with"):
        write_run_report(path)


def test_full_disk_leaves_the_old_report(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def no_room(path: Path, content: Any) -> int:
        if ".roc.png." in path.name:
            write(path, content[:100])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", no_room)

    with pytest.raises(OSError, match="No space left on device") as raised:
        write_run_report(damaged)
    assert raised.value.filename == str(damaged / "figures" / "roc.png")

    assert (damaged / "report.html").read_text() == "the old report"
    assert not list(damaged.rglob("*.tmp*"))
    assert not (damaged / "report.md").exists()


def test_report_that_fails_is_a_warning_after_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_report(tmp_path / "no run")

    (record,) = caplog.records
    command = f"`kws report '{tmp_path / 'no run'}'`"
    assert record.getMessage().startswith(f"the run is done, but not its report; {command} writes it ('")


def test_command_writes_into_another_folder(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "here")])

    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(tmp_path / "here" / "report.html")
    for name in ("report.html", "report.md", "figures/roc.png"):  # the same folder gives the same bytes
        assert (tmp_path / "here" / name).read_bytes() == (run / name).read_bytes()


def test_differences_are_of_groups_first_and_of_the_keys_asked_for() -> None:
    overrides = [*OVERRIDES, "+augment/waveform=reverb", "~augment.waveform.mixup.alpha", "evaluation.snr_db=[20,0]"]
    found = {row.key: (row.default, row.value) for row in differences(compose(overrides), command(overrides))}

    assert list(found)[:2] == ["augment/waveform", "model"]
    assert found == {
        "augment/waveform": ("not there", "reverb"),
        "model": ("bc_resnet_2", "tc_resnet8"),
        "augment.waveform.mixup.alpha": ("0.2", "not there"),
        "name": ("small_data", "trial"),
        "trainer.epochs": ("100", "8"),
        "evaluation.snr_db": ("[]", "[20, 0]"),
    }


def test_what_the_machine_decides_is_a_difference_only_where_asked_for() -> None:
    config = compose(["threads.intra_op=77"])

    assert differences(config, command([])) == []
    (found,) = differences(config, command(["threads.intra_op=77"]))
    assert (found.key, found.value) == ("threads.intra_op", "77")


def test_player_holds_the_clip() -> None:
    samples = np.arange(-8000, 8000, dtype=np.int16)
    player = players.player(KeptClip(samples, np.zeros((98, 40), np.float32), RATE), "yes → no", "a.wav")

    content = base64.b64decode(player.audio.removeprefix("data:audio/wav;base64,"))
    played, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    np.testing.assert_array_equal(played, samples)
    assert rate == RATE
    assert player.note == "a.wav, 1.00 s, peak 0.24"
    image = Image.open(io.BytesIO(base64.b64decode(player.features.removeprefix("data:image/png;base64,"))))
    assert image.size == (98, 40)


@given(st.lists(st.integers(-32768, 32767), max_size=2000))
def test_outlines_stay_in_their_box(values: list[int]) -> None:
    path = players.outline(np.array(values, np.int16))

    numbers = [float(number) for number in re.findall(r"[\d.-]+", path)]
    assert all(0 <= x <= players.WIDTH for x in numbers[::2])
    assert all(-0.5 <= y <= players.HEIGHT + 0.5 for y in numbers[1::2])


def test_alluvial_is_as_wide_as_there_are_clips() -> None:
    matrix = np.array([[5, 1, 0], [0, 0, 0], [2, 0, 7]])

    figure = alluvial(matrix, ["a", "b", "c"], "title")

    heights = sorted(np.ptp(patch.get_path().vertices[[0, -2], 1]) for patch in figure.axes[0].patches)
    np.testing.assert_allclose(heights, [1, 2, 5, 7])
