"""The training loop on batches made here: its evaluations, checkpoints, ends and resumed runs."""

from __future__ import annotations

import io
import logging
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kws_data.errors import KwsError
from kws_experiments.experiment.schedules import Constant, Cosine, Piecewise, Plateau, Schedule
from kws_experiments.experiment.settings import best_row
from kws_experiments.runs import checkpoint
from kws_experiments.runs.folder import RunFolder, TrainingFiles
from kws_experiments.training.distillation import Distillation
from kws_experiments.training.loop import Diverged, Trainer
from kws_experiments.training.progress import duration, print_confusion
from kws_experiments.training.tensorboard_log import TensorBoardLog, confusion_image, markdown_table
from tests.kws_experiments.training.test_step import LABELS, SHAPE, SPEC, batch, settings

STEPS_PER_EPOCH = 4
TOTAL = 12
NAMES = ["_silence_", "yes", "no"]


class Crash(Exception):
    pass


def stream(change: Callable[[int, dict[str, tf.Tensor]], dict[str, tf.Tensor]] | None = None) -> Any:
    """A function from a step to the numbered batches from there on; every fourth batch is smaller."""

    def make(start: int) -> tf.data.Dataset:
        def batches() -> Any:
            for step in range(start, TOTAL):
                made = batch(3 if step % STEPS_PER_EPOCH == 3 else 8, step, mixed=True)
                yield change(step, made) if change else made

        return tf.data.Dataset.from_generator(batches, output_signature=SPEC)

    return make


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(5), keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), *layers, keras.layers.Dense(LABELS)])


def trained(
    folder: Path,
    *,
    schedule: Schedule | None = None,
    make_optimizer: Callable[[Any], Any] = keras.optimizers.SGD,
    rate: float = 0.1,
    change: Any = None,
    callbacks: Any = (),
    word_labels: np.ndarray | None = None,
    distillation: Distillation | None = None,
    **changes: Any,
) -> tuple[keras.Model, pd.DataFrame, TrainingFiles]:
    files, model, schedule = RunFolder(folder).training, network(), schedule or Constant()
    rates = schedule.rates(rate, total_steps=TOTAL, steps_per_epoch=STEPS_PER_EPOCH)
    trainer = Trainer(
        model, make_optimizer(rates), settings(epochs=None, steps=TOTAL, **changes),
        schedule=schedule, learning_rate=rate, labels=NAMES, class_weights=[1] * LABELS, false_accept_rate=0.01,
        files=files, callbacks=callbacks, word_labels=word_labels, distillation=distillation,
    )  # fmt: skip
    history = trainer.fit(stream(change), stream()(TOTAL - 3), steps_per_epoch=STEPS_PER_EPOCH, total_steps=TOTAL)
    return model, history, files


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Constant(), [0.1, 0.1, 0.1]),
        (Piecewise([4, 4, 4], [1, 0.5, 0.25]), [1, 0.5, 0.25]),
        (Cosine(), 0.05 * (1 + np.cos(np.pi * np.array([3, 7, 11]) / 12))),
        (Plateau(patience=1, min_change=1e9), [0.1, 0.1, 0.05]),  # the first evaluation stays the best
    ],
)
def test_history_has_the_rate_of_the_last_step(tmp_path: Path, schedule: Schedule, rates: Any) -> None:
    _, history, files = trained(tmp_path, schedule=schedule)

    assert history["step"].tolist() == [4, 8, 12]
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-5)
    pd.testing.assert_frame_equal(pd.read_csv(files.history), history, check_dtype=False)


