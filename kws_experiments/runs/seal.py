"""Whether a finished run's folder is still as the run left it."""

from __future__ import annotations

from typing import Any

from kws_data.errors import KwsError
from kws_experiments.runs.code_state import file_sha256
from kws_experiments.runs.folder import RunFolder


def seal(folder: RunFolder) -> dict[str, str]:
    """SHA-256 of each file that repeating the run relies on, by its path in the folder."""
    files = [
        folder.config, folder.environment, folder.labels, folder.clips,
        folder.training.history, folder.predictions, folder.model,
    ]  # fmt: skip
    return {file.relative_to(folder.path).as_posix(): file_sha256(file) for file in files}


def finished_record(folder: RunFolder) -> dict[str, Any]:
    """The record of a finished run whose files are all there, as they were.

    Raises:
        KwsError: one is missing, truncated or changed; or there is no such run.
    """
    record = folder.read_finished_record()
    if not isinstance(record.get("files"), dict):
        raise KwsError(f"'{folder.path}' was trained by a version that did not record what repeating it needs")
    for name, sha256 in record["files"].items():
        file = folder.path / name
        if not file.is_file():
            raise KwsError(f"'{file}' is missing: the run's folder is incomplete")
        if file_sha256(file) == sha256:
            continue
        if file == folder.config:
            raise KwsError(f"'{file}' was changed since the run: restore it, or train what it says as a run of its own")
        raise KwsError(f"'{file}' is truncated or was changed since the run: its SHA-256 is not the one in run.json")
    return record
