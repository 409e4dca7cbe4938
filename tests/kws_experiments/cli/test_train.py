"""`train.py`'s own command line."""

from __future__ import annotations

import re
import subprocess
import sys

from kws_experiments.config.compose import compose
from tests.conftest import ROOT


def test_help_is_for_people() -> None:
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    groups, keys, options = re.split(r"^(?:Keys|Options)\b.*\n", done.stdout, flags=re.MULTILINE)

    assert "model: bc_resnet_1, " in groups
    assert "--cfg job" in options
    assert "_target_" not in done.stdout
    named = [line.split()[0] for line in keys.splitlines() if line]
    assert len(named) > 5
    compose(["dataset=folder", "task=custom", *named])  # Hydra refuses a key that there isn't
