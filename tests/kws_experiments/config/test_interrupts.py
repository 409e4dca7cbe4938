"""Ctrl-C at moments at which Python would make something else of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

INTERRUPT = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
START = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # not as in a script's background
from kws_experiments.config import interrupts
from kws_experiments.config.exit import one_line_errors
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START + f"sys.path.insert(0, {str(folder)!r})\n{code}"],
        cwd=ROOT, text=True, capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "with interrupts.on_interrupt(interrupts.end):\n import interrupted",
        "with interrupts.on_interrupt(interrupts.end):\n os.kill(os.getpid(), signal.SIGINT); print('not reached')",
        "with one_line_errors():\n import interrupted",
        "with one_line_errors():\n os.kill(os.getpid(), signal.SIGINT); print('not reached')",
        "with one_line_errors():\n import swallowing",
        # some library has made an error of its own of it
        "with one_line_errors():\n try:\n  os.kill(os.getpid(), signal.SIGINT); 1\n"
        " except KeyboardInterrupt:\n  raise RuntimeError('aborted')",
        "import omegaconf\nwith one_line_errors():\n try:\n  os.kill(os.getpid(), signal.SIGINT); 1\n"
        " except KeyboardInterrupt:\n  raise omegaconf.errors.ConfigAttributeError('no flags')",
        # while what TensorFlow says at its start is held back
        "from kws_experiments.config.tensorflow_setup import standard_error_held_back\n"
        "with one_line_errors(), standard_error_held_back():\n import interrupted",
        # blocked by the program before this one
        "signal.pthread_sigmask(signal.SIG_BLOCK, [2]); os.kill(os.getpid(), 2)\n"
        "with interrupts.on_interrupt(interrupts.end): print('not reached')",
        # Typer makes a silent SystemExit of it
        "import typer\nwith one_line_errors():\n"
        " typer.run(lambda: [os.kill(os.getpid(), signal.SIGINT), print('not reached')])",
        # once, also where one is inside another, as `kws reproduce` has it
        "with one_line_errors():\n with one_line_errors():\n  os.kill(os.getpid(), signal.SIGINT); 1",
        # in a destructor, and in an exit function
        "class A:\n def __del__(self): os.kill(os.getpid(), signal.SIGINT); 1\n"
        "with one_line_errors():\n A(); print('not reached')",
        "with one_line_errors():\n import atexit\n atexit.register(lambda: [os.kill(os.getpid(), signal.SIGINT), 1])",
        # while a library has a thread, so that its destructor ends the process by SIGABRT
        "class A:\n def __del__(self, abort=os.abort): abort()\n"
        "a = A()\nwith one_line_errors():\n os.kill(os.getpid(), signal.SIGINT); 1",
        # the same after a training, which takes Ctrl-C itself and saves its state first
        "class A:\n def __del__(self, abort=os.abort): abort()\n"
        "a = A()\nwith one_line_errors():\n raise KeyboardInterrupt",
    ],
)
def test_ctrl_c_is_one_line_and_status_130(code: str, tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(f"{INTERRUPT}\nprint('not reached')")
    (tmp_path / "swallowing.py").write_text("try:\n import interrupted\nexcept BaseException: raise ImportError('x')")
    done = run(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it(tmp_path: Path) -> None:
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    done = run(f"{ignore}\nwith one_line_errors():\n os.kill(os.getpid(), signal.SIGINT); print('reached')", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "reached\n", "")
