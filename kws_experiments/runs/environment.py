"""`environment.json`: what a run's numbers depend on beside its configuration and its data.

A list of sessions: one for the process that began the run, and one for each that went on with it where anything was
different. Uncommitted changes of the code are kept beside it, as `code.diff`.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from kws_data.errors import KwsError
from kws_data.storage.parallel import available_cpus
from kws_experiments.runs.code_state import ROOT, code_state, digest_of_files, own_code
from kws_experiments.runs.files import START_OVER, read_json
from kws_experiments.runs.folder import RunFolder, write_text

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1

# Environment variables that arithmetic libraries read when they are loaded. Not all of TF_: Terraform's begin so too,
# and may hold secrets.
NUMERIC_VARIABLES = re.compile(
    r"TF_(ENABLE|DISABLE|DETERMINISTIC|CUDNN|CUBLAS|CUDA|USE|XLA|GPU|CPU|NUM|FORCE|AUTO|INTER|INTRA|OVERRIDE)\w*"
    r"|(XLA|OMP|GOMP|KMP|MKL|DNNL|ONEDNN|OPENBLAS|BLIS|NUMEXPR|VECLIB|NUMBA|CUDA|CUDNN|CUBLAS|NVIDIA|NCCL)_\w+"
    r"|KERAS_BACKEND|PYTHONHASHSEED"
)
# … of which these belong to a machine rather than to a run, or are set by scikit-learn when it is imported
_NO_MATTER = {"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}
# … and those that a repetition sets as the run had them: they change the last bits, and none names a file or a program
REPEATED = frozenset(
    {
        # sums depend on how they are divided among threads
        "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_DYNAMIC", "MKL_NUM_THREADS", "MKL_DYNAMIC", "OPENBLAS_NUM_THREADS",
        "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
        # they choose a processor's kernels, each with its own order of sums
        "TF_ENABLE_ONEDNN_OPTS", "TF_DISABLE_MKL", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE",
        "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE",
        # they choose a GPU's kernels and their precision
        "TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "TF_CUDNN_USE_AUTOTUNE", "TF_CUDNN_USE_FRONTEND",
        "TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32", "TF_ENABLE_CUDNN_TENSOR_OP_MATH_FP32", "NVIDIA_TF32_OVERRIDE",
        "CUBLAS_WORKSPACE_CONFIG",
        # the order of sets
        "PYTHONHASHSEED",
    }
)  # fmt: skip
_HOW_STARTED = ("started", "command", "overrides", "working_directory", "python_path")
_SYSCTL_FLAGS = ("machdep.cpu.features", "machdep.cpu.leaf7_features")  # on Intel; Apple's own have hw.optional.*


def record_environment(folder: RunFolder, config: dict[str, Any], arithmetic: dict[str, Any]) -> None:
    """Write the environment, or add this session's where it differs from the last one's.

    Needs TensorFlow started as the configuration asks, and the objects that it describes built.

    Args:
        folder: the run's.
        config: resolved.
        arithmetic: `Experiment.arithmetic`.

    Raises:
        KwsError: the run's environment is damaged.
    """
    sessions = read_sessions(folder) if folder.environment.is_file() else []
    now, diff = session(config, arithmetic)
    if sessions and _state(sessions[-1]) == _state(now):
        return
    if diff is not None:
        now["code"]["diff"] = "code.diff" if not sessions else f"code-{len(sessions) + 1}.diff"
        write_text(folder.path / now["code"]["diff"], diff)
    if sessions:
        log.warning("this run goes on in another environment than it began in: see '%s'", folder.environment)
    content = {"schema_version": SCHEMA_VERSION, "sessions": [*sessions, now]}
    write_text(folder.environment, json.dumps(content, indent=2) + "\n")


def read_sessions(folder: RunFolder) -> list[dict[str, Any]]:
    """The sessions of a run, the first one first.

    Raises:
        KwsError: there is no record of them, or it is damaged, or of another version.
    """
    if not folder.environment.is_file():
        raise KwsError(f"'{folder.path}' has no environment.json: it is incomplete, or of a version that wrote none")
    content = read_json(folder.environment, START_OVER, ["schema_version", "sessions"])
    schema, sessions = content["schema_version"], content["sessions"]
    if schema != SCHEMA_VERSION:
        raise KwsError(f"'{folder.environment}' has schema version {schema}, not {SCHEMA_VERSION}")
    needed = {"packages", "processor", "code"}
    if not sessions or not all(isinstance(each, dict) and needed <= set(each) for each in sessions):
        raise KwsError(f"'{folder.environment}' is damaged: it lacks packages, processor or code")
    if not all(isinstance(each.get("variables", {}), dict) for each in sessions):
        raise KwsError(f"'{folder.environment}' is damaged: variables must hold values by name")
    return sessions


def session(config: dict[str, Any], arithmetic: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """This process's environment, and the uncommitted changes of the code, if any."""
    code, diff = code_state()
    environment = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "overrides": _overrides(),
        "working_directory": str(Path.cwd()),
        "python_path": os.environ.get("PYTHONPATH", ""),
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": packages(),
        "processor": processor(),
        "accelerators": _accelerators(),
        "settings": _settings(**arithmetic),
        "variables": numeric_variables(),
        "code": code,
        "own_code": own_code(config),
    }
    return environment, diff


