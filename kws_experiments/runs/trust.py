"""Whose a folder is: made here by this user, as a signature in it says, or from elsewhere.

A run's folder and an export name code: functions in a configuration, layers in a model. From elsewhere they may name
what `config.allowed` lists. A folder that this user made may name anything, and so may all where the user says
`--trust`.

The signature is an HMAC of the files that name code, made with a key that only this user can read. It says that these
files were written by a training or an export of this user, and nothing about what they do.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
from functools import cache
from pathlib import Path

import platformdirs

from kws_data.errors import KwsError
from kws_data.storage.atomic import lock_for, replace_file
from kws_experiments.runs.code_state import file_sha256
from kws_experiments.runs.files import read_json

log = logging.getLogger(__name__)

SIGNATURE = "signature.json"
TRUST = "KWS_TRUST"  # the option --trust, for this process and those that it starts
_CODE = ("config.yaml", "environment.json", "model.keras", "export.json")  # the files that name what is to be run
_KEY_BYTES = 32


def sign(folder: Path) -> None:
    """Say in a folder that this user made it, as it is now."""
    files = _code_files(folder)
    with replace_file(folder / SIGNATURE) as temporary:
        temporary.write_text(json.dumps({"files": files, "hmac": _hmac(files)}, indent=2) + "\n", encoding="utf-8")


def is_trusted(folder: Path) -> bool:
    """Whether a folder may name what it likes: it is as this user made it, or the user said `--trust`."""
    if os.environ.get(TRUST) == "1":
        return True
    try:
        signature = read_json(folder / SIGNATURE, "", ["files", "hmac"])
        files = _code_files(folder)
    except (KwsError, OSError):
        return False
    return bool(files) and files == signature["files"] and _is_hmac(files, signature["hmac"])


def _is_hmac(files: dict[str, str], given: object) -> bool:
    return hmac.compare_digest(_hmac(files).encode(), str(given).encode(errors="replace"))


def require_trust(folder: Path, file: Path, wants: str | None) -> None:
    """Refuse a file of a folder that names something else than everybody's files may name.

    Args:
        folder: of a run or an export.
        file: in it.
        wants: what it names, or None.

    Raises:
        KwsError: it names something, and the folder is not trusted.
    """
    if wants is not None and not is_trusted(folder):
        raise KwsError(
            f"'{file}': {wants}, which only your own runs and exports may use; --trust (or KWS_TRUST=1) allows it here:"
            " give it only where you trust who made the folder"
        )


def require_no_way_out(folder: Path) -> None:
    """Refuse a folder with links that lead out of it, to be read or overwritten, or with pipes, which block.

    Raises:
        KwsError: there is one, and the folder is not trusted.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(root):
        for path in (Path(parent, name) for name in (*folders, *files)):
            wants = None
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                wants = "it is a link to something outside its folder"
            elif not (path.is_file() or path.is_dir()):
                wants = "it is neither a file nor a folder"
            require_trust(folder, folder / path.relative_to(root), wants)


def _code_files(folder: Path) -> dict[str, str]:
    """SHA-256 of the files in a folder that name code."""
    return {name: file_sha256(folder / name) for name in _CODE if (folder / name).is_file()}


def _hmac(files: dict[str, str]) -> str:
    chosen = os.environ.get("KWS_STATE")
    key = _key(Path(chosen) if chosen else platformdirs.user_state_path("kws"))
    return hmac.new(key, json.dumps(files, sort_keys=True).encode(), hashlib.sha256).hexdigest()


@cache
def _key(state: Path) -> bytes:
    """This user's; one for this process alone where none can be kept, with which nothing counts as signed later."""
    try:
        path = state.expanduser().absolute() / "signing.key"
        if not path.is_file():
            path.parent.mkdir(0o700, parents=True, exist_ok=True)
            with lock_for(path):  # two trainings that start at once make one key
                if not path.is_file():
                    with replace_file(path) as temporary:
                        temporary.chmod(0o600)  # before there is anything to read
                        temporary.write_bytes(secrets.token_bytes(_KEY_BYTES))
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise OSError(f"'{path}' is not a key of {_KEY_BYTES} bytes: remove it")
        return key
    except (OSError, RuntimeError) as error:
        log.warning("this run is not signed as yours, since no key can be kept in '%s' (KWS_STATE): %s", state, error)
        return secrets.token_bytes(_KEY_BYTES)
