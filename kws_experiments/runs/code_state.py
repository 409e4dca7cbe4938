"""Which code a run was trained with: the project's, in its checkout, and the user's own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]  # holds the packages: the checkout, or where a wheel was installed
_PACKAGES = ("kws_data", "kws_models", "kws_experiments")
_LARGEST_DIFF_BYTES = 1_000_000  # of a larger one, only the hash is kept
_MOST_UNTRACKED = 100  # names
_GIT_TIMEOUT_S = 60
_PATH_KEYS = ("dir", "dirs", "path", "paths", "file", "files")  # how a key ends whose value may be a path


def code_state(root: Path = ROOT) -> tuple[dict[str, Any], str | None]:
    """The state of the project's code, and its uncommitted changes where they are of a size to keep.

    Returns:
        `sources` (SHA-256 of the project's Python files), and in a git checkout `commit`, `dirty`, `diff_sha256`,
        `diff_bytes`, `untracked` (names, the first of them) and `untracked_count`.
    """
    sources = [path for name in _PACKAGES for path in (root / name).rglob("*.py")]
    state: dict[str, Any] = {"sources": digest_of_files(sources, root)}
    commit = _git(root, "rev-parse", "HEAD")
    # train.py untracked: a copy of the project that lies within some other repository
    if commit is None or _git(root, "ls-files", "--error-unmatch", "train.py") is None:
        return state | {"commit": None}, None
    # the user's diff drivers are not used
    diff = _git(root, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--binary", "HEAD", "--", ".") or b""
    listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", ".") or b""
    untracked = [os.fsdecode(name) for name in listed.split(b"\0") if name]
    state |= {
        "commit": commit.decode().strip(),
        "dirty": bool(diff),
        "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else None,
        "diff_bytes": len(diff),
        "untracked": untracked[:_MOST_UNTRACKED],
        "untracked_count": len(untracked),
    }
    keep = 0 < len(diff) <= _LARGEST_DIFF_BYTES
    return state, diff.decode(errors="replace") if keep else None


def own_code(config: dict[str, Any]) -> dict[str, str]:
    """The user's own modules (of `_target_`s) and files (of augmentation stages) in a configuration, by SHA-256.

    Modules are looked for among those imported: the objects must have been built. Data, noise and unknown folders are
    not here: each of their clips is recorded.
    """
    found = {}
    for target in set(_targets(config)):
        name = target.split(".")[0]
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or name in _PACKAGES or _installed(Path(file)):
            continue
        module = Path(file)
        files = module.parent.rglob("*.py") if module.name == "__init__.py" else [module]
        found[name] = digest_of_files(files, module.parent)
    for key, value in _leaves(config, ""):
        path = Path(value).expanduser() if isinstance(value, str) and key.startswith("augment.") else None
        if path is not None and key.rpartition(".")[2].rpartition("_")[2] in _PATH_KEYS and path.exists():
            found[key] = digest_of_files((each for each in [path, *path.rglob("*")] if each.is_file()), path.parent)
    return dict(sorted(found.items()))


def digest_of_files(files: Iterable[Path], root: Path) -> str:
    """SHA-256 over the files' names below `root` and their contents, in the order of the names."""
    digest = hashlib.sha256()
    for file in sorted(set(files)):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode(errors="surrogateescape"))
        digest.update(file_sha256(file).encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """64 hex digits that name a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git(root: Path, *arguments: str) -> bytes | None:
    """What git prints; None where there is no git, no repository, or no answer."""
    # a repository's own settings must start no program
    quiet = ["-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "-c", "core.pager=cat"]
    command = ["git", "-C", str(root), *quiet, *arguments]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_TIMEOUT_S, env=environment, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _installed(file: Path) -> bool:
    """Whether a module is a package's, whose version is recorded, or Python's own."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return any(file.is_relative_to(sysconfig.get_path(name)) for name in names)


def _targets(node: Any) -> Iterator[str]:
    for key, value in _leaves(node, ""):
        if key.rpartition(".")[2] == "_target_" and isinstance(value, str):
            yield value


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in a configuration that is no mapping or list; a list's items share its key."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, key)
    else:
        yield key, node
