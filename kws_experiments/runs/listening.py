"""`listening.json` of a run or an export: the named sensitivities that its model decides with.

{"schema_version": 1,
 "sensitivities": {name: {"thresholds": {word: threshold}, …}},
 "tuned_on": …}

`clips` is for single clips, and written by the training: a word's threshold on its score (softmax), for a false accept
rate of validation clips. `low`, `medium` and `high` are for long audio, and written by `kws tune`: `settings` of the
recognizer and a threshold per word on its averaged score, with the rate of false accepts that was asked for and what
was measured on validation streams (`tuned_on`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kws_data.errors import KwsError
from kws_experiments.runs.files import START_OVER, read_json, whole
from kws_experiments.runs.folder import RunFolder, write_text

SCHEMA_VERSION = 1
CLIPS = "clips"
TUNED = ("low", "medium", "high")
DEFAULT = "medium"


@dataclass(frozen=True)
class Listening:
    """The contents of listening.json.

    Attributes:
        sensitivities: by name; each has `thresholds`.
        tuned_on: the streams that all but `clips` were chosen on; empty if there are none.
        file: that they were read from.
    """

    sensitivities: dict[str, dict[str, Any]]
    tuned_on: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @classmethod
    def read(cls, path: Path) -> Listening:
        """Read the file in a folder. Versions before had `thresholds.json`, whose contents are those of `clips`.

        Raises:
            KwsError: there is neither, it is damaged, or of another version.
        """
        folder = RunFolder(path)
        if folder.thresholds.is_file() and not folder.listening.is_file():
            return cls({CLIPS: read_json(folder.thresholds, START_OVER, ["thresholds"])}, file=folder.thresholds)
        content = read_json(folder.listening, START_OVER, ["schema_version", f"sensitivities.{CLIPS}.thresholds"])
        if content["schema_version"] != SCHEMA_VERSION:
            schema = content["schema_version"]
            raise KwsError(f"'{folder.listening}' has schema version {schema}, not {SCHEMA_VERSION}: {START_OVER}")
        with whole(folder.listening, START_OVER):
            for values in content["sensitivities"].values():
                values["thresholds"] = {word: float(value) for word, value in values["thresholds"].items()}
        return cls(content["sensitivities"], content.get("tuned_on", {}), folder.listening)

    def write(self, path: Path) -> None:
        """Write the file into a folder."""
        content = {"schema_version": SCHEMA_VERSION, "sensitivities": self.sensitivities, "tuned_on": self.tuned_on}
        write_text(RunFolder(path).listening, json.dumps(content, indent=2) + "\n")

    @property
    def thresholds(self) -> dict[str, float]:
        """Each keyword's threshold for single clips."""
        return self.sensitivities[CLIPS]["thresholds"]

    @property
    def tuned(self) -> dict[str, dict[str, Any]]:
        """The sensitivities for long audio, the one with the fewest false accepts first; empty before `kws tune`."""
        return {name: self.sensitivities[name] for name in TUNED if name in self.sensitivities}

    def with_clips(self, **values: Any) -> Listening:
        """The same with other values of `clips`."""
        clips = self.sensitivities[CLIPS] | values
        return replace(self, sensitivities=self.sensitivities | {CLIPS: clips})
