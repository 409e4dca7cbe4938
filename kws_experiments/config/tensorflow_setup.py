"""Start TensorFlow quietly, with the threads and the determinism that the configuration asks for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from kws_data.errors import KwsError


def quiet() -> None:
    """Silence TensorFlow's start-up chatter; before its first import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - Path raises; without a home, Keras would make a folder `~` here
        os.environ.setdefault("KERAS_HOME", str(Path(tempfile.gettempdir()) / ".keras"))


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
