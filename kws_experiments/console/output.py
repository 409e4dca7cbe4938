"""Printing and logging that no text from outside can disturb: each is one line, whatever a name or a message holds."""

from __future__ import annotations

import io
import logging
import os
import sys

from kws_data.text import printable


def set_up() -> None:
    """For each process that prints: escape what an output's encoding lacks, and log each message as one line.

    Outputs that are closed, as some schedulers have them, take nothing. No file that is opened gets their number.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.setLogRecordFactory(_Record)


class _Record(logging.LogRecord):
    def getMessage(self) -> str:
        """The message in one line: a name with a line break must not forge another one."""
        return printable(super().getMessage())


def say(text: object, *, error: bool = False, style: str | None = None) -> None:
    """Print a line to standard output or standard error; in a style (`red`) where a terminal shows it."""
    if style is None:
        print(printable(text), file=sys.stderr if error else sys.stdout, flush=True)
        return
    from kws_experiments.console.tables import Console

    Console().print(printable(text), style=style, soft_wrap=True)


def say_document(text: str) -> None:
    """Print JSON, CSV or Markdown, which was escaped when it was made."""
    print(text.removesuffix("\n"), flush=True)
