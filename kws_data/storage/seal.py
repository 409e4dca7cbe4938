"""Whether the files of a cache entry are as they were written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_SEAL = "seal.json"
_HASHED_BYTES = 16_000_000  # larger files are known by their size and time, as reading them all would take too long


def seal(folder: Path) -> None:
    """Record what the files of a complete folder are."""
    (folder / _SEAL).write_text(json.dumps(_states(folder)))


def is_intact(folder: Path) -> bool:
    """Whether a folder is there, sealed, and none of its files was truncated, overwritten or lost since."""
    try:
        return bool(json.loads((folder / _SEAL).read_text()) == _states(folder))
    except (OSError, ValueError):
        return False


def _states(folder: Path) -> dict[str, list[Any]]:
    return {path.name: _state(path) for path in sorted(folder.iterdir()) if path.name != _SEAL}


def _state(path: Path) -> list[Any]:
    status = path.stat()
    if status.st_size > _HASHED_BYTES:
        return [status.st_size, status.st_mtime_ns]
    return [status.st_size, hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()]
