"""The settings that a run listens with: what counts where nothing, a sensitivity, or a single option is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from kws_data.errors import KwsError
from kws_experiments.runs.listening import Listening
from kws_experiments.streaming.recognize import ORIGINAL, PER_WORD, RecognizerSettings
from kws_experiments.streaming.sensitivity import settings_of

CLIPS = {"thresholds": {"yes": 0.1}}
SETTINGS = {"average_window_ms": 300.0, "suppression_ms": 200.0, "minimum_count": 1, "rule": PER_WORD}


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    levels = {"low": 0.9, "medium": 0.8, "high": 0.6}
    made = {name: {"settings": SETTINGS, "thresholds": {"yes": level}} for name, level in levels.items()}
    Listening({"clips": CLIPS, **made}).write(tmp_path)
    return tmp_path


def test_a_run_that_was_not_tuned_listens_as_the_original(tmp_path: Path) -> None:
    assert settings_of(tmp_path) == RecognizerSettings()  # an unfinished run: whoever loads it says so
    (tmp_path / "thresholds.json").write_text('{"thresholds": {"yes": 0.1}}')
    assert settings_of(tmp_path) == RecognizerSettings()
    assert settings_of(tmp_path, detection_threshold=0.9) == RecognizerSettings(detection_threshold=0.9)
    assert settings_of(tmp_path, "clips") == RecognizerSettings(thresholds={"yes": 0.1}, sensitivity="clips")
    with pytest.raises(KwsError, match="has no sensitivity 'high', but clips; kws tune makes low, medium and high"):
        settings_of(tmp_path, "high")


def test_a_tuned_run_listens_with_medium_sensitivity(tuned: Path) -> None:
    medium = RecognizerSettings(**SETTINGS, thresholds={"yes": 0.8}, sensitivity="medium")
    assert settings_of(tuned) == settings_of(tuned, "medium") == settings_of(tuned, rule=None) == medium
    assert settings_of(tuned / "model.tflite") == medium  # a model in an export
    assert settings_of(tuned, "high").thresholds == {"yes": 0.6}
    with pytest.raises(KwsError, match=r"has no sensitivity 'loud', but clips, low, medium, high$"):
        settings_of(tuned, "loud")


def test_single_options_change_a_sensitivity(tuned: Path) -> None:
    changed = settings_of(tuned, "low", suppression_ms=700)
    assert changed == RecognizerSettings(**SETTINGS | {"suppression_ms": 700}, thresholds={"yes": 0.9})
    assert settings_of(tuned, detection_threshold=0.3) == RecognizerSettings(**SETTINGS, detection_threshold=0.3)
    assert settings_of(tuned, "low", rule=ORIGINAL).thresholds == {"yes": 0.9}
    with pytest.raises(ValueError, match=r"^detection_threshold must be"):
        settings_of(tuned, detection_threshold=3)


def test_the_originals_rule_comes_with_its_settings(tuned: Path) -> None:
    assert settings_of(tuned, rule=ORIGINAL) == RecognizerSettings()
    assert settings_of(tuned, rule=ORIGINAL, average_window_ms=300) == RecognizerSettings(300)


def test_damage_is_one_line(tuned: Path) -> None:
    Listening({"clips": CLIPS, "medium": {"settings": {"speed": 1}, "thresholds": {}}}).write(tuned)
    with pytest.raises(KwsError, match=r"listening\.json' is missing or damaged: kws tune writes it again"):
        settings_of(tuned)
