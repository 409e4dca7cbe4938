"""Names of files and folders: what systems leave behind, and names that differ in their Unicode form alone."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from functools import partial
from pathlib import Path

from kws_data.errors import KwsError

_LEFT_BY_SYSTEMS = frozenset(  # macOS, Windows, Synology, QNAP, Linux
    {
        "__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "lost+found",
    }
)  # fmt: skip
_LEFT_BY_WINDOWS = re.compile(r"found\.\d{3}|.*[:.]zone\.identifier(:\$data)?", re.IGNORECASE)

# The form in which words are compared and shown: macOS writes 'é' as two characters (NFD), other systems as one.
nfc = partial(unicodedata.normalize, "NFC")


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden (as macOS's `._name`), or left behind by a system."""
    return name.startswith(".") or name.casefold() in _LEFT_BY_SYSTEMS or _LEFT_BY_WINDOWS.fullmatch(name) is not None


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8, as tables need it; old ZIP programs leave other names."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def audio_files(folder: Path) -> list[Path]:
    """Every audio file below a folder, sorted, without what systems left behind.

    Broken links and pipes are among them: their reader reports what is wrong with them.
    """
    from kws_data.audio import AUDIO_SUFFIXES  # here, so that names alone cost no NumPy

    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not any(is_litter(part) for part in path.relative_to(folder).parts)
        and not path.is_dir()
    )


def find_folder(path: Path, key: str, advice: str = "") -> Path:
    """The full path of a folder, in the Unicode form that the disk has it in.

    Raises:
        KwsError: there is no such folder; the message starts with `key`, that of the configuration.
    """
    folder = as_stored(path)
    if not os.path.isdir(folder):  # noqa: PTH112 - `is_dir` raises where a folder above may not be read
        raise KwsError(f"{key}: no folder '{folder}'{advice}")
    return folder.resolve()


def find_data_set(path: Path) -> Path:
    """`find_folder` of `dataset.path`."""
    return find_folder(path, "dataset.path", "; give one that holds a folder of clips for each word")


def as_stored(path: Path) -> Path:
    """The path in the Unicode form that the disk has it in; unchanged where there is no such file."""
    path = path.expanduser()
    if os.path.lexists(path) or path == path.parent:
        return path
    parent = as_stored(path.parent)
    with contextlib.suppress(OSError):
        for sibling in parent.iterdir():
            if nfc(sibling.name) == nfc(path.name):
                return sibling
    return parent / path.name
