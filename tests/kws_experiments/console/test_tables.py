"""Tables on consoles of any width."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from kws_experiments.console.tables import Column, Console, print_table

RUNS: list[Column] = [
    ("run", ["0123456789ab", "ba9876543210"]),
    ("task.training_unknown_percentage", ["20", "10"]),
    ("augment.waveform.mixup._target_", ["kws_data.augment.mixup.Mixup", "[a,b]"]),
    ("accuracy", ["91.3%", "–"]),
]


def printed(columns: list[Column], width: int | None, rest: str = "") -> str:
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as stream:
        patch.delenv("COLUMNS", raising=False)
        if width is not None:
            patch.setenv("COLUMNS", str(width))
        print_table(columns, numeric=["accuracy"], keep=("run", "accuracy"), rest=rest)
    return stream.getvalue()


def test_without_a_terminal_every_row_is_one_line() -> None:
    """`[a,b]` is no markup, and no column is left out of output for another program."""
    lines = printed(RUNS, None).splitlines()
    assert all(heading in lines[1] for heading, _ in RUNS)
    assert all(cell in lines[3] for cell in ("0123456789ab", "20", "kws_data.augment.mixup.Mixup", "91.3%"))
    assert "[a,b]" in lines[4]


def test_headings_are_broken_where_names_are_joined_and_the_widest_columns_go_first() -> None:
    out = printed(RUNS, 45, rest="--csv shows them")
    heading = re.sub(r"[│┃ ]", "", " ".join(line.split("┃")[2] for line in out.splitlines() if line.startswith("┃")))
    assert heading == "task.training_unknown_percentage"
    assert "Mixup" not in out
    assert out.endswith("no room for: augment.waveform.mixup._target_; --csv shows them\n")
    assert "no room for: task.training_unknown_percentage, augment" in printed(RUNS, 30)


def test_names_are_neither_markup_nor_commands_to_the_terminal() -> None:
    out = printed([("file", ["[old]takes/x.wav", "a [/b] c", "b\x1b[31m\nc", ":smile:"]), ("[i]", ["1"] * 4)], None)
    for name in ("[old]takes/x.wav", "a [/b] c", r"b\x1b[31m\nc", ":smile:", "[i]"):
        assert name in out
    assert "\x1b" not in out
    assert len({cell_len(line) for line in out.splitlines()}) == 1, "the frame is straight"


def test_a_styled_text_is_safe_too(capsys: pytest.CaptureFixture[str]) -> None:
    Console().print(Text.assemble("a\x9b", ("[b]\u202e", "bold")))
    assert capsys.readouterr().out == "a\\x9b[b]\\u202e\n"


WORDS = st.lists(st.text(alphabet="abc_.[]/語", min_size=1, max_size=12), min_size=1, max_size=3).map(" ".join)


@given(
    st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=2, max_size=2)), max_size=6, unique_by=lambda column: column[0]),
    st.integers(30, 120),
)
def test_no_word_is_broken_and_no_line_is_too_long(columns: list[Column], width: int) -> None:
    table = [("run", ["x", "y"]), *columns]
    out = printed(table, width)
    lines = [line for line in out.splitlines() if line.startswith(("┏", "┃", "┡", "│", "└"))]
    assert all(cell_len(line) <= width for line in lines)
    left_out = out.partition("no room for: ")[2]
    assert all(cell in out for heading, cells in table if heading not in left_out for cell in cells)
