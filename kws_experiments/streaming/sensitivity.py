"""The settings that a run or an export listens with: of a named sensitivity, with single ones changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kws_data.errors import KwsError
from kws_experiments.export.artifact import RECORD, read_artifact
from kws_experiments.runs.files import whole
from kws_experiments.runs.folder import RunFolder
from kws_experiments.runs.listening import CLIPS, DEFAULT, Listening
from kws_experiments.streaming.recognize import ORIGINAL, RecognizerSettings


def listening_of(model: Path) -> Listening:
    """The sensitivities of a run or an export; none where the files are missing, as in an unfinished run.

    Args:
        model: the folder of a run or an export, or a model in the latter.

    Raises:
        KwsError: the file is damaged.
    """
    folder = model.expanduser()
    folder = folder if folder.is_dir() else folder.parent
    files = RunFolder(folder)
    if files.listening.is_file() or files.thresholds.is_file():
        return Listening.read(folder)
    if (folder / RECORD).is_file():  # an export of an earlier version
        return Listening({CLIPS: {"thresholds": read_artifact(folder).thresholds}})
    return Listening({})


def asked_of(model: Path, sensitivity: str) -> float | None:
    """The false accepts an hour that a sensitivity was to keep to; None for one that has no such rate."""
    return listening_of(model).sensitivities.get(sensitivity, {}).get("false_accepts_per_hour_asked")


def settings_of(model: Path, sensitivity: str | None = None, **changes: Any) -> RecognizerSettings:
    """The settings of a sensitivity, with changes.

    Args:
        model: see `listening_of`.
        sensitivity: its name; None means `medium` where `kws tune` made it, and else, or with `rule="original"`, the
            original's settings.
        changes: values by attribute; those that are None change nothing. A `detection_threshold` is for all words.

    Raises:
        KwsError: there is no such sensitivity, or it is damaged.
        ValueError: a change is out of range; it begins with the attribute.
    """
    listening = listening_of(model)
    changes = {name: value for name, value in changes.items() if value is not None}
    if sensitivity is None and DEFAULT in listening.tuned and changes.get("rule") != ORIGINAL:
        sensitivity = DEFAULT
    if sensitivity is None:
        return RecognizerSettings(**changes)
    if sensitivity not in listening.sensitivities:
        has = ", ".join(listening.sensitivities) or "none"
        more = "" if listening.tuned else "; kws tune makes low, medium and high"
        raise KwsError(f"--sensitivity: '{model}' has no sensitivity '{sensitivity}', but {has}{more}")
    values = listening.sensitivities[sensitivity]
    with whole(listening.file or model, "kws tune writes it again"):
        settings = RecognizerSettings(
            **values.get("settings", {}), thresholds=values["thresholds"], sensitivity=sensitivity
        )
    if not changes:
        return settings
    if "detection_threshold" in changes:
        changes["thresholds"] = {}
    return replace(settings, **changes, sensitivity="")
