"""`listening.json`, and `thresholds.json` of earlier versions in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kws_data.errors import KwsError
from kws_experiments.runs.listening import Listening

CLIPS = {"score": "softmax", "split": "validation", "false_accept_rate": 0.01, "thresholds": {"yes": 0.5, "no": 0.25}}
LOW, MEDIUM = ({"settings": {}, "thresholds": {"yes": level, "no": level}} for level in (0.9, 0.8))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = Listening({"clips": CLIPS, "medium": MEDIUM, "low": LOW}, {"streams": [1]})
    written.write(tmp_path)
    read = Listening.read(tmp_path)
    assert (read.sensitivities, read.tuned_on) == (written.sensitivities, written.tuned_on)
    assert read.thresholds == CLIPS["thresholds"]
    assert list(read.tuned.items()) == [("low", LOW), ("medium", MEDIUM)]


def test_thresholds_of_earlier_versions_are_the_sensitivity_for_clips(tmp_path: Path) -> None:
    (tmp_path / "thresholds.json").write_text(json.dumps(CLIPS))
    read = Listening.read(tmp_path)
    assert read.sensitivities == {"clips": CLIPS}
    assert read.tuned == {}
    read.with_clips(thresholds={"yes": 0.1, "no": 0.2}).write(tmp_path)
    assert Listening.read(tmp_path).thresholds == {"yes": 0.1, "no": 0.2}  # the newer file counts
    assert Listening.read(tmp_path).sensitivities["clips"]["false_accept_rate"] == 0.01


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "listening.json' is missing or damaged"),
        ('{"schema_version": 1, "sensitivities": {}}', "listening.json' is missing or damaged"),
        ('{"schema_version": 1, "sensitivities": {"clips": {"thresholds": {"yes": "high"}}}}', "missing or damaged"),
        ('{"schema_version": 2, "sensitivities": {"clips": {"thresholds": {}}}}', "has schema version 2, not 1"),
        (None, "listening.json' is missing or damaged"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "listening.json").write_text(content)
    with pytest.raises(KwsError, match=message):
        Listening.read(tmp_path)
