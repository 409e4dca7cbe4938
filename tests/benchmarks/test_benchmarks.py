"""The benchmarks run from beginning to end and print every figure; how large the figures are is no test's business."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import check as check_benchmark
from benchmarks import full_size as full_size_benchmark
from benchmarks import pipeline as pipeline_benchmark
from benchmarks import scan as scan_benchmark
from benchmarks import training as training_benchmark
from kws_data.catalog import scan, usable
from kws_data.errors import KwsError
from kws_data.splits import SPLITS, hash_split
from kws_experiments.config.compose import compose
from tests.kws_experiments.test_train import only_run, train

MakeFolder = Callable[..., Path]

ROOT = Path(__file__).resolve().parents[2]
NUMBER = r"[\d,]+(?:\.\d+)?"


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # a process of its own: the thread counts can be set only once
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"COLUMNS": "120"}, capture_output=True, text=True)


def table_rows(output: str) -> list[list[str]]:
    """The cells of a printed table."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if line[:1] == "│"]


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def table(output: str) -> dict[str, list[float]]:
    """The numbers of each row, by the text in its first column."""
    return {name: [number(cell) for cell in cells] for name, *cells in table_rows(output)}


@pytest.mark.slow
def test_search_prints_what_each_search_took_and_found(make_folder: MakeFolder, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    arguments = [
        "search", "--trials=1", f"--folder={tmp_path}", "dataset=folder", f"dataset.path={make_folder()}",
        "task=custom", "task.words=[yes,no]", "task.unknown=true", "trainer.steps=4",
        "trainer.eval_every=2", "trainer.batch_size=16",
    ]  # fmt: skip
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    full, pruned = table_rows(result.stdout)[-2:]
    assert (full[0], pruned[0]) == ("full", "pruned")
    for _, minutes, ended, steps, best in (full, pruned):
        assert number(minutes) > 0
        assert (ended, steps) == ("0", "4")
        assert 0 < number(best.rstrip("%")) <= 100
    assert full[-1] == pruned[-1]  # the first trials are the same


@pytest.mark.slow
def test_pipeline_prints_rates_and_ratios_of_all_stages(make_folder: MakeFolder) -> None:
    result = run(
        "pipeline", "--data", str(make_folder()), "--augmentations=spec_cutout,speed,bc_resnet,original",
        "--batch-size=16", "--threads=2", "--repeats=1", "--seconds=0.01",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = table(result.stdout)
    assert list(rows) == [
        "read + decode files",
        "build the store",
        "store: gather",
        "store: shuffle + gather",
        "+ noise and shift",
        "+ features (mfcc)",
        "features alone (mfcc)",
        "speed",
        "spec_cutout",
        "augment=original",
        "augment=bc_resnet",
        "bare rFFT",
        "bare rFFT in pieces",
        "keras + STFT",
    ]
    for name, (rate, of_bare, of_keras) in rows.items():
        assert min(rate, of_bare, of_keras) > 0, name
    assert rows["bare rFFT"][1] == 1
    assert rows["keras + STFT"][2] == 1
    assert rows["augment=original"] == rows["+ features (mfcc)"]
    # of one round, the ratios are those of the printed rates but for rounding
    for name, (rate, of_bare, _) in rows.items():
        assert of_bare == pytest.approx(rate / rows["bare rFFT"][0], rel=0.05, abs=0.002), name
    reached = rf"of the bare rFFT: {NUMBER} \({NUMBER} to {NUMBER} over the rounds\); target:"
    assert re.search(rf"mfcc, augment=original, {reached} 0\.50, stretch 0\.60", result.stdout)
    assert re.search(rf"mfcc, augment=bc_resnet, {reached} 0\.45", result.stdout)
    assert re.search(r"\d+ cores .* TensorFlow 2\.\d+\.\d+, 2 threads, batches of 16, median of 1 round", result.stdout)


def test_every_augmentation_of_conf_can_be_measured_but_audiomentations() -> None:
    conf = ROOT / "conf" / "augment"
    stages = {path.stem for kind in ("waveform", "features") for path in (conf / kind).glob("*.yaml")}
    mixes = {f"augment={path.stem}" for path in conf.glob("*.yaml")}
    measured = pipeline_benchmark.known_augmentations()
    assert set(measured) == stages - {"audiomentations"} | mixes - {"augment=none"}
    for name, overrides in measured.items():
        chosen = compose(overrides)["augment"]
        named = [*chosen["waveform"], *chosen["features"]]
        assert named == [name] if name in stages else len(named) > 1


def test_scan_prints_seconds_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    result = run("scan", "--clips=150", "--repeats=2")
    assert result.returncode == 0, result.stderr
    rows = table(result.stdout)
    assert list(rows) == ["first", "warm cache"]
    assert all(seconds >= 0 for (seconds,) in rows.values())
    assert "150 clips" in result.stdout
    assert not list(tmp_path.glob("kws-scan-*"))


def test_scan_makes_as_many_usable_one_second_clips_as_asked_for(tmp_path: Path) -> None:
    scan_benchmark.make_clips(tmp_path / "clips", 150)
    catalog = usable(scan(tmp_path / "clips"))
    assert len(catalog) == 150
    assert catalog["word"].nunique() == 35
    assert catalog.groupby("word")["speaker"].nunique().min() >= 2
    assert set(catalog["num_samples"]) == {16000}


@pytest.mark.slow
def test_full_size_prints_every_figure_and_leaves_nothing(tmp_path: Path) -> None:
    result = run("full_size", "--clips-per-word=6", f"--folder={tmp_path}")
    assert result.returncode == 0, result.stdout + result.stderr
    title, *lines = result.stdout.splitlines()
    assert title == "Training on 210 clips"
    for pattern, line in zip(full_size_benchmark.FIGURES.values(), lines, strict=False):
        before, after = map(re.escape, re.split(r"\{.*\}", pattern))
        assert re.fullmatch(before + NUMBER + after, line), line
    assert re.search(rf"packing: {NUMBER} of cat \+ soundfile", result.stdout)
    assert not list(tmp_path.iterdir())


def test_full_size_prints_a_figure_before_it_measures_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    def figures() -> Iterator[tuple[str, float]]:
        yield "scan", 4.0
        assert "scan: 4.00 s" in capsys.readouterr().out
        raise KwsError("no room")

    with pytest.raises(KwsError):
        full_size_benchmark.show(figures(), 210)


def test_full_size_makes_clips_that_differ_of_speakers_in_all_splits(tmp_path: Path) -> None:
    full_size_benchmark.make_clips(tmp_path / "clips", 60)
    catalog = usable(scan(tmp_path / "clips"))
    clips = catalog[catalog["word"] != "_background_noise_"]
    assert set(clips["word"].value_counts()) == {60}
    assert set(clips["num_samples"]) == {16000}
    assert {hash_split(speaker, 10, 10) for speaker in clips["speaker"]} == set(SPLITS)
    assert len({(tmp_path / "clips" / path).read_bytes() for path in clips["path"]}) == len(clips)


@pytest.mark.slow
def test_sweep_start_prints_seconds_and_ratios(make_folder: MakeFolder) -> None:
    data = ["dataset=folder", f"dataset.path={make_folder()}", "task=custom", "task.words=[yes,no]"]
    result = run("sweep_start", "--repeats=1", *data, "trainer.batch_size=16")
    assert result.returncode == 0, result.stdout + result.stderr
    rows = table(result.stdout)
    names = list(rows)
    assert (names[0], names[-1]) == ("bare import tensorflow", "first step")
    seconds = [row[0] for row in rows.values()]
    assert seconds[1:] == sorted(seconds[1:])
    assert rows["bare import tensorflow"][1] == 1
    assert re.search(rf"first step, of a bare import: {NUMBER} .*; target: under 2\.5", result.stdout)


@pytest.mark.slow
def test_commands_print_every_ratio() -> None:
    result = run("commands", "--clips-per-word=6", "--steps=2", "--repeats=1")
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("a bare import of TensorFlow", "two runs at once", "kws evaluate"):
        assert float(re.search(rf"^{name}, .*: ({NUMBER}) \(", result.stdout, re.MULTILINE)[1]) > 0


def test_audiomentations_workers_print_rates_and_ratios() -> None:
    result = run("audiomentations_workers", "--workers=0,1", "--clips=100", "--repeats=1")
    assert result.returncode == 0, result.stderr
    cells = table_rows(result.stdout)
    assert [row[:2] for row in cells] == [[mix, n] for mix in ("light", "typical") for n in ("by itself", "0", "1")]
    assert all(number(row[2]) > 0 and float(row[3]) > 0 for row in cells)


@pytest.mark.slow
def test_training_prints_rates_and_ratios_to_keras_and_torch() -> None:
    result = run(
        "training", "--models=single_fc,ds_cnn_s", "--batch=4", "--threads=1", "--repeats=2", "--seconds=0.01",
        "features=mfcc_hello_edge",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = {name: cells for name, *cells in table_rows(result.stdout)}
    assert list(rows) == ["single_fc", "ds_cnn_s"]
    has_torch = training_benchmark.has_torch()
    for name, (rate, of_keras, of_torch, *inference) in rows.items():
        without = ["–"] if name == "single_fc" or not has_torch else []
        assert [cell for cell in (of_torch, inference[2]) if cell == "–"] == 2 * without
        assert min(number(cell) for cell in (rate, of_keras, *inference[:2])) > 0
    reached = rf"of {{}}: {NUMBER} \({NUMBER} to {NUMBER} over the rounds\); target: {{}} or more"
    assert re.search(rf"ds_cnn_s, training, {reached.format('Keras', '1.8')}", result.stdout)
    for what, target in (("training", "1"), ("inference", "1.3")):
        found = re.search(rf"ds_cnn_s, {what}, {reached.format('PyTorch', target)}", result.stdout)
        assert bool(found) == has_torch
    assert re.search(
        rf"\d+ cores .* TensorFlow 2\.\d+\.\d+, (no PyTorch|PyTorch {NUMBER}\S*), 1 threads, batches of 4, median of 2",
        result.stdout,
    )


@pytest.mark.slow
def test_determinism_prints_rates_and_ratios_of_the_step_and_the_whole() -> None:
    result = run("determinism", "--models=single_fc", "--batch=4", "--threads=1", "--rounds=1", "--seconds=0.01")
    assert result.returncode == 0, result.stderr
    rows = table_rows(result.stdout)
    assert [row[:2] for row in rows] == [["single_fc", "step"], ["single_fc", "whole"]]
    for row in rows:
        with_, without, *ratios = map(number, row[2:])
        assert ratios == pytest.approx([with_ / without] * 3, rel=0.02, abs=0.01)
    assert re.search(
        r"single_fc: two processes without deterministic ops ended with (the same|different) weights;", result.stdout
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ds_cnn_s", "bc_resnet_1"])
def test_keras_layers_trace_without_the_fused_op(model: str) -> None:
    import tensorflow as tf

    from kws_experiments.reports.model_table import choose

    choice = choose(model)

    def fused_ops() -> int:
        network = choice.build()
        step = tf.function(lambda features: network(features, training=True))
        graph = step.get_concrete_function(tf.TensorSpec((2, *choice.shape()))).graph
        return sum(op.type.startswith("FusedBatchNorm") for op in graph.get_operations())

    assert fused_ops() > 0
    with training_benchmark.keras_layers():
        assert fused_ops() == 0
    assert fused_ops() > 0


@pytest.mark.parametrize("model", training_benchmark.TORCH_MODELS)
def test_the_networks_in_torch_are_as_large_as_ours(model: str) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks.torch_models import MODELS
    from kws_experiments.reports.model_table import choose

    choice = choose(model)
    network = MODELS[model](choice.num_labels())
    ours = sum(variable.shape.num_elements() for variable in choice.build().trainable_variables)
    assert sum(parameter.numel() for parameter in network.parameters()) == ours
    assert network(torch.zeros(2, *choice.shape())).shape == (2, choice.num_labels())


@pytest.mark.slow
def test_streaming_prints_costs_and_ratios() -> None:
    result = run("streaming", "--models=low_latency_svdf,ds_cnn_mlperf", "--seconds=1.2", "--repeats=1", "--threads=1")
    assert result.returncode == 0, result.stderr
    listening, _, networks = result.stdout.partition("A network on a stream")
    rows = {name: cells for name, *cells in table_rows(listening)}
    assert list(rows) == ["low_latency_svdf", "ds_cnn_mlperf"]
    ((name, window, hop, ratio, *_),) = table_rows(networks)
    assert name == "low_latency_svdf"
    assert float(ratio) == pytest.approx(float(hop) / float(window), rel=0.05)
    assert re.search(rf"a hop, of a window: {NUMBER} .*; target: at most 0\.20", networks)
    for _, front_end, _, _, *whole, _ in rows.values():
        assert all(float(cell) > 0 for cell in (front_end, *whole))
    svdf, mlperf = rows.values()
    assert float(svdf[3]) == pytest.approx(float(svdf[2]) / float(svdf[1]), rel=0.05)
    assert (svdf[-1], mlperf[2], mlperf[-1]) == ("frames, first layers", "–", "nothing")
    assert re.search(rf"front end once, of each window: {NUMBER} .*; target: at most 0\.33", result.stdout)


@pytest.mark.slow
def test_listening_prints_every_figure_of_all_runs_and_their_mean(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Clips of tones, on which a small network is right and wrong at times."""
    root = make_folder(speakers=40)
    options = ["task=custom", "task.unknown=true", "task.words=[yes,no]", "features=log_mel_20ms", "model.filters=8"]
    train(tmp_path, "dataset=folder", f"dataset.path={root}", *options, "trainer.epochs=3", "report=false")
    path = only_run(tmp_path)
    arguments = ["--minutes=0.5", "--seeds=0,1", "--snrs-db=15", "--speech-hours=0", f"--csv={tmp_path / 'rows.csv'}"]
    untuned = run("listening", str(path), *arguments)
    assert untuned.returncode == 1
    assert f"'{path}' is not tuned; `kws tune {path}` does it" in untuned.stderr

    tune = [sys.executable, "-m", "kws_experiments.cli.main", "tune", str(path), "--minutes", "0.5", "--snr-db", "15"]
    subprocess.run(tune, cwd=ROOT, check=True, capture_output=True)
    result = run("listening", str(path), str(path), *arguments)
    assert result.returncode == 0, result.stderr
    rows = {name: cells for name, *cells in table_rows(result.stdout)}
    for name in ("keywords right", "other words right", "missed at 1 %", "15 dB: missed", "15 dB: missed at 2 an hour"):
        first, second, mean = rows[name]
        assert first == second == mean
        assert 0 <= float(first.rstrip("%")) <= 100
    assert float(rows["15 dB: keywords"][0]) > 5
    for name in ("missed at 1 %", "15 dB: missed"):
        low, _, high = rows[f"{name}, interval"][0].partition(" to ")
        assert float(low.rstrip("%")) <= float(rows[name][0].rstrip("%")) <= float(high.rstrip("%"))
    assert rows["15 dB: hours"] == ["0.02", "0.02", "0.02"]
    assert rows["15 dB: at most 2 an hour"][0].startswith("not shown: needs ")
    written = (tmp_path / "rows.csv").read_text()
    assert written.count("\n") == 2  # the run that is given twice is measured once

    again = run("listening", str(path), *arguments)
    other = run("listening", str(path), *arguments, "--seeds=2")
    assert "variants" not in again.stderr
    assert "variants" in other.stderr
    assert {name: cells for name, *cells in table_rows(again.stdout)}["keywords right"][0] == rows["keywords right"][0]
    assert (tmp_path / "rows.csv").read_text().startswith(written)


@pytest.mark.parametrize(
    ("arguments", "begins", "ends"),
    [
        (["pipeline", "--data=/absent"], "--data: no folder '/absent'", "WAVs per word"),
        (["pipeline", "--augmentations=echo"], "--augmentations: must be all, none or some of backg", ", got 'echo'"),
        (["training", "--models=luck"], "--models: must be all or some of bc_resnet_1, ", ", got 'luck'"),
        (["training", "--models=cnn4", "features=mfcc_hello_edge"], "model.input_shape: cnn4 needs at least 46", ""),
        (["determinism", "--models=luck"], "--models: must be all or some of bc_resnet_1, ", ", got 'luck'"),
        (["streaming", "--models=luck"], "--models: must be all or some of bc_resnet_1, ", ", got 'luck'"),
        (["quantized_front_end", "/absent"], "'/absent", "give the folder of a run"),
        (["clients", "/absent"], "'/absent", "give the folder of a run"),
        (["listening", "/absent"], "'/absent' holds no run", "give the folder of a run"),
        (
            ["listening", "/absent", "--split=test"],
            "--split must be one of training, validation, testing",
            ", got 'test'",
        ),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], begins: str, ends: str) -> None:
    result = run(*arguments)
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"error: {begins}")
    assert line.endswith(ends)


@pytest.mark.parametrize("option", ["--repeats=0", "--clips=few"])
def test_numbers_are_checked(option: str) -> None:
    result = run("scan", option)
    assert result.returncode == 2
    assert option.partition("=")[0] in result.stderr


@pytest.mark.slow
def test_killed_trainings_end_as_one_that_was_not_killed() -> None:
    pytest.importorskip("espeakng_loader")
    result = run("kills", "--kills=2", "--seed=7")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("nothing different, nothing half-written, nothing alive") == 2
    assert "2 kills; 0 with something different" in result.stdout


@pytest.mark.slow
def test_ctrl_c_in_the_first_seconds_shows_no_traceback() -> None:
    pytest.importorskip("espeakng_loader")
    result = run("interrupts", "--every=1.3", "--seconds=4", "--only=train,sweep,evaluate", "--show")
    assert result.returncode == 0, result.stdout + result.stderr
    assert [cells[1:3] for cells in table_rows(result.stdout)] == [["4", "0"]] * 3


@pytest.mark.slow
def test_tensorflow_io_ops_print_delays_differences_and_times(real_data: Path) -> None:
    pytest.importorskip("tensorflow_io", reason="the stack without tensorflow-io")
    result = run("tensorflow_io_ops", "--data", str(real_data), "--clips=2")
    assert result.returncode == 0, result.stderr
    rows = table_rows(result.stdout)
    assert len(rows) == 11
    for op, kind, delay, difference, ms, ms_here in rows:
        assert min(number(ms), number(ms_here)) > 0
        if op != "resample":
            assert int(delay) == 0, kind
            assert float(difference) < (2e-3 if op == "audio_ops" else 1e-5), kind


@pytest.mark.slow
def test_gpu_measures_each_placement_and_says_where_there_is_none() -> None:
    arguments = ["gpu", "--models=ds_cnn_s", "--batches=8", "--seconds=0.01"]
    result = run(*arguments, "--device=cpu")
    assert result.returncode == 0, result.stderr
    rows = {name: cells for _, name, *cells in table_rows(result.stdout)}
    assert {"host", "host, no XLA", "on device"} <= rows.keys()
    for name in ("host", "on device"):
        batch, first_step, whole, _, step, _ = rows[name]
        assert batch == "8"
        assert min(number(first_step), number(whole), number(step)) > 0
    hidden = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{arguments[0]}"], cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert hidden.stdout == "no GPU: TensorFlow sees none here; nothing was measured\n"
    assert run("gpu", "--batches=0").stderr.startswith("error: --batches must be")


RECORD = """
[scan]
command = "scan --clips 35"

[streaming]
command = "streaming --models=tc_resnet8 --seconds=1.2 --repeats=1 --threads=1"
costs = true
[streaming.ratios]
"front end once, of each window" = {expected}
"gone" = 1.0
"""


@pytest.mark.slow
def test_check_finds_slips_and_records(tmp_path: Path) -> None:
    record = tmp_path / "expected.toml"
    record.write_text(RECORD.format(expected=0.0001))
    arguments = ["check", f"--expected={record}", "--only=streaming"]

    slipped = run(*arguments)
    assert slipped.returncode == 1, slipped.stderr
    verdicts = {cells[1]: cells[-1] for cells in table_rows(slipped.stdout)}
    assert verdicts == {"front end once, of each window": "slipped", "gone": "not printed"}

    assert run(*arguments, "--record").returncode == 0
    renewed = check_benchmark.read(record)
    assert renewed["scan"].command == "scan --clips 35"
    assert renewed["streaming"].costs
    assert 0 < renewed["streaming"].ratios.pop("front end once, of each window") < 1
    assert not renewed["streaming"].ratios


@pytest.mark.parametrize(
    ("found", "costs", "expected"),
    [
        ((1.0, 0.9, 1.1), False, "holds"),
        ((0.7, 0.6, 0.76), False, "holds"),  # the best round is within a quarter
        ((0.7, 0.6, 0.74), False, "slipped"),
        ((1.3, 1.24, 1.4), True, "holds"),
        ((1.3, 1.26, 1.4), True, "slipped"),
        ((0.5, 0.4, 0.6), True, "holds"),
    ],
)
def test_a_ratio_slips_if_all_rounds_are_worse(found: tuple[float, float, float], costs: bool, expected: str) -> None:
    assert check_benchmark.judge(1.0, check_benchmark.Found(*found), 0.25, costs=costs) == expected


def test_every_benchmark_on_record_exists() -> None:
    for name, benchmark in check_benchmark.read(check_benchmark.EXPECTED).items():
        module = benchmark.command.split()[0]
        assert name.startswith(module)
        assert (ROOT / "benchmarks" / f"{module}.py").is_file()
        assert benchmark.ratios