def numeric_variables() -> dict[str, str]:
    """The environment variables that arithmetic libraries read, as they are set."""
    chosen = (name for name in os.environ if NUMERIC_VARIABLES.fullmatch(name) and name not in _NO_MATTER)
    return {name: os.environ[name] for name in sorted(chosen)}


def packages() -> dict[str, str]:
    """The version of every installed distribution, by its normalised name."""
    found: dict[str, str] = {}
    for distribution in distributions():
        metadata = distribution.metadata  # parsed anew each time it is asked for
        name = re.sub(r"[-_.]+", "-", metadata["Name"] or "").lower()
        if name:
            found.setdefault(name, metadata["Version"])  # the first on the path is what gets imported
    return dict(sorted(found.items()))


def feature_identity(features: dict[str, Any]) -> dict[str, Any]:
    """What the bits of features depend on beside samples and weights: configuration, code, versions, arithmetic.

    Args:
        features: the configuration of the front end; a module of the user's own must have been imported.
    """
    return {
        "features": features,
        "code": digest_of_files((ROOT / "kws_data").rglob("*.py"), ROOT),
        "own_code": own_code({"features": features}),
        "versions": {name: version(name) for name in ("tensorflow", "numpy")},
        "variables": numeric_variables(),
        "processor": processor(),
    }


def processor() -> dict[str, Any]:
    """The processor's model, the instruction sets it has, and how many of its cores this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        model, flags = parse_cpuinfo(cpuinfo.read_text(encoding="utf-8", errors="replace"))
    else:
        done = subprocess.run(["sysctl", "machdep.cpu", "hw.optional"], capture_output=True, text=True, check=False)
        model, flags = parse_sysctl(done.stdout)
    return {"model": model or platform.processor(), "flags": flags, "cores": available_cpus()}


def parse_cpuinfo(text: str) -> tuple[str, list[str]]:
    """(model, flags) of the first processor in Linux's `/proc/cpuinfo`; Arm calls the flags features."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    arm = " ".join(fields[name] for name in ("CPU implementer", "CPU part") if name in fields)
    return fields.get("model name") or arm, sorted((fields.get("flags") or fields.get("Features") or "").split())


def parse_sysctl(text: str) -> tuple[str, list[str]]:
    """(model, flags) in what macOS's `sysctl machdep.cpu hw.optional` prints."""
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    flags = {flag.lower() for name in _SYSCTL_FLAGS for flag in fields.get(name, "").split()}
    flags |= {name.removeprefix("hw.optional.") for name, value in fields.items() if value == "1"}
    return fields.get("machdep.cpu.brand_string", ""), sorted(flags)


def _accelerators() -> list[str]:
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(device).get("device_name", device.name) for device in devices]


def _settings(*, deterministic: bool, **threads: int) -> dict[str, Any]:
    """What the run asks of the arithmetic; 0 threads are as many as there are cores."""
    counts = {f"{name}_threads": count or available_cpus() for name, count in threads.items()}
    return {"deterministic": deterministic, **counts}


def _overrides() -> list[str] | None:
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else None


def _state(environment: dict[str, Any]) -> dict[str, Any]:
    """What of a session can change its numbers."""
    state = {key: value for key, value in environment.items() if key not in _HOW_STARTED}
    return state | {"code": {key: value for key, value in environment["code"].items() if key != "diff"}}
