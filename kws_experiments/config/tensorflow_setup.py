"""Start TensorFlow quietly, with the threads and the determinism that the configuration asks for."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from kws_data.errors import KwsError
from kws_experiments.config import interrupts


def quiet() -> None:
    """Silence TensorFlow's start-up chatter; before its first import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - Path raises; without a home, Keras would make a folder `~` here
        os.environ.setdefault("KERAS_HOME", str(Path(tempfile.gettempdir()) / ".keras"))
    if "tensorflow" not in sys.modules and not any(isinstance(finder, _QuietFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder:
    """Import TensorFlow with standard error held back (2.20 and later log there at any log level), and faster."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        del path, target
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def quietly(module: ModuleType) -> None:
                with standard_error_held_back(), _without_collections():
                    execute(module)

            spec.loader.exec_module = quietly  # type: ignore[method-assign]
        return spec


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep Python's garbage collector from going through what the block makes, then and later.

    TensorFlow's modules are 600,000 objects that stay; going through them time and again takes a sixth of its import.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


@contextmanager
def standard_error_held_back() -> Iterator[None]:
    """Send what is written to standard error, also by native code, to a file; show it if the block fails."""
    sys.stderr.flush()
    shown = interrupts.standard_error = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            interrupts.standard_error = 2
            os.close(shown)


def start(*, intra_op: int, inter_op: int, deterministic: bool, seed: int) -> None:
    """Configure TensorFlow once per process, and seed everything that Keras draws.

    Args:
        intra_op: threads that share one operation; sums depend on it in their last bits.
        inter_op: operations at once.
        deterministic: refuse operations whose results differ from run to run.
        seed: for initialisers and dropout.
    """
    quiet()
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    try:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op)
        tf.config.threading.set_inter_op_parallelism_threads(inter_op)
    except RuntimeError as error:
        raise KwsError("threads: TensorFlow can't change them within one process; start one run for each") from error
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    seed_everything(seed)


def seed_everything(value: int) -> None:
    """Seed Python, NumPy, TensorFlow and Keras."""
    import keras

    keras.utils.set_random_seed(value)
