"""Tables on consoles of any width."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from kws_experiments.reports.console_table import Column, print_table

RUNS = [
    Column("run", ["0123456789ab", "ba9876543210"]),
    Column("task.training_unknown_percentage", ["20", "10"]),
    Column("augment.waveform.mixup._target_", ["kws_data.augment.mixup.Mixup", "[a,b]"]),
    Column("accuracy", ["91.3%", "–"], numeric=True),
]


def printed(capsys: pytest.CaptureFixture[str], columns: list[Column], width: int | None, **options: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        if width is not None:
            patch.setenv("COLUMNS", str(width))
        print_table(columns, keep=("run", "accuracy"), **options)
    return capsys.readouterr().out


def test_what_is_no_terminal_gets_it_all_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`[a,b]` is no markup, and no column is left out of what is piped into another program."""
    lines = printed(capsys, RUNS, None).splitlines()
    assert all(column.heading in lines[1] for column in RUNS)
    assert all(cell in lines[3] for cell in ("0123456789ab", "20", "kws_data.augment.mixup.Mixup", "91.3%"))
    assert "[a,b]" in lines[4]


def test_headings_are_broken_where_names_are_joined_and_the_widest_columns_go_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = printed(capsys, RUNS, 45, rest="--csv shows them")
    heading = re.sub(r"[│┃ ]", "", " ".join(line.split("┃")[2] for line in out.splitlines() if line.startswith("┃")))
    assert heading == "task.training_unknown_percentage"
    assert "Mixup" not in out
    assert out.endswith("no room for: augment.waveform.mixup._target_; --csv shows them\n")
    assert "no room for: task.training_unknown_percentage, augment" in printed(capsys, RUNS, 30)


WORD = st.text(alphabet="abc_.[]/語", min_size=1, max_size=12)


@given(
    st.lists(st.tuples(st.booleans(), st.lists(st.lists(WORD, min_size=1, max_size=3), min_size=3, max_size=3)),
             min_size=1, max_size=6, unique_by=lambda column: " ".join(column[1][0])),
    st.integers(30, 120),
)  # fmt: skip
def test_no_word_is_broken_and_no_line_is_too_long(columns: list[tuple[bool, list[list[str]]]], width: int) -> None:
    table = [Column("run", ["x", "y"])] + [
        Column(" ".join(heading), [" ".join(cell) for cell in cells], numeric) for numeric, (heading, *cells) in columns
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        out = _captured(table)
    lines = [line for line in out.splitlines() if line.startswith(("┏", "┃", "┡", "│", "└"))]
    assert all(cell_len(line) <= width for line in lines)
    left_out = out.partition("no room for: ")[2]
    for column in table:
        if column.heading not in left_out:
            for cell in column.cells:
                assert all(word in out for word in cell.split(" "))


def _captured(table: list[Column]) -> str:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as stream:
        print_table(table, keep=("run",))
    return stream.getvalue()
