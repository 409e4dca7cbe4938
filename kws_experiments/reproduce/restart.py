"""`kws reproduce`: check a run's folder, choose a new one, and replace this process by one like the run's.

The arithmetic libraries read their environment variables, and TensorFlow its thread counts, once per process. So this
process is replaced (`exec`) by one with the run's variables and working folder, which trains: `train_again.main`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import OmegaConf

from kws_data.errors import KwsError
from kws_experiments.config.compose import CONF
from kws_experiments.runs.code_state import ROOT
from kws_experiments.runs.environment import REPEATED, numeric_variables, read_sessions
from kws_experiments.runs.files import read_json
from kws_experiments.runs.folder import RunFolder, write_text
from kws_experiments.runs.seal import finished_record
from kws_experiments.runs.trust import is_trusted

log = logging.getLogger(__name__)

MARKER = "reproduces.json"  # in the new folder: of which run
RESULT = "reproduction.json"  # in the new folder, when all is done
COULD_NOT_RUN = 2  # exit status
_HARMLESS = re.compile(r"[\w.:,+-]{0,64}")  # a variable's value: no path


def restart(run: Path, *, out: Path | None, data: Path | None, anyway: bool) -> NoReturn:
    """Repeat a run; this process becomes the one that does, and exits with its status.

    Args:
        run: the folder of a finished run.
        out: the new folder; None: `reproductions/<number>` in the run's.
        data: where the data set is now; None: where it was, or in the cache.
        anyway: train though data changed.

    Raises:
        KwsError: the run's folder is not whole, or the new one is taken.
    """
    folder = RunFolder(run.resolve())
    record = finished_record(folder)
    last = read_sessions(folder)[-1]
    require_known_keys(folder)
    target = new_folder(folder) if out is None else out.resolve()
    mark(target, folder, record)
    python_path = last.get("python_path", "") if is_trusted(folder.path) else ""
    environment = like_the_run(last.get("variables", {}), python_path)
    working_directory = Path(last["working_directory"])  # which the configuration's relative paths count from
    arguments = [str(folder.path), str(target), *([f"--data={data.resolve()}"] if data else [])]
    arguments += ["--anyway"] if anyway else []
    if working_directory.is_dir():
        os.chdir(working_directory)
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: the working folder may be another checkout, whose code isn't meant
    command = [sys.executable, "-P", "-m", "kws_experiments.reproduce.train_again", *arguments]
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until the new program can say that it was stopped
    os.execve(sys.executable, command, environment)


def require_known_keys(folder: RunFolder) -> None:
    """Check that a run's configuration has the keys that this version of the project asks for.

    Raises:
        KwsError: naming the first that is missing.
    """
    config = folder.read_config()
    expected = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"))
    assert isinstance(expected, dict)
    for key, value in ((str(key), value) for key, value in expected.items() if key not in ("defaults", "hydra")):
        names = [key, *(f"{key}.{name}" for name in (value if isinstance(value, dict) else ()))]
        below = config.get(key)
        there = {key} & set(config) | {f"{key}.{name}" for name in (below if isinstance(below, dict) else ())}
        if missing := [name for name in names if name not in there]:
            raise KwsError(f"'{folder.config}' has no {missing[0]}: the run is of another version of kws")


def new_folder(folder: RunFolder) -> Path:
    """`reproductions/<number>` below the run's folder: the newest if it is unfinished, else a new one."""
    parent = folder.reproductions
    numbers = sorted(int(path.name) for path in parent.glob("*") if re.fullmatch(r"[1-9]\d*", path.name))
    if numbers and not (parent / str(numbers[-1]) / RESULT).exists():
        return parent / str(numbers[-1])
    return parent / str(numbers[-1] + 1 if numbers else 1)


def mark(target: Path, folder: RunFolder, record: dict[str, Any]) -> None:
    """Say in the new folder which run it repeats.

    Raises:
        KwsError: it holds something else, or is done already.
    """
    identity = {"started": record["started"], "weights_sha256": record["weights_sha256"]}
    marker = target / MARKER
    if marker.is_file():
        found = read_json(marker, "give another folder as --out", list(identity))
        other = {key: found[key] for key in identity}  # not the path: the run may have been moved
        if other != identity:
            raise KwsError(f"--out: '{target}' repeats another run; give another folder")
        if (target / RESULT).is_file():
            raise KwsError(f"--out: '{target}' holds a repetition that is done; give another folder")
        log.info("going on in '%s'", target)
        return
    if target.is_dir() and any(target.iterdir()):
        raise KwsError(f"--out: '{target}' is not empty; give a new folder")
    if target.exists() and not target.is_dir():
        raise KwsError(f"--out: '{target}' is a file; give a new folder")
    write_text(marker, json.dumps({"run": str(folder.path)} | identity, indent=2) + "\n")


def like_the_run(variables: dict[str, str], python_path: str) -> dict[str, str]:
    """This process's environment, with the variables of `REPEATED` as the run had them, and no others set."""
    environment = dict(os.environ)
    now = numeric_variables()
    then = {name: value for name, value in variables.items() if name in REPEATED and _HARMLESS.fullmatch(str(value))}
    for name in sorted({*now, *variables}):
        if name in variables.keys() - then.keys():
            if now.get(name) != variables[name]:
                log.warning("%s is left as it is here, unlike in the run: it could name a file or a program", name)
            continue
        if now.get(name) != then.get(name):
            log.info("%s: %s, as in the run", name, then.get(name, "not set"))
        environment.pop(name, None)
    # the same code as this process's, wherever it starts
    own = [str(ROOT), environment.get("PYTHONPATH") or python_path]
    return environment | then | {"PYTHONPATH": os.pathsep.join(filter(None, own))}
