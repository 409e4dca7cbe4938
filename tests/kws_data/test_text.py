"""Text from outside, as terminals, CSV files and Markdown get it."""

from __future__ import annotations

import io
import re
import unicodedata

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_data.text import from_csv, markdown, printable, to_csv
from tests.conftest import ROOT

HOSTILE = st.text(st.sampled_from("=+-@\t\r\n',\"'1.e \x1b\x07\x9b\u202eaé＝語"), max_size=8)


@given(st.text(st.characters()) | HOSTILE)
def test_printable_text_is_one_line_without_control_characters(text: str) -> None:
    shown = printable(text)

    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in shown)
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", shown)
    assert printable(shown) == shown


def test_control_characters_are_shown_as_python_writes_them() -> None:
    assert printable("a\x1b[31m\n\x9b\u202eb\udce9") == r"a\x1b[31m\n\x9b\u202eb\udce9"
    assert printable("école はい ‌[b]") == "école はい ‌[b]"
    assert printable("a\n\x1bb\n", keep="\n") == "a\n\\x1bb\n"


@given(st.lists(HOSTILE | st.text(), min_size=1))
def test_no_cell_of_csv_is_a_formula_and_all_are_read_again(texts: list[str]) -> None:
    table = pd.DataFrame({"word": texts, "score": -3.2})

    written = to_csv(table)

    assert written.count("\n") == len(texts) + 1
    cells = pd.read_csv(io.StringIO(written), dtype={"word": str}, keep_default_na=False)
    for cell in cells["word"]:
        assert not re.match(r"\s*[=+\-@＝＋－＠]", cell) or re.fullmatch(r"[-+\d.e]+", cell)
    assert from_csv(cells)["word"].tolist() == [printable(text) for text in texts]
    assert cells["score"].tolist() == [-3.2] * len(texts)


@pytest.mark.parametrize("text", ["a;=1+1;.wav", "a; @b", "a;'=1", ";-2", "a;;=b;=c", "=a;=b", ';"=1+1'])
def test_no_cell_is_a_formula_where_semicolons_divide_cells(text: str) -> None:
    written = to_csv(pd.DataFrame({"path": [text]}))
    assert not re.search(r"(^|;)\s*[=+\-@]", written, re.MULTILINE)
    assert from_csv(pd.read_csv(io.StringIO(written), dtype=str))["path"].tolist() == [text]


@pytest.mark.parametrize("number", ["-3.2", "+4", "-1e-5", "-.5"])
def test_texts_that_are_numbers_stay_numbers(number: str) -> None:
    assert to_csv(pd.DataFrame({"=a": [number, None, 7]}, dtype=object)) == f'\'=a\n{number}\n""\n7\n'


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("_bed", r"\_bed"), ("ds_cnn_s", "ds_cnn_s"), ("a|b\n`c`", r"a\|b \`c\`"), ("<b>\x1b", r"\<b\>\\x1b")],
)
def test_markdown_shows_marks(text: str, escaped: str) -> None:
    assert markdown(text) == escaped


def test_nothing_else_writes_csv_or_to_a_terminal() -> None:
    """Ruff refuses `print`, `csv` and Rich's own console; methods it can't see."""
    allowed = {"kws_data/text.py", "kws_experiments/console/output.py", "kws_experiments/console/tables.py"}
    allowed.add("kws_experiments/sweeps/run_job.py")  # passes on what a job printed
    found = {
        str(path.relative_to(ROOT))
        for package in ("kws_data", "kws_models", "kws_experiments")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\.to_csv\(|std(out|err)\.write|\becho\(|rich\.(print|markup|console)", path.read_text("utf-8"))
    }
    assert found <= allowed
