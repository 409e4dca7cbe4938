"""A training on the console: one line per evaluation, and at a terminal a progress bar below them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kws_data.text import printable
from kws_experiments.console.tables import Console

log = logging.getLogger("kws_experiments.training")

_COLUMNS = (  # heading, width
    ("epoch", 6), ("step", 7), ("loss", 7), ("accuracy", 9), ("val. loss", 10), ("val. accuracy", 14), ("clips/s", 8),
    ("left", 8),
)  # fmt: skip


class TrainingConsole:
    """Prints each evaluation as a row of a table; without a terminal, as a line of the log.

    Args:
        labels: class names, for confusion matrices.
        steps_done: steps before this session.
        total_steps: steps of the whole training.
        print_confusion: print the confusion matrix of validation at every evaluation.
    """

    def __init__(self, labels: Sequence[str], steps_done: int, total_steps: int, *, print_confusion: bool) -> None:
        self._labels, self._print_confusion = labels, print_confusion
        self._steps, self._total = steps_done, total_steps
        self._timed_steps, self._timed_clips = -1, 0  # the first step of a session is not timed: it compiles
        self._training_s = self._evaluating_s = 0.0
        self._last = time.monotonic()
        self._console = _PatientConsole()
        self._terminal = sys.stdout.isatty() or self._console.is_jupyter
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console, transient=True, disable=not self._terminal)
        self._task = self._progress.add_task("compiling the training step", total=total_steps, completed=steps_done)

    def __enter__(self) -> TrainingConsole:
        if self._terminal:
            self._console.print(_line([heading for heading, _ in _COLUMNS]), style="bold")
        else:
            log.info("compiling the training step")
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def advance(self, clips: int) -> None:
        """Count a step and its clips."""
        if self._timed_steps >= 0:
            self._training_s += self._lap()
            self._timed_clips += clips
        self._timed_steps += 1
        self._steps += 1
        self._lap()
        self._progress.update(self._task, advance=1, description="step")

    def evaluated(self, row: dict[str, Any], confusion: np.ndarray) -> None:
        """Print an evaluation.

        Args:
            row: the history's new row.
            confusion: [labels, labels], a row per true label.
        """
        self._evaluating_s += self._lap()
        rate = self._timed_clips / self._training_s if self._training_s else 0.0
        left = (self._total - self._steps) * (self._training_s + self._evaluating_s) / max(1, self._timed_steps)
        line = (
            f"epoch {row['epoch']:.1f}  step {row['step']}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.1%}"
            f"  validation loss {row['val_loss']:.4f}  accuracy {row['val_accuracy']:.1%}"
            f"  {rate:.0f} clips/s  {duration(left)} left"
        )
        if self._terminal:
            cells = [
                f"{row['epoch']:.1f}", f"{row['step']}", f"{row['loss']:.4f}", f"{row['accuracy']:.1%}",
                f"{row['val_loss']:.4f}", f"{row['val_accuracy']:.1%}", f"{rate:,.0f}", duration(left),
            ]  # fmt: skip
            self._console.print(_line(cells))
            _log_to_files(line)
        else:
            log.info("%s", line)
        if self._print_confusion:
            print_confusion(self._console, confusion, self._labels, whole=True)

    def _lap(self) -> float:
        """Seconds since the last call."""
        before, self._last = self._last, time.monotonic()
        return self._last - before


class _PatientConsole(Console):
    """A console whose reader may go away: a training must not end because nobody watches it."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See rich; nothing is raised."""
        with suppress(OSError):
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Print nothing more; rich would end the process."""
        self.quiet = True


def _log_to_files(line: str) -> None:
    """Log a line that the terminal shows in another form."""
    record = log.makeRecord(log.name, logging.INFO, __file__, 0, line, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def duration(seconds: float) -> str:
    """'1:02:03', or '2:03' for less than an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def print_confusion(console: Console, confusion: np.ndarray, labels: Sequence[str], *, whole: bool = False) -> None:
    """Print a confusion matrix with its words; where their names don't fit, columns have the numbers of the rows.

    Args:
        console: where to print.
        confusion: [labels, labels] clips, a row per true label.
        labels: class names.
        whole: print it in full, however wide; otherwise print nothing if the console is too narrow.
    """
    names, numbers = list(map(printable, labels)), [f"{row + 1}" for row in range(len(labels))]
    numbered = [f"{number:>{len(numbers[-1])}} {name}" for number, name in zip(numbers, names, strict=True)]
    for rows, headings in ((names, names), (numbered, numbers)):
        first = max(map(cell_len, rows))
        columns = list(zip(headings, *(map(str, row) for row in confusion.tolist()), strict=True))
        widths = [1 + max(map(cell_len, column)) for column in columns]
        if first + sum(widths) <= console.width:
            break
    else:
        if not whole:
            return
    lines = [
        set_cell_size(name, first)
        + "".join(" " * (width - cell_len(cell)) + cell for cell, width in zip(cells, widths, strict=True))
        for name, cells in zip(["", *rows], zip(*columns, strict=True), strict=True)
    ]
    by_number = "" if headings is names else ", by number"
    console.print(f"Confusion matrix: a row per label, a column per prediction{by_number}", soft_wrap=True)
    console.print("\n".join(lines), style="default", soft_wrap=True)


def _line(cells: Sequence[str]) -> str:
    return " ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
