"""The notebook: stored without outputs, and it runs to its end."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from tests.docs.pages import DOCS, ROOT

NOTEBOOK = DOCS / "quickstart.ipynb"


def test_it_is_stored_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert code
    assert not [cell for cell in code if cell.outputs or cell.execution_count is not None], "run nbstripout on it"


@pytest.mark.slow
def test_it_runs_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("espeakng_loader")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()

    shown = [data for cell in notebook.cells for output in cell.get("outputs", ()) for data in output.get("data", ())]
    assert shown.count("image/png") >= 5
    players = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "<audio" in output.get("data", {}).get("text/html", "")
    ]
    assert len(players) == 4 + 2 * 3 + 3 + 1  # words, before and after augmentation, the least sure, the recording
    assert (tmp_path / "runs" / "quickstart" / "report.html").is_file()
    nbformat.write(notebook, tmp_path / "executed.ipynb")
