"""`kws data preview`: pictures and sounds of clips before and after augmentation."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.conftest import ROOT, SAMPLE_RATE, MakeFolder

pytestmark = pytest.mark.slow


def preview(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kws_experiments.cli.main", "data", "preview", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))


def test_clips_before_and_after_are_drawn_written_and_played(make_folder: MakeFolder, tmp_path: Path) -> None:
    out = tmp_path / "preview"
    overrides = ["dataset=folder", f"dataset.path={make_folder()}", "task=custom", "task.words=[yes,no]"]

    for shift in ("0", "50"):  # the second one replaces the first
        result = preview(*overrides, f"augment.time_shift_ms={shift}", "--clips", "6", "--out", str(out))
        assert result.returncode == 0, result.stderr

    names = sorted(path.name for path in out.glob("*_before.wav"))
    assert len(names) == 6
    page = (out / "index.html").read_text()
    changed = 0
    for name in names:
        before, rate = soundfile.read(out / name)
        after, _ = soundfile.read(out / name.replace("before", "after"))
        assert rate == SAMPLE_RATE
        assert len(before) == len(after) == SAMPLE_RATE
        wav = base64.b64encode((out / name).read_bytes()).decode()
        assert f'src="data:audio/wav;base64,{wav}"' in page
        changed += not np.array_equal(before, after)
    assert changed >= 5
    assert page.count("<audio") == 12
    assert Image.open(out / "preview.png").size[1] > 300


def test_other_folders_are_not_overwritten(make_folder: MakeFolder, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()

    result = preview("dataset=folder", f"dataset.path={make_folder()}", "--out", str(tmp_path / "mine"))

    assert result.returncode == 1
    assert (
        result.stderr.strip() == f"error: --out: '{tmp_path / 'mine'}' exists and is not a preview; give a new folder"
    )