def scaled(optimizer: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda rates: keras.optimizers.LossScaleOptimizer(optimizer(rates), dynamic_growth_steps=5)


def with_words(step: int, made: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A batch in which half of the clips of the second label are of another word: the target 3."""
    labels = made["labels"].numpy()
    labels[(labels == 1) & (np.arange(len(labels)) % 2 == 0)] = 3
    return {**made, "labels": tf.constant(labels)}


@pytest.mark.parametrize("word_labels", [None, np.array([0, 1, 2, 1], np.int32)])
@pytest.mark.parametrize(
    ("make_optimizer", "schedule"),
    [
        (lambda rates: keras.optimizers.SGD(rates, momentum=0.9, nesterov=True), Plateau(patience=1, min_change=1)),
        (lambda rates: keras.optimizers.AdamW(rates, weight_decay=0.1), Cosine(1)),
        (keras.optimizers.Adadelta, Piecewise([5, 5], [1, 0.1])),
        (scaled(keras.optimizers.Adam), Plateau(patience=1, min_change=1)),
    ],
)
def test_a_run_that_crashes_while_evaluating_resumes_exactly(
    tmp_path: Path, make_optimizer: Any, schedule: Schedule, word_labels: np.ndarray | None
) -> None:
    def crash(row: dict[str, Any], confusion: np.ndarray) -> None:
        if row["step"] == 8:
            raise Crash

    given = {
        "make_optimizer": make_optimizer, "schedule": schedule, "ema_momentum": 0.7, "checkpoint_every": 3,
        "restore_best": False, "label_smoothing": 0.1, "word_labels": word_labels, "word_loss": 0.5,
        "change": None if word_labels is None else with_words,
        "distillation": None if word_labels is None else Distillation(network(), np.array([True, True, False]), 0.5),
    }  # fmt: skip
    whole, history, whole_files = trained(tmp_path / "whole", **given)
    with pytest.raises(Crash):
        trained(tmp_path / "broken", callbacks=[crash], **given)
    resumed, resumed_history, files = trained(tmp_path / "broken", **given)

    for ours, theirs in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)
    pd.testing.assert_frame_equal(
        resumed_history.drop(columns="seconds"), history.drop(columns="seconds"), check_exact=True
    )
    with np.load(files.state) as ours, np.load(whole_files.state) as theirs:  # the optimizer's slots too
        assert ours.files == theirs.files
        for name in set(ours.files) - {"state"}:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_averaged_weights_are_evaluated_and_saved(tmp_path: Path) -> None:
    plain, plain_history, _ = trained(tmp_path / "plain", restore_best=False)
    averaged, history, files = trained(tmp_path / "averaged", restore_best=False, ema_momentum=0.9)

    assert history["loss"].tolist() == plain_history["loss"].tolist()  # training continues from the weights themselves
    assert history["val_loss"].tolist() != plain_history["val_loss"].tolist()
    assert not np.array_equal(averaged.weights[0], plain.weights[0])
    best = int(history["val_loss"].argmin())
    keeping, kept_history, files = trained(tmp_path / "keeping", ema_momentum=0.9, monitor="val_loss")
    assert kept_history["val_loss"].argmin() == best
    for weight, saved in zip(keeping.weights, checkpoint.read_arrays(files.best), strict=True):
        np.testing.assert_array_equal(weight, saved)


def nan_in(step_of: int) -> Any:
    def change(step: int, made: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        inputs = tf.constant(np.nan) * made["inputs"] if step == step_of else made["inputs"]
        return made | {"inputs": inputs, "ids": made["ids"] + 100 * step}

    return change


@pytest.mark.parametrize("changes", [{}, {"ema_momentum": 0.9}])
def test_a_loss_of_nan_stops_training_and_the_last_checkpoint_stays(tmp_path: Path, changes: dict[str, Any]) -> None:
    given = {"schedule": Piecewise([6, 6], [0.1, 0.05]), "checkpoint_every": 5, **changes}
    for _ in range(2):  # the same call ends the same way
        with pytest.raises(Diverged) as caught:
            trained(tmp_path, change=nan_in(6), **given)
        assert caught.value.step == 6
        assert caught.value.learning_rate == pytest.approx(0.05)
        assert caught.value.ids.tolist() == list(range(600, 608))
        files = RunFolder(tmp_path).training
        for file in (files.state, files.best):
            with np.load(file) as saved:
                assert all(np.isfinite(saved[name]).all() for name in saved.files if name != "state")
    _, history, _ = trained(tmp_path, **given)
    assert history["step"].tolist() == [4, 8, 12]


def test_weights_that_are_too_large_are_not_saved(tmp_path: Path) -> None:
    """The gradients of such a step are finite, and so is its loss."""
    with pytest.raises(Diverged) as caught:
        trained(tmp_path, rate=3e38, make_optimizer=lambda rates: keras.optimizers.SGD(rates * 100), checkpoint_every=1)

    assert caught.value.step == 0
    assert not RunFolder(tmp_path).training.state.exists()


def test_best_rows_are_numbers() -> None:
    rows = [
        {"val_loss": loss, "val_accuracy": accuracy, "val_miss_rate": miss}
        for loss, accuracy, miss in (
            (np.nan, 0.5, np.nan),
            (2.0, 0.5, 0.5),
            (1.0, 0.4, 0.6),
            (np.inf, 0.5, 0.5),
            (np.nan, 0.1, 0.7),
        )
    ]
    assert best_row(rows, "val_miss_rate") == 1
    assert best_row(rows, "val_loss") == 2
    assert best_row(rows, "val_accuracy") == 1
    assert best_row(rows[:1], "val_loss") == 0
    assert best_row([rows[0], rows[4]], "val_loss") == 0


@pytest.mark.parametrize("damage", ["cut", "other network", "one too few"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    _, _, files = trained(tmp_path)
    with np.load(files.state) as saved:
        arrays = dict(saved)
    if damage == "cut":
        files.state.write_bytes(files.state.read_bytes()[:3000])
    else:
        name = max((name for name in arrays if name != "state"), key=lambda name: int(name[1:]))
        arrays["v0"] = arrays["v0"][:2]
        if damage == "one too few":
            del arrays[name]
        np.savez(files.state, **arrays)

    with pytest.raises(KwsError, match=r"checkpoint|network's weights"):
        trained(tmp_path)


@pytest.mark.parametrize("printed", [True, False])
def test_an_evaluation_is_one_line_and_optionally_a_confusion_matrix(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], printed: bool
) -> None:
    matrices: list[np.ndarray] = []
    with caplog.at_level(logging.INFO, "kws_experiments.training"):
        trained(tmp_path, print_confusion=printed, callbacks=[lambda row, confusion: matrices.append(confusion)])

    lines = [message for message in caplog.messages if "validation loss" in message]
    assert [re.search(r"step (\d+)", line)[1] for line in lines] == ["4", "8", "12"]  # type: ignore[index]
    assert all(re.search(r" \d+ clips/s  \d+:\d\d left$", line) for line in lines)
    labels = np.concatenate([made["labels"] for made in stream()(TOTAL - 3)])
    rows = re.findall(r"^ *(yes|no|_silence_)((?: +\d+)+)\s*$", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == (9 if printed else 0)
    for number, matrix in enumerate(matrices):
        np.testing.assert_array_equal(matrix.sum(1), np.bincount(labels, minlength=LABELS))
        if printed:
            printed_rows = [list(map(int, cells.split())) for _, cells in rows[3 * number : 3 * number + 3]]
            assert printed_rows == matrix.tolist()


def test_a_terminal_shows_a_table_and_the_log_file_gets_every_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.FileHandler(tmp_path / "train.log")
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    trained(tmp_path)
    handler.close()

    assert (tmp_path / "train.log").read_text().count("validation loss") == 3
    rows = re.findall(r" \d\.\d +(\d+) +\d\.\d{4} ", capsys.readouterr().out)
    assert rows == ["4", "8", "12"]


def test_a_training_goes_on_where_nobody_reads_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(text: str) -> int:
        raise BrokenPipeError

    with (tmp_path / "terminal").open("w") as terminal:
        monkeypatch.setattr("sys.stdout", types.SimpleNamespace(write=gone, flush=terminal.flush, isatty=lambda: True))
        _, history, _ = trained(tmp_path, print_confusion=True)
    assert history["step"].tolist() == [4, 8, 12]


TWELVE = ["_silence_", "_unknown_", "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]


def printed_confusion(words: list[str], count: int, *, whole: bool = False) -> list[str]:
    """The lines of a confusion matrix on a terminal of 80 columns."""
    console = Console(width=80, record=True, file=io.StringIO())
    print_confusion(console, np.full((len(words), len(words)), count), words, whole=whole)
    return console.export_text().splitlines()


@pytest.mark.parametrize("count", [0, 408, 4074])
def test_the_standard_classes_have_their_whole_names_in_80_columns(count: int) -> None:
    _, headings, *rows = printed_confusion(TWELVE, count)
    assert headings.split() == TWELVE
    assert [row.split()[0] for row in rows] == TWELVE
    assert max(map(len, rows)) <= 80


@pytest.mark.parametrize(("labels", "whole", "lines"), [(12, False, 12), (36, False, 0), (36, True, 36)])
def test_longer_names_are_in_the_rows_and_columns_are_numbered(labels: int, whole: bool, lines: int) -> None:
    words = [f"forward{number:02d}" for number in range(labels)]
    _, headings, *rows = printed_confusion(words, 1234, whole=whole) or ["", ""]
    assert [row.split()[:3] for row in rows] == [[f"{row + 1}", words[row], "1234"] for row in range(lines)]
    assert headings.split() == [f"{column + 1}" for column in range(lines)]
    assert len({len(line) for line in (headings, *rows)}) == 1
    assert whole or len(headings) <= 80


@pytest.mark.parametrize(("width", "numbered"), [(50, True), (80, False)])
def test_confusion_matrices_are_aligned_in_cells_of_the_terminal(width: int, numbered: bool) -> None:
    """East Asian characters take two cells, and combining ones none."""
    console = Console(width=width, record=True, file=io.StringIO())
    words = ["_silence_", "はい", "いいえ、けっこうです", "아니요", "e\u0301te\u0301", "no"]
    print_confusion(console, np.full((6, 6), 12), words)
    headings, *rows = console.export_text().splitlines()[-1 - len(words) :]
    assert len({cell_len(line) for line in (headings, *rows)}) == 1
    first = cell_len(words[2]) + 2 * numbered
    names = [f"{row + 1} {word}" if numbered else word for row, word in enumerate(words)]
    assert all(set_cell_size(row, first).rstrip() == name for row, name in zip(rows, names, strict=True))


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_tensorboard_gets_scalars_and_a_readable_picture(tmp_path: Path) -> None:
    write = TensorBoardLog(tmp_path, NAMES)
    confusion = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 3]])
    row = {"step": 7, "loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1, "val_loss": 2.0, "val_accuracy": 0.25}

    write(row, confusion)

    training, validation = (EventAccumulator(str(tmp_path / name)).Reload() for name in ("train", "validation"))
    assert set(training.Tags()["tensors"]) == {"loss", "accuracy", "learning_rate"}
    assert {"loss", "accuracy", "confusion", "confusion matrix"} == set(validation.Tags()["tensors"])
    (value,) = validation.Tensors("accuracy")
    assert value.step == 7
    assert float(tf.make_ndarray(value.tensor_proto)) == 0.25
    (picture,) = validation.Tensors("confusion matrix")
    width, height, png = tf.make_ndarray(picture.tensor_proto).tolist()
    decoded = tf.io.decode_png(png).numpy()
    assert decoded.shape == (int(height), int(width), 3)
    np.testing.assert_array_equal(decoded, confusion_image(confusion, NAMES))
    assert decoded.min() < 100 < 250 < decoded.max()
    plt.imsave(tmp_path / "confusion.png", decoded)


def test_the_table_names_the_classes() -> None:
    table = markdown_table(np.array([[8, 2], [1, 3]]), ["_silence_", "yes"])

    assert table.splitlines() == [
        "| label | \\_silence\\_ | yes |", "| --- | ---: | ---: |", "| \\_silence\\_ | 8 | 2 |", "| yes | 1 | 3 |",
    ]  # fmt: skip
