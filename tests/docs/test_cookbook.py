"""The cookbook's recipes, taken from the page: their files are written and their commands run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import MakeFolder
from tests.docs.pages import DOCS, ROOT, sections

RECIPES = {
    heading: blocks
    for heading, blocks in sections((DOCS / "cookbook.md").read_text(encoding="utf-8")).items()
    if any(block.title for block in blocks)
}
_KWS = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from kws_experiments.cli.main import main; main()"


def follow(recipe: str, folder: Path, clips: Path) -> Path:
    """Write the recipe's files into `folder`, run its commands there; the run that they made."""
    for block in RECIPES[recipe]:
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    programs = folder / "programs"
    programs.mkdir()
    for name, command in {"python": shlex.quote(sys.executable), "kws": f"python -c {shlex.quote(_KWS)}"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    script = "".join(block.text for block in RECIPES[recipe] if block.language == "sh")
    script = script.replace("train.py", str(ROOT / "train.py"))
    script = script.replace("/data/my_clips", str(clips)).replace("/data/clips.csv", str(clips.with_suffix(".csv")))
    done = subprocess.run(
        ["sh", "-e", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (metrics,) = folder.glob("runs/*/*/metrics.json")
    assert json.loads(metrics.read_text())["accuracy"] >= 0
    return metrics.parent


def config_of(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text())


def model_was_trained(run: Path) -> None:
    assert config_of(run)["model"] == {"_target_": "my_nets.my_net", "units": 128}
    frames, bins, labels = 98, 40, 4
    parameters = (frames * bins + 1) * 128 + (128 + 1) * labels
    assert json.loads((run / "cost.json").read_text())["parameters"] == parameters


def features_were_computed(run: Path) -> None:
    assert config_of(run)["features"]["_target_"] == "my_features.LogMelDeltas"
    assert json.loads((run / "cost.json").read_text())["features"] == [98, 80]


def stage_was_drawn(run: Path) -> None:
    assert config_of(run)["augment"]["waveform"]["mains_hum"]["level_db"] == [-50, -20]
    preview = run.parents[2] / "preview"
    assert list(preview.glob("*.html"))
    assert list(preview.rglob("*.wav"))


def table_was_read(run: Path) -> None:
    clips = pd.read_csv(run / "data" / "catalog_summary.csv")
    assert clips.groupby("word")["clips"].sum().to_dict() == {"yes": 20, "no": 20, "bed": 20}


def evaluations_were_logged(run: Path) -> None:
    first, *evaluations, last = map(json.loads, (run.parents[2] / "evaluations.jsonl").read_text().splitlines())
    assert first["model"] == config_of(run)["model"]["_target_"]
    history = pd.read_csv(run / "history.csv")
    assert [row["step"] for row in evaluations] == history["step"].tolist()
    assert last["accuracy"] == json.loads((run / "metrics.json").read_text())["accuracy"]


CHECKS: dict[str, Callable[[Path], None]] = {
    "A model": model_was_trained,
    "A feature": features_were_computed,
    "An augmentation": stage_was_drawn,
    "A data set": table_was_read,
    "A logger": evaluations_were_logged,
}


def test_every_recipe_is_tried() -> None:
    assert set(RECIPES) == set(CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", CHECKS)
def test_recipe(recipe: str, make_folder: MakeFolder, tmp_path: Path) -> None:
    clips = make_folder()
    files = sorted(clips.glob("[!_]*/*.wav"))
    table = [(path.relative_to(tmp_path), path.parent.name, path.name.partition("_")[0]) for path in files]
    pd.DataFrame(table, columns=["file", "word", "speaker"]).to_csv(clips.with_suffix(".csv"), index=False)
    (tmp_path / "work").mkdir()
    CHECKS[recipe](follow(recipe, tmp_path / "work", clips))
